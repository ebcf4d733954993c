"""What training needs beside nets: `data`, batches of samples."""

from instnorm.utils import data

__all__ = ["data"]
