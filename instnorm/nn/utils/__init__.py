"""Helpers for training: gradients that are kept within bounds."""

from instnorm.nn.utils.clip_grad import clip_grad_norm_

__all__ = ["clip_grad_norm_"]
