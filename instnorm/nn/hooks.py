"""Hooks of Modules: what runs before and after `forward`, and when gradients come through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instnorm.autograd import Function
from instnorm.tensor import Tensor

if TYPE_CHECKING:
    from instnorm.nn.module import Module


class Hooks:
    """The hooks of one Module, each kind by its handles' numbers."""

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}
        self.after: dict[int, Any] = {}
        self.backward: dict[int, Any] = {}

    def call(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute the module's output, with the hooks around it."""
        for hook in list(self.before.values()):
            args = _replaced(args, hook(module, args))
        watch = _Watch(module, list(self.backward.values())) if self.backward else None
        if watch is not None:
            args = watch.inputs(args)
        output = module.forward(*args, **kwargs)
        for hook in list(self.after.values()):
            changed = hook(module, args, output)
            output = output if changed is None else changed
        return output if watch is None else watch.outputs(output)


def _replaced(before: tuple[Any, ...], after: Any) -> tuple[Any, ...]:
    if after is None:
        return before
    return after if isinstance(after, tuple) else (after,)


class _Watch:
    """Backward hooks during one call: they need both ends of the module's graph.

    The gradients of the outputs are noted on their way in; once those of the inputs arrive,
    the hooks run.
    """

    def __init__(self, module: Module, hooks: list[Any]) -> None:
        self._module, self._hooks = module, hooks
        self._grad_outputs: tuple[Any, ...] = ()

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not any(isinstance(a, Tensor) and a.requires_grad for a in args):
            return args
        result: Any = _Gate.apply(self.run, *args)
        passed = iter(result)
        return tuple([next(passed) if isinstance(a, Tensor) else a for a in args])

    def outputs(self, output: Any) -> Any:
        if isinstance(output, Tensor):
            result: Any = _Gate.apply(self.note, output)
            return result[0]
        if isinstance(output, tuple) and all(isinstance(out, Tensor) for out in output):
            return _Gate.apply(self.note, *output)
        return output

    def note(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        self._grad_outputs = grads
        return grads

    def run(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in self._hooks:
            grads = _replaced(grads, hook(self._module, grads, self._grad_outputs))
        return grads


class _Gate(Function):
    """Tensors as they are; their gradients go through a function."""

    @staticmethod
    def forward(ctx: Any, through: Any, *args: Any) -> tuple[Tensor, ...]:
        """Pass the Tensors among the arguments."""
        ctx.through, ctx.places = through, [isinstance(a, Tensor) for a in args]
        return tuple([a.detach() for a in args if isinstance(a, Tensor)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """Send the gradients through the function; None stands where no Tensor was."""
        each = iter(grads)
        needed = ctx.needs_input_grad[1:]
        arrived = tuple([next(each) if is_tensor else None for is_tensor in ctx.places])
        shown = tuple([g if need else None for g, need in zip(arrived, needed, strict=True)])
        return None, *ctx.through(shown)
