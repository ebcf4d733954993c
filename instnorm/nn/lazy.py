"""LazyModuleMixin: a Module that learns the shapes of its parameters from its first input."""

from __future__ import annotations

from typing import Any, ClassVar

from instnorm.nn.module import Module
from instnorm.nn.parameter import is_lazy


class LazyModuleMixin(Module):
    """Base of Modules with uninitialized parameters or buffers.

    The first call gives these their shapes by `initialize_parameters`, and turns the
    Module into one of the class `cls_to_become`, in place. Loading a state dict gives
    them shapes and values too; the class changes with the next call.

    References
    ----------
    torch.nn.modules.lazy.LazyModuleMixin of PyTorch 2.13
    """

    cls_to_become: ClassVar[type[Module] | None] = None

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Give shapes and values to what has none, from the input; defined by subclasses."""
        raise NotImplementedError(f"{type(self).__name__} must define initialize_parameters()")

    def has_uninitialized_params(self) -> bool:
        """Return whether a parameter or buffer of this Module has no shape yet."""
        return any(map(is_lazy, [*self._parameters.values(), *self._buffers.values()]))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Initialize what is uninitialized, and compute the output by `forward`."""
        self.initialize_parameters(*args, **kwargs)
        if self.has_uninitialized_params():
            raise RuntimeError(
                f"{type(self).__name__}.initialize_parameters() left parameters or buffers "
                "uninitialized"
            )
        if self.cls_to_become is not None:
            self.__class__ = self.cls_to_become  # type: ignore[assignment]
        return Module.__call__(self, *args, **kwargs)
