def make_series_mixer(*a, **k):
    raise NotImplementedError
