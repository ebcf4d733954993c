"""Layers: Module and what toy models are built of, under PyTorch's names.

`instnorm.nn.mindspore` holds the instance norms with MindSpore's.
"""

from typing import NoReturn

from instnorm._missing import missing
from instnorm.nn import functional, init, mindspore, utils
from instnorm.nn.activation import (
    GELU,
    LeakyReLU,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from instnorm.nn.conditional import (
    ConditionalInstanceNorm1d,
    ConditionalInstanceNorm2d,
    ConditionalInstanceNorm3d,
)
from instnorm.nn.container import ModuleDict, ModuleList, Sequential
from instnorm.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from instnorm.nn.dropout import Dropout, Dropout2d
from instnorm.nn.embedding import Embedding
from instnorm.nn.instancenorm import (
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LazyInstanceNorm1d,
    LazyInstanceNorm2d,
    LazyInstanceNorm3d,
)
from instnorm.nn.layers import (
    Flatten,
    Identity,
    Linear,
    ReflectionPad2d,
    Unflatten,
    Upsample,
)
from instnorm.nn.loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from instnorm.nn.module import Module
from instnorm.nn.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d, GroupNorm, LayerNorm
from instnorm.nn.parameter import Parameter, UninitializedBuffer, UninitializedParameter
from instnorm.nn.pool import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from instnorm.nn.revin import RevIN

__all__ = [
    "GELU",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "ConditionalInstanceNorm1d",
    "ConditionalInstanceNorm2d",
    "ConditionalInstanceNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CrossEntropyLoss",
    "Dropout",
    "Dropout2d",
    "Embedding",
    "Flatten",
    "GroupNorm",
    "Identity",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "L1Loss",
    "LayerNorm",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "NLLLoss",
    "PReLU",
    "Parameter",
    "ReLU",
    "ReflectionPad2d",
    "RevIN",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Softplus",
    "Tanh",
    "Unflatten",
    "UninitializedBuffer",
    "UninitializedParameter",
    "Upsample",
    "functional",
    "init",
    "mindspore",
    "utils",
]

# What PyTorch has and this package has not: what is nearest.
_INSTEAD = {
    **dict.fromkeys(
        ["Transformer", "TransformerEncoder", "TransformerEncoderLayer", "MultiheadAttention"],
        "instnorm has no attention layers; nearest: Linear, LayerNorm, Embedding, and softmax of "
        "q @ k.transpose(-1, -2)",
    ),
    **dict.fromkeys(
        ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"],
        "instnorm has no recurrent layers; nearest: Linear in a loop, or Conv1d",
    ),
    "SyncBatchNorm": "instnorm runs in one process; nearest: BatchNorm2d",
    "DataParallel": "instnorm runs on one CPU; see instnorm.set_num_threads",
    **dict.fromkeys(
        ["ELU", "SELU", "CELU", "Mish", "ReLU6", "Hardtanh", "Hardswish", "Hardsigmoid"],
        "instnorm does not have it; nearest: SiLU, GELU, LeakyReLU",
    ),
    **dict.fromkeys(
        ["ZeroPad2d", "ReplicationPad2d", "ConstantPad2d", "ZeroPad1d", "ReflectionPad1d"],
        "nearest: functional.pad(x, (left, right, top, bottom), mode), ReflectionPad2d, and "
        "padding= of a convolution",
    ),
    **dict.fromkeys(
        ["AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d"],
        "nearest: x.amax(dim=(2, 3)) for an output of size 1, MaxPool2d, AdaptiveAvgPool2d",
    ),
    **dict.fromkeys(["UpsamplingNearest2d", "UpsamplingBilinear2d"], "nearest: Upsample(mode=...)"),
    "ParameterList": "nearest: register_parameter, or a ModuleList of Modules with a Parameter",
    "HuberLoss": "nearest: SmoothL1Loss",
    "KLDivLoss": "write (target * (target.log() - input)).sum() / len(input)",
    "TripletMarginLoss": "write (d(a, p) - d(a, n) + margin).relu().mean()",
    "PixelShuffle": "nearest: ConvTranspose2d, Upsample",
    "LazyLinear": "nearest: Linear(in_features, ...), where instnorm.summary tells in_features",
    "RMSNorm": "nearest: LayerNorm",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> NoReturn:
    raise missing("instnorm.nn", name, __all__, _INSTEAD)
