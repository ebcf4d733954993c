"""A process of its own for what has to be settled before an import: it does one thing at a time."""

import contextlib
import multiprocessing
import os
import sys
import traceback
from pathlib import Path

# asv finds this package by an importer of its own, which a new process does not have; `spawn`
# hands on the search path.
_FOLDER = str(Path(__file__).parents[1])


class Worker:
    """The caller's end of a process that makes an object and calls its methods on demand.

    Parameters
    ----------
    make, *args
        What the process calls, once, to make its object; a class or function of a module.
    environment : dict from str to str
        Variables of the environment that the process starts with, beside the caller's.
    """

    def __init__(self, make, *args, environment=None):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, args), daemon=True)
        if _FOLDER not in sys.path:
            sys.path.append(_FOLDER)
        before = dict(os.environ)
        os.environ.update(environment or {})
        try:
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        theirs.close()  # else the end of the process would go unnoticed

    def ready(self):
        """Wait until the object is made; to be called once."""
        return self._answer()

    def ask(self, method, *args):
        self._connection.send((method, *args))
        return self._answer()

    def close(self):
        self._connection.send(None)
        self._process.join()

    def _answer(self):
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Remote:
    """A function that a worker's object times: `interleaved` calls `mean_seconds`."""

    def __init__(self, worker, method, *args):
        self._worker, self._request = worker, (method, *args)

    def mean_seconds(self, calls):
        return self._worker.ask(*self._request, calls)


def _serve(connection, make, args):
    def answer(function, *arguments):
        try:
            connection.send(function(*arguments))
        except Exception:
            connection.send(RuntimeError(f"{make.__name__} of {args}:\n{traceback.format_exc()}"))

    served = None

    def begin():
        nonlocal served
        served = make(*args)

    answer(begin)
    # The caller says None when it is done, or is simply gone.
    with contextlib.suppress(EOFError):
        for name, *arguments in iter(connection.recv, None):
            answer(getattr(served, name), *arguments)
