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
from instnorm.nn.dropout import Dropout
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
    Upsample,
)
from instnorm.nn.loss import (
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
    "Tanh",
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
    "ELU": "instnorm does not have it; nearest: SiLU, GELU, LeakyReLU",
    "Dropout2d": "instnorm does not have it; nearest: Dropout",
    "BCELoss": "nearest: BCEWithLogitsLoss, which takes the scores before the sigmoid",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> NoReturn:
    raise missing("instnorm.nn", name, __all__, _INSTEAD)
