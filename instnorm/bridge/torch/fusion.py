"""What follows a norm in a model, and may be taken into its pass: found, and put there.

Two ways, for what the code of a model says and for what it does:

* In `nn.Sequential`, also nested, the order of modules says it. The activation's module becomes
  one that hands its input on, and the norm applies the activation.
* Elsewhere `torch.fx` traces the forward of a module that holds norms. The traced calls of
  activations and additions are dropped, and the norm is called with the residual. What the
  module then runs is Python code that was made from the trace.

An activation of the ReLU family may change places with a dropout: what one of them sets to 0 or
multiplies by a positive number, the other does as well.
"""

from __future__ import annotations

import functools
import importlib
import operator
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
# Where a fused norm keeps what it does besides, and a rewritten module its code.
KEY = "_instnorm_fusion"
CODE = "_instnorm_code"


class Fusion(NamedTuple):
    """What a norm does besides normalizing."""

    activation: str | None = None
    negative_slope: float = 0.01
    # In a tuple, as a module that is an attribute would be registered as a submodule.
    prelu: tuple[nn.PReLU, ...] = ()
    # The module that applies the activation where the norm must not.
    absorbed: tuple[nn.Module, ...] = ()
    residual: bool = False
    inplace: bool = False


def activation_of(module: nn.Module) -> Fusion | None:
    """What a module does as an activation, if it is one of the family."""
    if type(module) is nn.ReLU:
        return Fusion("relu")
    if type(module) is nn.LeakyReLU:
        return Fusion("leaky_relu", module.negative_slope)
    if type(module) is nn.PReLU:
        return Fusion("leaky_relu", prelu=(module,))
    return None


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody looks at, or changes, what a module takes and gives."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def traced_call(module: nn.Module, input: fx.Proxy, **options: Any) -> fx.Proxy:
    """A call of a module as one node of a trace, as tracers make it of PyTorch's own layers.

    These go by the name of a class's package. A norm cannot be traced into: it is no function of
    PyTorch's.
    """
    given = {name: option for name, option in options.items() if option is not None}
    path = input.tracer.path_of_module(module)
    return input.tracer.create_proxy("call_module", path, (input,), given)


def described(norm: nn.Module) -> str:
    """What a norm does besides normalizing, in words; '' for nothing."""
    found = norm.__dict__.get(KEY)
    if found is None:
        return ""
    words = ["residual"] if found.residual else []
    if found.activation is not None:
        words.append("prelu" if found.prelu else found.activation)
    return ", ".join(words + ["inplace"] * found.inplace)


# --- modules whose order says it ----------------------------------------------------------


class Absorbed:
    """What an activation's module is while its norm applies the activation."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Hand on what is activated already; activate where hooks on the norm forbade that."""
        if isinstance(input, fx.Proxy):
            return traced_call(self, input)
        (norm,) = self.__dict__[KEY]
        if has_hooks(norm):
            return super().forward(input)  # type: ignore[misc]
        return input


class AbsorbedReLU(Absorbed, nn.ReLU):
    """A `ReLU` that the norm before it applies."""


class AbsorbedLeakyReLU(Absorbed, nn.LeakyReLU):
    """A `LeakyReLU` that the norm before it applies."""


class AbsorbedPReLU(Absorbed, nn.PReLU):
    """A `PReLU` that the norm before it applies."""


ABSORBED: dict[type[nn.Module], type[nn.Module]] = {
    nn.ReLU: AbsorbedReLU,
    nn.LeakyReLU: AbsorbedLeakyReLU,
    nn.PReLU: AbsorbedPReLU,
}


