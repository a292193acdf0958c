"""The main job: which token mixer for these images and this device?"""

from tokenmix.comparison.main import compare
from tokenmix.comparison.request import DEFAULT_MIXERS, spec_name

__all__ = ["DEFAULT_MIXERS", "compare", "spec_name"]
