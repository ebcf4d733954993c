"""Module: a function with parameters, buffers and submodules, found by their attributes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from instnorm._layouts import array_of
from instnorm.autograd import RemovableHandle
from instnorm.nn.hooks import Hooks
from instnorm.nn.parameter import Parameter, is_lazy
from instnorm.tensor import Tensor, target_dtype

if TYPE_CHECKING:
    from typing import Self


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` returns."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not any(self):
            return "<All keys matched successfully>"
        fields = ", ".join(f"{name}={names}" for name, names in self._asdict().items())
        return f"{type(self).__name__}({fields})"


class Module:
    """Base class of layers and networks.

    A subclass calls ``super().__init__()``, assigns Parameters and Modules to
    attributes, and defines ``forward``.

    Attributes
    ----------
    training : bool
        Set by `train` and `eval`.

    Examples
    --------
    >>> import instnorm
    >>> class Scale(instnorm.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = instnorm.nn.Parameter([2.0])
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> layer = Scale()
    >>> layer(instnorm.tensor([3.0])).item()
    6.0
    >>> dict(layer.state_dict())
    {'factor': array([2.], dtype=float32)}
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent: set[str]
    _hooks: Hooks | None = None

    # {attribute: name in the state dict of a Module by itself}, where the two differ. In the state
    # dict of a Module around it, entries have the attributes' names.
    _state_names: ClassVar[Mapping[str, str]] = {}
    # Of the state dict's format: to be raised when a subclass saves other entries than before.
    _version: ClassVar[int] = 1

    def __init__(self) -> None:
        # Written to __dict__, as __setattr__ looks the tables up.
        self.__dict__.update(
            training=True, _parameters={}, _buffers={}, _modules={}, _non_persistent=set()
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; defined by subclasses."""
        raise NotImplementedError(f"{type(self).__name__} must define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output by `forward`, and run the hooks."""
        if self._hooks is None:
            return self.forward(*args, **kwargs)
        return self._hooks.call(self, args, kwargs)

    # --- hooks -------------------------------------------------------------------

    def register_forward_pre_hook(
        self, hook: Callable[[Module, tuple[Any, ...]], Any]
    ) -> RemovableHandle:
        """Have ``hook(module, args)`` called before `forward`.

        What it returns, if not None, takes the place of the positional arguments.
        """
        return RemovableHandle(self._own_hooks().before, hook)

    def register_forward_hook(
        self, hook: Callable[[Module, tuple[Any, ...], Any], Any]
    ) -> RemovableHandle:
        """Have ``hook(module, args, output)`` called after `forward`.

        What it returns, if not None, takes the place of the output.

        Examples
        --------
        >>> import instnorm
        >>> layer = instnorm.nn.Linear(2, 3)
        >>> handle = layer.register_forward_hook(lambda module, args, output: print(output.shape))
        >>> y = layer(instnorm.zeros(5, 2))
        (5, 3)
        >>> handle.remove()
        """
        return RemovableHandle(self._own_hooks().after, hook)

    def register_full_backward_hook(
        self, hook: Callable[[Module, tuple[Any, ...], tuple[Any, ...]], Any]
    ) -> RemovableHandle:
        """Have ``hook(module, grad_input, grad_output)`` called in the backward pass.

        Both are tuples, of a gradient or None for each positional argument and for each
        output. What it returns, if not None, takes the place of `grad_input`.
        """
        return RemovableHandle(self._own_hooks().backward, hook)

    def _own_hooks(self) -> Hooks:
        if self._hooks is None:
            self.__dict__["_hooks"] = Hooks()
        hooks: Hooks = self.__dict__["_hooks"]
        return hooks

    # --- registration ----------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        tables = self._tables()
        kind = (
            "_parameters"
            if isinstance(value, Parameter) or name in tables["_parameters"]
            else "_modules"
            if isinstance(value, Module)
            else next((kind for kind, table in tables.items() if name in table), None)
        )
        if kind is None:
            object.__setattr__(self, name, value)
            return
        word, expected = _KINDS[kind]
        if not isinstance(value, expected | None):
            raise TypeError(f"cannot assign {type(value).__name__} to {word} {name!r}")
        for other, table in tables.items():
            if other != kind:
                table.pop(name, None)
        self.__dict__.pop(name, None)
        tables[kind][name] = value

    def _tables(self) -> dict[str, dict[str, Any]]:
        try:
            return {k: self.__dict__[k] for k in _KINDS}
        except KeyError:
            raise AttributeError(
                f"{type(self).__name__} assigns an attribute before super().__init__() was called"
            ) from None

    def __getattr__(self, name: str) -> Any:
        # Python calls this only where the ordinary lookup has found no attribute.
        own = self.__dict__
        for kind in _KINDS:
            if kind in own and name in own[kind]:
                return own[kind][name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for table in self._tables().values():
            if name in table:
                del table[name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._parameters, *self._buffers, *self._modules]

    def _register(self, argument: str, name: str, value: Any, kind: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, got {type(name).__name__}")
        if name == "" or "." in name:
            raise KeyError(f"name must not be empty nor contain a dot, got {name!r}")
        if name not in self._tables()[kind] and hasattr(self, name):
            raise KeyError(f"name {name!r} is taken by another attribute")
        expected = _KINDS[kind][1]
        if not isinstance(value, expected | None):
            raise TypeError(
                f"{argument} must be a {expected.__name__} or None, got {type(value).__name__}"
            )
        self._tables()[kind][name] = value

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter; None keeps the name with no parameter in it."""
        self._register("param", name, param, "_parameters")

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a Tensor that is state but no parameter; it is saved if `persistent`."""
        self._register("tensor", name, tensor, "_buffers")
        (self._non_persistent.discard if persistent else self._non_persistent.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under a name that need not be an identifier."""
        self._register("module", name, module, "_modules")

    # --- what is inside ------------------------------------------------------------

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield this Module and all below it, each once, with its dotted name."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            below = [
                (f"{name}.{key}" if name else key, child) for key, child in module.named_children()
            ]
            stack.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        """Yield this Module and all below it."""
        return (module for _, module in self.named_modules())

    def get_submodule(self, target: str) -> Module:
        """Return what `named_modules` has under a dotted name.

        Raises
        ------
        AttributeError
            If there is no such Module.
        """
        modules = dict(self.named_modules())
        if target not in modules:
            raise AttributeError(f"{type(self).__name__} has no submodule {target!r}")
        return modules[target]

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the direct submodules, each once, with their names."""
        seen: set[int] = set()
        for name, child in self._modules.items():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def children(self) -> Iterator[Module]:
        """Yield the direct submodules, each once."""
        return (child for _, child in self.named_children())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield the parameters, each once, with their dotted names."""
        return self._named("_parameters", prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield the parameters, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Yield the buffers, each once, with their dotted names."""
        return self._named("_buffers", prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield the buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _named(self, kind: str, prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for module_name, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, tensor in getattr(module, kind).items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield module._state_name(f"{module_name}." if module_name else "", name), tensor

    def _state_name(self, prefix: str, name: str) -> str:
        return prefix + name if prefix else self._state_names.get(name, name)

    # --- state ---------------------------------------------------------------------

    def _places(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield this Module and all below it, under every name it has, with its prefix."""
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child._places(f"{prefix}{name}.")

    def _state_tensors(self) -> OrderedDict[str, Tensor]:
        """Every persistent Tensor under every name it has, in PyTorch's order."""
        state: OrderedDict[str, Tensor] = OrderedDict()
        for prefix, module in self._places():
            saved = [
                *module._parameters.items(),
                *((n, b) for n, b in module._buffers.items() if n not in module._non_persistent),
            ]
            for name, tensor in saved:
                if tensor is not None:
                    state[module._state_name(prefix, name)] = tensor
        return state

    def state_dict(self) -> OrderedDict[str, npt.NDArray[Any]]:
        """Return the values of the parameters and persistent buffers.

        Returns
        -------
        OrderedDict from str to ndarray
            The arrays share memory with the Module, as PyTorch's do: copy what should
            outlive the next step. What a lazy layer has not initialized yet stands
            there itself.
        """
        state: OrderedDict[str, Any] = OrderedDict()
        for name, tensor in self._state_tensors().items():
            state[name] = tensor if is_lazy(tensor) else tensor.data
        # The attribute by which PyTorch, and load_state_dict here, tell a state dict's version.
        state._metadata = OrderedDict(  # type: ignore[attr-defined]
            (prefix[:-1], {"version": module._version}) for prefix, module in self._places()
        )
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> IncompatibleKeys:
        """Copy values into the parameters and buffers.

        Parameters
        ----------
        state_dict : mapping from str to array
            ndarrays, Tensors, and whatever has ``__array__`` or ``__dlpack__``, such as
            PyTorch's tensors. Values are cast to the dtype of the parameter.
        strict : bool, default True
            Whether the names must be exactly those of `state_dict()`.

        Returns
        -------
        missing_keys, unexpected_keys : list of str

        Raises
        ------
        RuntimeError
            If names are missing or unexpected and `strict` is set, or a shape does not
            fit. Nothing is changed then.
        TypeError
            If `state_dict` is no mapping.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a mapping, got {type(state_dict).__name__}")
        own = self._state_tensors()
        optional = self._optional_names(getattr(state_dict, "_metadata", {}))
        state_dict = self._under_own_names(state_dict)
        missing = [name for name in own if name not in state_dict and name not in optional]
        unexpected = [str(name) for name in state_dict if name not in own]
        errors = self._state_errors(missing, unexpected) if strict else []
        values = {}
        for name, tensor in own.items():
            if name not in state_dict or (is_lazy(tensor) and is_lazy(state_dict[name])):
                continue
            try:
                values[name] = array_from(state_dict[name])
            except (TypeError, ValueError, RuntimeError) as error:
                errors.append(f"{name}: {error}")
                continue
            if not is_lazy(tensor) and values[name].shape != tensor.shape:
                errors.append(
                    f"size mismatch for {name}: copying a param with shape {values[name].shape} "
                    f"from checkpoint, the shape in current model is {tensor.shape}."
                )
        if errors:
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t"
                + "\n\t".join(errors)
            )
        for name, value in values.items():
            tensor = own[name]
            if is_lazy(tensor):
                tensor.materialize(value.shape)
            tensor.data[...] = value
            tensor.mark_changed()
        return IncompatibleKeys(missing, unexpected)

    def _under_own_names(self, state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
        """Rename what goes by the other of a Tensor's two names (see `_state_names`)."""
        renamed = {}
        for prefix, module in self._places():
            for names in module._state_names.items():
                own = module._state_name(prefix, names[0])
                (other,) = {prefix + name for name in names} - {own}
                if own not in state_dict:
                    renamed[other] = own
        return {renamed.get(name, name): value for name, value in state_dict.items()}

    def _optional_names(self, metadata: Mapping[str, Mapping[str, Any]]) -> set[str]:
        """What state dicts of this age need not have."""
        return {
            prefix + name
            for prefix, module in self._places()
            for name in module._added_since(metadata.get(prefix[:-1], {}).get("version"))
        }

    def _added_since(self, version: int | None) -> tuple[str, ...]:
        """What state dicts of an older version do not have; None is older than any."""
        return ()

    def _state_errors(self, missing: list[str], unexpected: list[str]) -> list[str]:
        """Tell what is wrong with the names; subclasses may add advice."""
        errors = []
        if unexpected:
            errors.append("Unexpected key(s) in state_dict: " + _quoted(unexpected))
        if missing:
            errors.append("Missing key(s) in state_dict: " + _quoted(missing))
        advice = {m._state_advice(prefix, unexpected) for prefix, m in self._places()} - {""}
        return errors + sorted(advice)

    def _state_advice(self, prefix: str, unexpected: list[str]) -> str:
        """What to do about unexpected names that this Module, at `prefix`, can explain."""
        return ""

    # --- modes and changes -------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Set training mode here and below, and return the Module."""
        if not isinstance(mode, bool):
            raise ValueError(f"mode must be a bool, got {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set evaluation mode here and below, and return the Module."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set whether the parameters require gradients, and return the Module."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the parameters' gradients, or set them to zero."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad = parameter.grad.zeros_like()

    def apply(self, fn: Callable[[Module], object]) -> Self:
        """Call `fn` on every Module below and on this one last, and return the Module."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def to(
        self, *target: Any, device: str | None = None, dtype: npt.DTypeLike | None = None
    ) -> Self:
        """Cast floating point parameters, their gradients and buffers, and return the Module.

        Parameters
        ----------
        *target : dtype, device or Tensor
            In any order; of a Tensor, its dtype is meant.
        device : {None, 'cpu'}, optional
            For PyTorch's sake.
        dtype : dtype, optional
            None leaves everything as it is.
        """
        new = target_dtype(*target, device=device, dtype=dtype)
        if new is not None:
            self._cast(new)
        return self

    def _cast(self, dtype: np.dtype[Any]) -> None:
        if dtype.kind in "biuc":
            raise TypeError(f"dtype must be a floating point type, got {dtype}")
        for tensor in [*self.parameters(), *self.buffers()]:
            if is_lazy(tensor):
                tensor.data = np.empty(0, dtype)
            elif tensor.dtype.kind not in "biu":
                grad, tensor.grad = tensor.grad, None
                tensor.data = tensor.data.astype(dtype)
                tensor.grad = None if grad is None else grad.to(dtype)

    def cpu(self) -> Self:
        """Return the Module, which is there already."""
        return self

    def half(self) -> Self:
        """Cast to float16, and return the Module."""
        return self.to(np.float16)

    def float(self) -> Self:
        """Cast to float32, and return the Module."""
        return self.to(np.float32)

    def double(self) -> Self:
        """Cast to float64, and return the Module."""
        return self.to(np.float64)

    # --- text ----------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """Return what stands in the parentheses of the repr."""
        return ""

    def __repr__(self) -> str:
        inside = [
            f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self._modules.items()
        ]
        own = self.extra_repr()
        if not inside:
            return f"{type(self).__name__}({own})"
        lines = [f"{type(self).__name__}(", *([own] if own else []), *inside]
        return "\n  ".join(lines) + "\n)"


# The tables of a Module: what an entry is called, and its class.
_KINDS: dict[str, tuple[str, type]] = {
    "_parameters": ("parameter", Parameter),
    "_buffers": ("buffer", Tensor),
    "_modules": ("submodule", Module),
}


def array_from(value: Any) -> npt.NDArray[Any]:
    """Return the values of whatever can be read as an array of numbers."""
    # PyTorch's tensors, and this package's, are no arrays while they require gradients.
    array = array_of(value.detach() if hasattr(value, "detach") else value)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"expected an array of numbers, got dtype {array.dtype}")
    return array


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names) + "."