def is_plain_sequential(module: nn.Module) -> bool:
    """Whether a module runs its children in their order, and nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def sequence(module: nn.Module, calls: Calls | None = None) -> Iterator[nn.Module]:
    """The modules that a Sequential runs, one after the other, nested ones included.

    With `calls`, a nested one that runs elsewhere too stays whole: what comes before its first
    module there is another one.
    """
    # Not `children()`, which leaves out what comes a second time.
    for child in module._modules.values() if is_plain_sequential(module) else ():
        assert child is not None
        shared = calls is not None and calls.is_shared(child)
        if is_plain_sequential(child) and not has_hooks(child) and not shared:
            yield from sequence(child, calls)
        else:
            yield child


class Calls:
    """Which modules call which, as far as that can be known; to be made before any rewriting."""

    def __init__(self, model: nn.Module) -> None:
        self.traces: dict[nn.Module, fx.Graph | None] = {
            module: _traced(module, lambda m: True)
            for module in model.modules()
            if not is_plain_sequential(module) and any(module.children())
        }
        self._count: Counter[int] = Counter()
        for module in model.modules():
            self._count.update(map(id, self.called_by(module)))

    def called_by(self, module: nn.Module) -> Iterator[nn.Module]:
        """What is called; all that may be, where the code of a module cannot be traced."""
        trace = self.traces.get(module)
        if is_plain_sequential(module):
            yield from (child for child in module._modules.values() if child is not None)
        elif trace is None:
            yield from module.children()
        else:
            for node in trace.nodes:
                if node.op == "call_module":
                    yield module.get_submodule(str(node.target))

    def is_shared(self, module: nn.Module) -> bool:
        """Whether a module is called in several places, or may be."""
        return self._count[id(module)] > 1


def fuse_sequences(model: nn.Module, is_norm: Any, calls: Calls) -> None:
    """Let norms apply the activations that follow them in sequences."""
    for module in model.modules():
        if not is_plain_sequential(module):
            continue
        chain = list(sequence(module, calls))
        for place, norm in enumerate(chain):
            if not is_norm(norm) or KEY in norm.__dict__ or calls.is_shared(norm):
                continue
            followers = [m for m in chain[place + 1 :] if not isinstance(m, DROPOUTS)]
            if not followers or calls.is_shared(followers[0]) or has_hooks(followers[0]):
                continue
            found = activation_of(followers[0])
            between = chain[place + 1 : chain.index(followers[0], place + 1)]
            if found is None or any(map(has_hooks, between)):
                continue
            _absorb(norm, followers[0], found)


def _absorb(norm: nn.Module, activation: nn.Module, found: Fusion) -> None:
    norm.__dict__[KEY] = found._replace(absorbed=(activation,))
    activation.__dict__[KEY] = (norm,)
    activation.__class__ = ABSORBED[type(activation)]


# --- modules whose code is traced -----------------------------------------------------------


_INPLACE_OPERATORS = {
    f"__{function.__name__}__": function
    for function in (
        *(operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv),
        *(operator.imod, operator.ipow, operator.iand, operator.ior, operator.ixor),
        *(operator.ilshift, operator.irshift, operator.setitem),
    )
}


class _Proxy(fx.Proxy):
    """One that records ``x += y`` as what it is: torch.fx would make ``x = x + y`` of it."""


def _recorded(function: Any) -> Any:
    return lambda self, *args: self.tracer.create_proxy(
        "call_function", function, (self, *args), {}
    )


for _name, _function in _INPLACE_OPERATORS.items():
    setattr(_Proxy, _name, _recorded(_function))


def writes_into_first(call: fx.Node) -> bool:
    """Whether a call of a function or a method writes into its first argument."""
    target = call.target
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    if call.kwargs.get("inplace") is True or target in _INPLACE_OPERATORS.values():
        return True
    by_place = getattr(target, "__module__", "") == "torch.nn.functional" and True in [
        argument for argument in call.args if isinstance(argument, bool)
    ]
    return by_place or name in _INPLACE_OPERATORS or (name.endswith("_") and name[-2] != "_")


class _Tracer(fx.Tracer):
    def __init__(self, is_leaf: Any) -> None:
        super().__init__()
        self._is_leaf = is_leaf

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return bool(self._is_leaf(m)) or super().is_leaf_module(m, module_qualified_name)


def _traced(module: nn.Module, is_leaf: Any) -> fx.Graph | None:
    """The trace of a module's forward; None where there is none, or it depends on the mode."""
    training = {m: m.training for m in module.modules()}
    codes, graph = [], None
    try:
        for mode in (True, False):
            module.train(mode)
            graph = _Tracer(is_leaf).trace(module)
            codes.append(graph.python_code("self").src)
    except Exception:  # whatever the code of a stranger's model raises on a proxy
        return None
    finally:
        for each, mode in training.items():
            each.training = mode
    return graph if codes[0] == codes[1] else None


