"""Types of the module that asks the processor; `_cpu.pyx` documents it."""

__test__: dict[str, str]  # Cython's, of docstrings with doctests

def cpu_supports(level: str) -> bool: ...
