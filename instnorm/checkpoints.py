"""Checkpoint files of both frameworks, as named arrays: read them, and serialize for writing."""

from instnorm.migrate.checkpoints import *  # noqa: F403 - what __all__ there lists
