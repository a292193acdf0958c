"""The official scripts' settings for every data set and horizon, and the errors that papers report.

Source of the settings: ``time_series_forecasting/scripts`` and ``run.py`` of the official code at commit f3c3e4c. All
of them: look-back 96, Adam without weight decay, squared error, up to 100 epochs, one stage of one block, width 64,
kernels 51 and 5, patches of 4 values with stride 2. There is no script for Exchange: ours is ETTh2's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenmix.tasks.forecasting.splits import HORIZONS, PUBLISHED, find_published
from tokenmix_runtime.names import unknown

LOOK_BACK = 96
EPOCHS = 100


@dataclass(frozen=True)
class ScriptSettings:
    """What a script sets.

    Attributes:
        mlp_ratio: Of the channel mixer.
        drop_rate: Of its hidden layer.
        head_drop: Of the forecast.
        batch_size: Windows of a step.
        lr: Learning rate of the first epochs.
        patience: Epochs without an improvement on the validation part.
    """

    mlp_ratio: int
    drop_rate: float
    head_drop: float
    batch_size: int
    lr: float
    patience: int


_SCRIPTS: dict[str, ScriptSettings] = {
    "etth1": ScriptSettings(2, 0.7, 0.0, 512, 1e-4, 20),
    "etth2": ScriptSettings(8, 0.8, 0.0, 512, 1e-4, 5),
    "ettm1": ScriptSettings(12, 0.6, 0.1, 2048, 1e-4, 20),
    "ettm2": ScriptSettings(12, 0.6, 0.2, 2048, 1e-4, 20),
    "weather": ScriptSettings(12, 0.6, 0.0, 256, 1e-4, 5),
    "electricity": ScriptSettings(12, 0.9, 0.0, 128, 1e-4, 2),
    "traffic": ScriptSettings(12, 0.9, 0.0, 128, 5e-5, 5),
    "exchange": ScriptSettings(8, 0.8, 0.0, 512, 1e-4, 5),
}
# Where a horizon differs from its data set.
_EXCEPTIONS: dict[tuple[str, int], dict[str, Any]] = {
    ("etth2", 720): {"drop_rate": 0.85, "head_drop": 0.5},
    ("exchange", 720): {"drop_rate": 0.85, "head_drop": 0.5},
    ("ettm1", 96): {"head_drop": 0.0},
    ("ettm2", 336): {"drop_rate": 0.7},
    ("ettm2", 720): {"head_drop": 0.1},
    ("weather", 336): {"batch_size": 512, "patience": 10},
    ("weather", 720): {"batch_size": 512, "patience": 10},
}

# Means over the four horizons at look-back 96: mean squared and absolute error.
# Source: table 5 of arXiv:2406.02021; ETTh1, ETTh2: the tables of iTransformer, arXiv:2310.06625.
CITED: dict[str, dict[str, tuple[float, float | None]]] = {
    "etth1": {
        "iTransformer": (0.454, None), "PatchTST": (0.469, None), "TimesNet": (0.458, None), "DLinear": (0.456, None),
    },
    "etth2": {
        "iTransformer": (0.383, None), "PatchTST": (0.387, None), "TimesNet": (0.414, None), "DLinear": (0.559, None),
    },
    "exchange": {
        "FFNet": (0.343, 0.392), "iTransformer": (0.360, 0.403), "PatchTST": (0.367, 0.404), "TimesNet": (0.416, 0.443),
        "DLinear": (0.354, 0.414),
    },
    "electricity": {
        "FFNet": (0.184, 0.278), "iTransformer": (0.178, 0.270), "PatchTST": (0.205, 0.290), "TimesNet": (0.192, 0.295),
        "DLinear": (0.212, 0.300),
    },
    "traffic": {
        "FFNet": (0.517, 0.338), "iTransformer": (0.428, 0.282), "PatchTST": (0.481, 0.304), "TimesNet": (0.620, 0.336),
        "DLinear": (0.625, 0.383),
    },
    "weather": {
        "FFNet": (0.244, 0.274), "iTransformer": (0.258, 0.278), "PatchTST": (0.259, 0.281), "TimesNet": (0.259, 0.287),
        "DLinear": (0.265, 0.317),
    },
}  # fmt: skip


def script_settings(data: str, horizon: int) -> ScriptSettings:
    """The settings of the official script for a data set and a horizon; a horizon between takes the next larger one's.

    Raises:
        ValueError: If there is no such published data set.
    """
    found = find_published(data)
    if found is None:
        raise ValueError(unknown("published series", data, [published.name for published in PUBLISHED.values()]))
    key = found.name.lower()
    longer = next((known for known in HORIZONS if horizon <= known), HORIZONS[-1])
    settings = {**vars(_SCRIPTS[key]), **_EXCEPTIONS.get((key, longer), {})}
    return ScriptSettings(**settings)