class _Pattern(NamedTuple):
    norm: fx.Node
    activation: fx.Node | None
    addition: fx.Node | None
    residual: Any
    found: Fusion


def fuse_traced(model: nn.Module, is_norm: Any) -> None:
    """Let norms apply what follows them in the code of the modules that hold them."""
    for module in reversed(list(model.modules())):  # the inner ones first
        norms = [m for m in module.modules() if is_norm(m) and KEY not in m.__dict__]
        if is_norm(module) or is_plain_sequential(module) or not norms or has_code(module):
            continue
        inner = [m for m in module.modules() if m is not module]
        if any(has_code(m) for m in inner) or any(has_hooks(m) for m in inner if any(m.children())):
            continue
        graph = _traced(module, is_norm)
        if graph is None:
            continue
        patterns = _patterns(module, graph, is_norm)
        if patterns:
            _rewrite(module, graph, patterns)


def _patterns(module: nn.Module, graph: fx.Graph, is_norm: Any) -> list[_Pattern]:
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    found: list[_Pattern] = []
    for node in graph.nodes:
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            continue
        norm = module.get_submodule(str(node.target))
        if not is_norm(norm) or KEY in norm.__dict__ or calls[node.target] > 1 or has_hooks(norm):
            continue
        pattern = _pattern(module, node)
        # Of two norms that are added, one gets the other as its residual.
        taken = pattern is not None and any(pattern.activation is p.activation for p in found)
        if pattern is not None and not taken:
            found.append(pattern)
    return found


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _pattern(module: nn.Module, norm: fx.Node) -> _Pattern | None:
    """What follows a norm, if it is an activation, or an addition and an activation."""
    last, user = norm, _only_user(norm)
    dropped = False
    while (
        user is not None
        and user.op == "call_module"
        and isinstance(module.get_submodule(str(user.target)), DROPOUTS)
    ):
        last, user, dropped = user, _only_user(user), True
    addition, residual = None, None
    if user is not None and not dropped and _is_addition(user):
        addition = user
        first, second = user.args[:2]
        residual = second if first is last else first
        overwrites = user.target in (operator.iadd, "add_") and first is residual
        if not isinstance(residual, fx.Node) or residual is last or overwrites:
            return None
        # The norm is to wait for the residual: its input must not change until then.
        if any(map(writes_into_first, norm.all_input_nodes[0].users)):
            return None
        user = _only_user(user)
    if user is None:
        return None
    found = _activation(module, user)
    if found is None or user.args[0] is not (last if addition is None else addition):
        return None
    return _Pattern(norm, user, addition, residual, found)


def _is_addition(node: fx.Node) -> bool:
    functions = (operator.add, operator.iadd, torch.add)
    if node.op == "call_function":
        return node.target in functions and len(node.args) == 2 and not node.kwargs
    return node.op == "call_method" and node.target in ("add", "add_") and len(node.args) == 2


def _activation(module: nn.Module, node: fx.Node) -> Fusion | None:
    if node.op == "call_module":
        called = module.get_submodule(str(node.target))
        return None if has_hooks(called) else activation_of(called)
    options = {**dict(zip(("input", "negative_slope"), node.args, strict=False)), **node.kwargs}
    if node.op == "call_function" and node.target in (F.relu, torch.relu, F.relu_, torch.relu_):
        return Fusion("relu")
    if node.op == "call_method" and node.target in ("relu", "relu_"):
        return Fusion("relu")
    if node.op == "call_function" and node.target in (F.leaky_relu, F.leaky_relu_):
        slope = options.get("negative_slope", 0.01)
        return Fusion("leaky_relu", slope) if isinstance(slope, float | int) else None
    return None


