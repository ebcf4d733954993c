"""Stateless operations on Tensors, under the names of torch.nn.functional.

Every function takes Tensors or ndarrays and returns a Tensor. Images are
(N, C, H, W).
"""

from typing import NoReturn

from instnorm._missing import missing
from instnorm.arrays import ArgumentError as ArgumentError
from instnorm.functional._inputs import Input as Input
from instnorm.functional._inputs import as_tensor as as_tensor
from instnorm.functional.activation import (
    gelu,
    leaky_relu,
    log_softmax,
    prelu,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from instnorm.functional.conv import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    linear,
)
from instnorm.functional.conv import transposed_lengths as transposed_lengths
from instnorm.functional.distance import cosine_similarity, normalize
from instnorm.functional.dropout import dropout, dropout2d
from instnorm.functional.embedding import embedding, one_hot
from instnorm.functional.loss import Reduction as Reduction
from instnorm.functional.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from instnorm.functional.norm import adaptive_instance_norm, instance_norm
from instnorm.functional.normalization import batch_norm, group_norm, layer_norm
from instnorm.functional.pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from instnorm.functional.vision import interpolate, pad

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_instance_norm",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "dropout2d",
    "embedding",
    "gelu",
    "group_norm",
    "instance_norm",
    "interpolate",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "prelu",
    "relu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "tanh",
]

# What PyTorch has and this package has not: what is nearest.
_INSTEAD = {
    "scaled_dot_product_attention": "write softmax(q @ k.transpose(-1, -2) / d**0.5, -1) @ v",
    "pairwise_distance": "write (a - b).norm(dim=1)",
    "huber_loss": "nearest: smooth_l1_loss",
    "kl_div": "write (target * (target.log() - input)).sum() / len(input)",
    "triplet_margin_loss": "write relu((a - p).norm(dim=1) - (a - n).norm(dim=1) + 1).mean()",
    "logsigmoid": "write -softplus(-x)",
    "elu": "write x.where(x > 0, x.clamp(max=0).exp() - 1)",
    "relu6": "write x.clamp(0, 6)",
    "hardtanh": "write x.clamp(-1, 1)",
    "unfold": "nearest: conv2d",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> NoReturn:
    raise missing("instnorm.functional", name, __all__, _INSTEAD)
