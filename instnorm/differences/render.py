"""The table as text: for a terminal, as Markdown, as JSON."""

from instnorm.migrate.differences.render import *  # noqa: F403 - what __all__ there lists