def _rewrite(module: nn.Module, graph: fx.Graph, patterns: list[_Pattern]) -> None:
    for pattern in patterns:
        norm, last = pattern.norm, pattern.activation
        assert last is not None
        fusion = pattern.found
        if pattern.addition is not None:
            # The residual may be computed after the norm: the norm waits for it.
            assert isinstance(pattern.residual, fx.Node)
            with graph.inserting_before(pattern.addition):
                later = graph.node_copy(norm, lambda node: node)
            later.kwargs = {"residual": pattern.residual}
            pattern.addition.replace_all_uses_with(later)
            graph.erase_node(pattern.addition)
            graph.erase_node(norm)
            fusion = fusion._replace(residual=True)
            result = later
        else:
            result = last.args[0]  # the norm, or the dropout after it
        last.replace_all_uses_with(result)
        graph.erase_node(last)
        module.get_submodule(str(norm.target)).__dict__[KEY] = fusion
    graph.lint()
    code = graph.python_code("self")
    # What the code calls besides `self`; modules by their names, as they cannot be copied.
    names = {
        name: value.__name__ if isinstance(value, ModuleType) else value
        for name, value in code.globals.items()
    }
    modules = [name for name, value in code.globals.items() if isinstance(value, ModuleType)]
    norms = [str(pattern.norm.target) for pattern in patterns]
    module.__dict__[CODE] = _Code(code.src, names, modules, norms)
    module.__class__ = rewritten_class(type(module))
    _function_of(module.__dict__[CODE])


class _Code(NamedTuple):
    """The code that a rewritten module runs."""

    source: str
    names: dict[str, Any]  # its globals
    modules: list[str]  # those of them that name a module
    norms: list[str]  # the norms that apply what follows them


_rewritten: dict[type[nn.Module], type[nn.Module]] = {}
_functions: dict[str, Any] = {}


def has_code(module: nn.Module) -> bool:
    """Whether a module runs code that was made from a trace."""
    return CODE in module.__dict__


def _function_of(code: _Code) -> Any:
    if code.source not in _functions:
        scope = {
            name: importlib.import_module(value) if name in code.modules else value
            for name, value in code.names.items()
        }
        exec(compile(code.source, "<instnorm: a rewritten forward>", "exec"), scope)
        _functions[code.source] = scope["forward"]
    return _functions[code.source]


def _run_code(self: Any, *args: Any, **kwargs: Any) -> Any:
    code = self.__dict__[CODE]
    norms = [self.get_submodule(name) for name in code.norms]
    if not any(has_hooks(norm) for norm in norms):
        return _functions[code.source](self, *args, **kwargs)
    # A hook is to see what the norm alone gives: the module's own code runs, with plain norms.
    fusions = [norm.__dict__.pop(KEY) for norm in norms]
    try:
        return self._rewritten_from.forward(self, *args, **kwargs)
    finally:
        for norm, fusion in zip(norms, fusions, strict=True):
            norm.__dict__[KEY] = fusion


def _set_state(self: Any, state: dict[str, Any]) -> None:
    self._rewritten_from.__setstate__(self, state)
    _function_of(self.__dict__[CODE])


def _rebuild(cls: type[nn.Module]) -> nn.Module:
    made = rewritten_class(cls)
    return nn.Module.__new__(made)


def rewritten_class(cls: type[nn.Module]) -> type[nn.Module]:
    """A class like another one, of modules that run the code they carry."""
    if cls not in _rewritten:

        @functools.wraps(cls.forward)  # tracers want to know its arguments
        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            return _run_code(self, *args, **kwargs)

        _rewritten[cls] = type(
            cls.__name__,
            (cls,),
            {
                "forward": forward,
                "_rewritten_from": cls,
                "__reduce_ex__": lambda self, _: (_rebuild, (cls,), self.__dict__),
                "__setstate__": _set_state,
                "__module__": cls.__module__,
                "__doc__": cls.__doc__,
            },
        )
    return _rewritten[cls]


# --- the way back -------------------------------------------------------------------------------


def separate(model: nn.Module) -> None:
    """Undo all of it."""
    originals = {made: cls for cls, made in (*_rewritten.items(), *ABSORBED.items())}
    for module in model.modules():
        module.__dict__.pop(KEY, None)
        module.__dict__.pop(CODE, None)
        module.__class__ = originals.get(type(module), type(module))
