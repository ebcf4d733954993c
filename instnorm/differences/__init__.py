"""The differences between PyTorch's, MindSpore's and this package's instance norms.

`SECTIONS` is the table: each row says what the three do, and has a check for each
column. `instnorm.differences.render` makes text of it.
"""

from instnorm.migrate.differences import *  # noqa: F403 - what __all__ there lists
