"""What to write in MindSpore for each layer of a PyTorch model, and what differs there.

`advise` looks a layer's class up in `ADVISORS`. The calls are those of `mindspore.nn`, with
every argument whose default differs, so that they can be pasted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from instnorm.migrate.layers import complement
from instnorm.migrate.models import Layer, layers_of, weight_norm_keys
from instnorm.migrate.values import array_of


class Call(NamedTuple):
    """A constructor call, as text and to be made.

    Attributes
    ----------
    name : str
        Of a class in `mindspore.nn`.
    args : tuple
    options : dict from str to object
    """

    name: str
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012 - never written to

    def __str__(self) -> str:
        shown = [*map(_shown, self.args)]
        shown += [f"{key}={_shown(value)}" for key, value in self.options.items()]
        return f"nn.{self.name}({', '.join(shown)})"

    def made(self, nn: Any) -> Any:
        """Return the layer, but for how it starts."""
        options = {k: v for k, v in self.options.items() if not isinstance(v, _Code)}
        return getattr(nn, self.name)(*self.args, **options)


class _Code(str):
    """An argument that is written as it stands."""


def _shown(value: Any) -> str:
    if isinstance(value, _Code):
        return value
    return f'"{value}"' if isinstance(value, str) else repr(value)


class Advice(NamedTuple):
    """What to write in MindSpore for one layer.

    Attributes
    ----------
    prefix : str
        The layer's name in the model.
    pytorch : str
        The layer as PyTorch prints it.
    call : Call or None
        The constructor call, of `mindspore.nn`; None where none gives the same.
    differs : list of str
        What would be different with MindSpore's defaults, or is different all the same: the name
        of an argument, and how.
    """

    prefix: str
    pytorch: str
    call: Call | None
    differs: list[str]


def advise(model: Any) -> list[Advice]:
    """Say what to write in MindSpore for each layer of a PyTorch model.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    list of Advice
        For each layer that has no others inside it, in the model's order.

    Examples
    --------
    >>> from instnorm import nn
    >>> from instnorm.migrate.advice import advise
    >>> print(advise(nn.Sequential(nn.InstanceNorm2d(3)))[0].call)
    nn.InstanceNorm2d(3, momentum=0.9, affine=False)
    """
    return [_advice(layer) for layer in layers_of(model)]


def _advice(layer: Layer) -> Advice:
    classes = (base.__name__ for base in type(layer.module).__mro__)
    advisor = next((ADVISORS[name] for name in classes if name in ADVISORS), _unknown)
    call, differs = advisor(layer.module)
    if call is not None:
        call = call._replace(options=call.options | _constants(layer))
    if weight_norm_keys(layer):
        differs = [
            *differs,
            "weight_norm: MindSpore has none; the weight that it computes is "
            "carried over, and learned as it is",
        ]
    return Advice(layer.prefix, " ".join(repr(layer.module).split()), call, differs)


# What starts at a constant, and MindSpore's argument for it.
_STARTS: dict[str, dict[str, tuple[str, float | None]]] = {
    "Norm": {"weight": ("gamma_init", 1.0), "bias": ("beta_init", 0.0)},
    "Conv": {"bias": ("bias_init", None)},
    "ConvTranspose": {"bias": ("bias_init", None)},
    "Linear": {"bias": ("bias_init", None)},
}


def _constants(layer: Layer) -> dict[str, Any]:
    """Return how parameters start that hold one number, where that is not MindSpore's way.

    Random weights of convolutions and Dense start alike in both frameworks.
    """
    family = layer.kind.family if layer.kind else ""
    starts = _STARTS.get("Norm" if family.endswith("Norm") else family, {})
    found = {}
    for name, (argument, usual) in starts.items():
        parameter = layer.parameter(name)
        values = array_of(parameter) if parameter is not None else np.empty(0)
        constant = float(values.flat[0]) if values.size > 1 else usual
        if constant != usual and bool((values == constant).all()):
            found[argument] = {0.0: "zeros", 1.0: "ones"}.get(constant or 0.0, constant)
    return found


_Answer = tuple[Call | None, list[str]]
_Advisor = Callable[[Any], _Answer]


def _call(name: str, *args: Any, **options: Any) -> Call:
    return Call(name, args, options)


def _plain(size: Any) -> Any:
    """One number where all axes have the same."""
    if isinstance(size, tuple | list):
        return size[0] if len(set(size)) == 1 else tuple(size)
    return size


def _unless(default: Any, **options: Any) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value != default}


# --- convolutions ------------------------------------------------------------------------------

_SAME = 'pad_mode: "same" by default, which pads to the input\'s size; PyTorch pads by `padding`'
_BIAS = "has_bias: False by default; PyTorch's bias is there by default"


def _conv(rank: int) -> _Advisor:
    def answer(layer: Any) -> _Answer:
        differs = [_SAME] + ([_BIAS] if layer.bias is not None else [])
        padding: dict[str, Any]
        if layer.padding == "same":
            padding = {"pad_mode": "same"}
            differs = differs[1:]
        elif layer.padding == "valid" or not any(layer.padding):
            padding = {"pad_mode": "valid"}
        else:
            padding = {"pad_mode": "pad", "padding": _both_sides(layer.padding)}
        if layer.padding_mode != "zeros" and padding["pad_mode"] != "valid":
            differs.append(
                f"padding_mode {layer.padding_mode!r}: MindSpore's convolution pads by zeros; pad "
                f"by `ops.pad` before it ({_pad_call(layer)})"
            )
            padding = {"pad_mode": "valid"}
        options = _unless(1, stride=_plain(layer.stride)) | padding
        options |= _unless(1, dilation=_plain(layer.dilation), group=layer.groups)
        call = _call(
            f"Conv{rank}d",
            layer.in_channels,
            layer.out_channels,
            _plain(layer.kernel_size),
            **options,
            has_bias=layer.bias is not None,
        )
        return call, differs

    return answer


def _pad_call(layer: Any) -> str:
    sizes = tuple(layer._reversed_padding_repeated_twice)
    return f'ops.pad(x, {sizes}, mode="{layer.padding_mode}")'


def _both_sides(padding: Any) -> Any:
    one = _plain(padding)
    if isinstance(one, tuple):
        return tuple(size for size in one for _ in range(2))
    return one


def _conv_transpose(rank: int) -> _Advisor:
    def answer(layer: Any) -> _Answer:
        differs = [_SAME] + ([_BIAS] if layer.bias is not None else [])
        options = _unless(1, stride=_plain(layer.stride))
        padding, extra = layer.padding, layer.output_padding
        options |= {"pad_mode": "pad", "padding": _both_sides(padding)}
        if any(extra) and rank == 3:
            options |= {"output_padding": _plain(extra)}
        elif any(extra) and rank == 2 and all(e <= p for e, p in zip(extra, padding, strict=True)):
            # What PyTorch adds on one side is what it would else have cut off there.
            sides = zip(padding, extra, strict=True)
            options["padding"] = tuple(n for p, e in sides for n in (p, p - e))
            differs.append(
                "output_padding: MindSpore's Conv2dTranspose adds rows of zeros; less padding on "
                "that side gives PyTorch's values"
            )
        elif any(extra):
            differs.append(
                f"output_padding {_plain(extra)}: MindSpore has no constructor call that gives "
                "PyTorch's values"
            )
        options |= _unless(1, dilation=_plain(layer.dilation), group=layer.groups)
        call = _call(
            f"Conv{rank}dTranspose",
            layer.in_channels,
            layer.out_channels,
            _plain(layer.kernel_size),
            **options,
            has_bias=layer.bias is not None,
        )
        return call, differs

    return answer


# --- norms -------------------------------------------------------------------------------------


def _momentum(layer: Any, default: float) -> tuple[dict[str, float], list[str]]:
    if layer.momentum is None:
        return {}, ["momentum=None, the average of all batches: MindSpore has none"]
    turned = complement(layer.momentum)
    return _unless(default, momentum=turned), [
        f"momentum: the share of the old statistic in MindSpore, so that {layer.momentum:g} "
        f"becomes {turned:g}"
    ]


def _instance_norm(rank: int) -> _Advisor:
    def answer(layer: Any) -> _Answer:
        momentum, differs = _momentum(layer, 0.1)
        if layer.momentum is None:
            differs = []
        options = _unless(1e-5, eps=float(layer.eps)) | momentum | {"affine": layer.affine}
        if not layer.affine:
            differs.insert(0, "affine: True by default")
        elif layer.bias is None:
            differs.append("bias=False: MindSpore's beta is there, and learned unless frozen")
        if layer.track_running_stats:
            differs.append(
                "track_running_stats: MindSpore has none, and normalizes by the input's own "
                "statistics in evaluation too"
            )
        if not 0 < layer.eps <= 1:
            differs.append(f"eps {layer.eps:g}: MindSpore takes only (0, 1]")
        differs.append("platform: GPU alone; on a CPU by instnorm.bridge.mindspore.convert")
        return _call(f"InstanceNorm{rank}d", layer.num_features, **options), differs

    return answer


def _batch_norm(rank: int) -> _Advisor:
    def answer(layer: Any) -> _Answer:
        momentum, differs = _momentum(layer, 0.9)
        options = _unless(1e-5, eps=layer.eps) | momentum
        options |= _unless(True, affine=layer.affine)
        if not layer.track_running_stats:
            options |= {"use_batch_statistics": True}
            differs.append("track_running_stats=False: use_batch_statistics=True in MindSpore")
        return _call(f"BatchNorm{rank}d", layer.num_features, **options), differs

    return answer


def _group_norm(layer: Any) -> _Answer:
    options = _unless(1e-5, eps=layer.eps) | _unless(True, affine=layer.affine)
    return _call("GroupNorm", layer.num_groups, layer.num_channels, **options), []


def _layer_norm(layer: Any) -> _Answer:
    options = {}
    differs = ["epsilon: 1e-7 by default; PyTorch's eps is 1e-5"]
    if len(layer.normalized_shape) > 1:
        options = {"begin_norm_axis": 1, "begin_params_axis": 1}
        differs.append(
            "begin_norm_axis: -1 by default, the last axis alone, and counted from the first: 1 "
            "where one batch axis comes before normalized_shape"
        )
    if not layer.elementwise_affine:
        differs.append(
            "elementwise_affine=False: gamma and beta are there, and learned unless frozen"
        )
    elif layer.bias is None:
        differs.append("bias=False: beta is there, and learned unless frozen")
    shape = tuple(layer.normalized_shape)
    return _call("LayerNorm", shape, **options, epsilon=layer.eps), differs


# --- others that have a state ------------------------------------------------------------------


def _linear(layer: Any) -> _Answer:
    options = _unless(True, has_bias=layer.bias is not None)
    return _call("Dense", layer.in_features, layer.out_features, **options), []


def _embedding(layer: Any) -> _Answer:
    differs = ['embedding_table: "normal" by default, of standard deviation 0.01; PyTorch\'s is 1']
    if layer.max_norm is not None:
        differs.append("max_norm: MindSpore has none")
    options = {"embedding_table": _Code("mindspore.common.initializer.Normal(1.0)")}
    options |= _unless(None, padding_idx=layer.padding_idx)
    return _call("Embedding", layer.num_embeddings, layer.embedding_dim, **options), differs


def _prelu(layer: Any) -> _Answer:
    return _call("PReLU", *([layer.num_parameters] if layer.num_parameters != 1 else [])), []


# --- layers without a state ----------------------------------------------------------------------


def _leaky_relu(layer: Any) -> _Answer:
    differs = ["alpha: 0.2 by default; PyTorch's negative_slope is 0.01"]
    return _call("LeakyReLU", alpha=layer.negative_slope), differs


def _elu(layer: Any) -> _Answer:
    differs = [] if layer.alpha == 1 else [f"alpha {layer.alpha:g}: MindSpore takes 1.0 alone"]
    return _call("ELU", layer.alpha), differs


def _gelu(layer: Any) -> _Answer:
    differs = ["approximate: True by default, by tanh; PyTorch's is exact"]
    return _call("GELU", approximate=layer.approximate == "tanh"), differs


def _softmax(name: str) -> _Advisor:
    def answer(layer: Any) -> _Answer:
        if layer.dim is None:
            return _call(name), ["dim=None: PyTorch chooses the axis by the input; say it"]
        return _call(name, axis=layer.dim), []

    return answer


def _dropout(name: str) -> _Advisor:
    return lambda layer: (_call(name, p=layer.p), ["random: other masks in MindSpore"])


def _pooling(name: str) -> _Advisor:
    def answer(layer: Any) -> _Answer:
        stride = layer.stride if layer.stride is not None else layer.kernel_size
        differs = ["stride: 1 by default; PyTorch's is kernel_size"]
        options = {"kernel_size": _plain(layer.kernel_size), "stride": _plain(stride)}
        if _plain(layer.padding):
            options |= {"pad_mode": "pad", "padding": _plain(layer.padding)}
        options |= _unless(1, dilation=_plain(getattr(layer, "dilation", 1)))
        options |= _unless(False, ceil_mode=layer.ceil_mode)
        options |= _unless(True, count_include_pad=getattr(layer, "count_include_pad", True))
        return _call(name, **options), differs

    return answer


def _adaptive(name: str) -> _Advisor:
    return lambda layer: (_call(name, layer.output_size), [])


def _padding(name: str) -> _Advisor:
    return lambda layer: (_call(name, layer.padding), [])


def _constant_padding(name: str) -> _Advisor:
    return lambda layer: (_call(name, layer.padding, layer.value), [])


def _upsample(layer: Any) -> _Answer:
    options = _unless(None, size=layer.size)
    differs = []
    if layer.scale_factor is not None:
        factor = layer.scale_factor
        factor = factor if isinstance(factor, tuple) else (factor,) * 2
        options = {"scale_factor": tuple(map(float, factor)), "recompute_scale_factor": True}
        differs.append(
            "scale_factor: a float for each spatial axis (two are written here), and not without "
            "recompute_scale_factor=True"
        )
    options |= {"mode": layer.mode} | _unless(None, align_corners=layer.align_corners)
    return _call("Upsample", **options), differs


def _flatten(layer: Any) -> _Answer:
    options = _unless(1, start_dim=layer.start_dim) | _unless(-1, end_dim=layer.end_dim)
    return _call("Flatten", **options), []


def _same(name: str, *attributes: str) -> _Advisor:
    return lambda layer: (_call(name, *(getattr(layer, a) for a in attributes)), [])


def _unknown(layer: Any) -> _Answer:
    name = type(layer).__name__
    own = [*getattr(layer, "_parameters", {}), *getattr(layer, "_buffers", {})]
    differs = [f"{name} is not in this table: see whether mindspore.nn has it"]
    if own:
        differs.append(f"its entries keep their names: {', '.join(own)}")
    return None, differs


def _for_ranks(make: Callable[[int], _Advisor], name: str) -> Iterable[tuple[str, _Advisor]]:
    return ((name.format(rank), make(rank)) for rank in (1, 2, 3))


#: By the class of PyTorch's.
ADVISORS: dict[str, _Advisor] = {
    **dict(_for_ranks(_conv, "Conv{}d")),
    **dict(_for_ranks(_conv_transpose, "ConvTranspose{}d")),
    **dict(_for_ranks(_instance_norm, "InstanceNorm{}d")),
    **dict(_for_ranks(_batch_norm, "BatchNorm{}d")),
    "SyncBatchNorm": _batch_norm(2),
    "GroupNorm": _group_norm,
    "LayerNorm": _layer_norm,
    "Linear": _linear,
    "Embedding": _embedding,
    "PReLU": _prelu,
    "LeakyReLU": _leaky_relu,
    "GELU": _gelu,
    "Softmax": _softmax("Softmax"),
    "LogSoftmax": _softmax("LogSoftmax"),
    "Dropout": _dropout("Dropout"),
    "Dropout1d": _dropout("Dropout1d"),
    "Dropout2d": _dropout("Dropout2d"),
    "Dropout3d": _dropout("Dropout3d"),
    **{f"MaxPool{rank}d": _pooling(f"MaxPool{rank}d") for rank in (1, 2, 3)},
    **{f"AvgPool{rank}d": _pooling(f"AvgPool{rank}d") for rank in (1, 2, 3)},
    **{
        name: _adaptive(name)
        for kind in ("Avg", "Max")
        for name in (f"Adaptive{kind}Pool{rank}d" for rank in (1, 2, 3))
    },
    **{f"ReflectionPad{rank}d": _padding(f"ReflectionPad{rank}d") for rank in (1, 2, 3)},
    **{f"ReplicationPad{rank}d": _padding(f"ReplicationPad{rank}d") for rank in (1, 2, 3)},
    **{f"ConstantPad{rank}d": _constant_padding(f"ConstantPad{rank}d") for rank in (1, 2, 3)},
    "ZeroPad2d": _padding("ZeroPad2d"),
    "Upsample": _upsample,
    "Flatten": _flatten,
    "Identity": _same("Identity"),
    "ReLU": _same("ReLU"),
    "ReLU6": _same("ReLU6"),
    "ELU": _elu,
    "CELU": _same("CELU", "alpha"),
    "SELU": _same("SeLU"),
    "SiLU": _same("SiLU"),
    "Mish": _same("Mish"),
    "Sigmoid": _same("Sigmoid"),
    "LogSigmoid": _same("LogSigmoid"),
    "Tanh": _same("Tanh"),
    "Softsign": _same("Softsign"),
    "Hardswish": _same("HSwish"),
    "Hardsigmoid": _same("HSigmoid"),
    "Hardtanh": _same("Hardtanh", "min_val", "max_val"),
    "PixelShuffle": _same("PixelShuffle", "upscale_factor"),
}
