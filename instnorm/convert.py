"""Moving state between PyTorch's and MindSpore's instance norms.

`layer` turns a layer into the other flavour's; `state_dict` renames the entries of
instance norms in the state of a whole model and leaves all others alone. Files are the
matter of `instnorm.checkpoints` and of the command `instnorm convert`.
"""

from instnorm.migrate._flavours import Flavour, RunningStats
from instnorm.migrate.layers import layer
from instnorm.migrate.state_dicts import Change, Converted, state_dict

__all__ = ["Change", "Converted", "Flavour", "RunningStats", "layer", "state_dict"]
