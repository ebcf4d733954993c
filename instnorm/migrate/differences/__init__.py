"""The differences between PyTorch's, MindSpore's and this package's instance norms.

`SECTIONS` is the table: each row says what the three do, and has a check for each
column. `NORMS` has PyTorch and MindSpore alone, for the layers beside it.
`instnorm.differences.render` makes text of them.
"""

from instnorm.migrate.differences.frameworks import INSTNORM_MINDSPORE, INSTNORM_PYTORCH, Framework
from instnorm.migrate.differences.norms import NORMS
from instnorm.migrate.differences.table import SECTIONS, Cell, Row, Section

__all__ = [
    "INSTNORM_MINDSPORE",
    "INSTNORM_PYTORCH",
    "NORMS",
    "SECTIONS",
    "Cell",
    "Framework",
    "Row",
    "Section",
]
