"""Which norms of a model may take the memory of their inputs.

Those whose input is the result of a convolution that nobody else needs, and into whose output
nothing is written, by an in-place activation that was not fused, for one: the output is what is
kept for the backward pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

from torch import fx, nn

from instnorm.bridge.torch.fusion import (
    DROPOUTS,
    KEY,
    Absorbed,
    Calls,
    Fusion,
    has_code,
    has_hooks,
    is_plain_sequential,
    sequence,
    writes_into_first,
)

PRODUCERS = (  # whose backward pass needs no output of theirs
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    nn.Linear,
)


def overwrite_inputs(norms: Iterable[nn.Module]) -> None:
    """Let norms take the memory of their inputs, if these can be found from their outputs."""
    for norm in norms:
        fusion = norm.__dict__.get(KEY, Fusion())
        invertible = fusion.activation is None or (
            fusion.activation == "leaky_relu" and not fusion.prelu and fusion.negative_slope > 0
        )
        if invertible:
            norm.__dict__[KEY] = fusion._replace(inplace=True)


# --- what a norm reads -------------------------------------------------------------------------


def norms_after_convolutions(
    model: nn.Module, is_norm: Callable[[nn.Module], bool], calls: Calls
) -> Iterator[nn.Module]:
    """The norms whose input is a convolution's output, and goes nowhere else: before fusion."""
    for module in model.modules():
        if is_plain_sequential(module):
            for before, norm in itertools.pairwise(sequence(module, calls)):
                if is_norm(norm) and _is_producer(before) and not calls.is_shared(norm):
                    yield norm
            continue
        trace = calls.traces.get(module)
        for node in trace.nodes if trace is not None else ():
            if node.op == "call_module" and _comes_from_producer(module, node):
                norm = module.get_submodule(str(node.target))
                if is_norm(norm):
                    yield norm


def _comes_from_producer(module: nn.Module, call: fx.Node) -> bool:
    source = call.args[0] if call.args else None
    return (
        isinstance(source, fx.Node)
        and source.op == "call_module"
        and len(source.users) == 1
        and _is_producer(module.get_submodule(str(source.target)))
    )


def _is_producer(module: nn.Module) -> bool:
    """Whether a module's result is a convolution's, which nobody else sees."""
    while is_plain_sequential(module) and len(module._modules) and not has_hooks(module):
        module = list(module._modules.values())[-1]
    return isinstance(module, PRODUCERS) and not has_hooks(module)


# --- what is written into what a norm returns --------------------------------------------------


class Overwriting:
    """Into which norms' results a model writes as it is fused; what cannot be traced is unknown."""

    def __init__(self, model: nn.Module, is_norm: Callable[[nn.Module], bool]) -> None:
        self._is_norm = is_norm
        self._calls = Calls(model)
        self._traces = self._calls.traces
        modules = set(model.modules()) - set(self._inlined_in(model))
        self.norms = {norm for module in modules for norm in self._overwritten_in(module)}

    def _inlined_in(self, model: nn.Module) -> Iterator[nn.Module]:
        """The modules that do not run, as the code of one around them has theirs in it."""
        for module in filter(has_code, model.modules()):
            reached, found = [module], {module}
            while reached:
                new = set(self._calls.called_by(reached.pop())) - found
                reached += new
                found |= new
            yield from set(module.modules()) - found

    def _overwritten_in(self, module: nn.Module) -> Iterator[nn.Module]:
        if is_plain_sequential(module):
            for before, after in itertools.pairwise(_working(module)):
                if self._writes_into_input(after):
                    yield from self._norms_of_result(before)
            return
        trace = self._traces.get(module)
        for node in trace.nodes if trace is not None else ():
            if node.op == "call_module" and self._is_overwritten(module, node):
                yield from self._norms_of_result(module.get_submodule(str(node.target)))

    def _norms_of_result(self, module: nn.Module) -> Iterator[nn.Module]:
        """The norms whose result a module's is."""
        trace = self._traces.get(module)
        if self._is_norm(module):
            yield module
        elif is_plain_sequential(module):
            for last in _working(module)[-1:]:
                yield from self._norms_of_result(last)
        elif trace is not None:
            for node in next(n for n in trace.nodes if n.op == "output").all_input_nodes:
                while node.op == "call_module" and node.all_input_nodes:
                    called = module.get_submodule(str(node.target))
                    if not _hands_on(called):
                        yield from self._norms_of_result(called)
                        break
                    node = node.all_input_nodes[0]

    def _writes_into_input(self, module: nn.Module) -> bool:
        trace = self._traces.get(module)
        if is_plain_sequential(module):
            return any(map(self._writes_into_input, _working(module)[:1]))
        if trace is not None:
            inputs = (node for node in trace.nodes if node.op == "placeholder")
            return any(self._is_overwritten(module, node) for node in inputs)
        return getattr(module, "inplace", False) is True

    def _is_overwritten(self, module: nn.Module, node: fx.Node) -> bool:
        for user in node.users:
            if user.op != "call_module":
                if user.args and user.args[0] is node and writes_into_first(user):
                    return True
                continue
            called = module.get_submodule(str(user.target))
            if (
                self._is_overwritten(module, user)
                if _hands_on(called)
                else (self._writes_into_input(called))
            ):
                return True
        return False


def _hands_on(module: nn.Module) -> bool:
    """Whether a module may return what it is given."""
    dropout = isinstance(module, DROPOUTS) and not module.inplace
    return dropout or isinstance(module, (nn.Identity, Absorbed))


def _working(module: nn.Module) -> list[nn.Module]:
    return [part for part in sequence(module) if not _hands_on(part)]
