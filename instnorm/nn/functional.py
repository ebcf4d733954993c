"""`instnorm.functional`, where people who know PyTorch import it from."""

from instnorm.functional import *  # noqa: F403
from instnorm.functional import __all__ as __all__
from instnorm.functional import __dir__ as __dir__
from instnorm.functional import __getattr__ as __getattr__
