"""The command `instnorm`, as its script and `python -m instnorm` call it.

Importing the package takes a while, and Ctrl-C in that time should end in a line as well; so
this module is outside, and has next to nothing to import.
"""

import _thread
import sys
import time


def main() -> int:
    """Import and run the command line."""
    sys.unraisablehook = _interrupt_again
    try:
        from instnorm.cli import main

        return main()
    except KeyboardInterrupt:
        print("instnorm: interrupted", file=sys.stderr)
        return 130  # what a shell reports for a program that SIGINT ended


def _interrupt_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Let Ctrl-C that came while a finalizer or a callback ran, which drops it, come again."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        # From another thread, after a while: here, this function would be interrupted, in vain.
        _thread.start_new_thread(_interrupt_soon, ())
    else:
        sys.__unraisablehook__(unraisable)


def _interrupt_soon() -> None:
    time.sleep(0.02)
    _thread.interrupt_main()
