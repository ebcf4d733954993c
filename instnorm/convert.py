"""Moving state between PyTorch and MindSpore.

`state_dict` gives the state of a whole model the other framework's names and shapes; `module`
carries the state of one model into another, `verify` runs both on the same input, and `advise` says
what to write in MindSpore. `layer` turns an instance norm of this package into the other flavour's.
Files are the matter of `instnorm.checkpoints` and of the command `instnorm convert`.
"""

from instnorm.migrate._flavours import Flavour, RunningStats, Target
from instnorm.migrate.advice import Advice, advise
from instnorm.migrate.kinds import KINDS, Entry, Kind, Sample
from instnorm.migrate.layers import layer
from instnorm.migrate.modules import module
from instnorm.migrate.state_dicts import Change, Converted, Decision, state_dict
from instnorm.migrate.verify import verify

__all__ = [
    "KINDS",
    "Advice",
    "Change",
    "Converted",
    "Decision",
    "Entry",
    "Flavour",
    "Kind",
    "RunningStats",
    "Sample",
    "Target",
    "advise",
    "layer",
    "module",
    "state_dict",
    "verify",
]
