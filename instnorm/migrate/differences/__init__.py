"""The differences between PyTorch's, MindSpore's and this package's instance norms.

`SECTIONS` is the table: each row says what the three do, and has a check for each
column. `instnorm.differences.render` makes text of it.
"""

from instnorm.migrate.differences.frameworks import INSTNORM_MINDSPORE, INSTNORM_PYTORCH, Framework
from instnorm.migrate.differences.table import SECTIONS, Cell, Row, Section

__all__ = [
    "INSTNORM_MINDSPORE",
    "INSTNORM_PYTORCH",
    "SECTIONS",
    "Cell",
    "Framework",
    "Row",
    "Section",
]
