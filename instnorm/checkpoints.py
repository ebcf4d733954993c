"""Checkpoint files of both frameworks, as named arrays: read them, and serialize for writing."""

from instnorm.migrate.checkpoints import (
    SUFFIXES,
    Checkpoint,
    CheckpointError,
    dumps,
    holds_metadata,
    read,
)

__all__ = ["SUFFIXES", "Checkpoint", "CheckpointError", "dumps", "holds_metadata", "read"]
