"""One net in one library: what a process of its own is asked for."""

import itertools
import re
import time
from pathlib import Path

import numpy as np

from . import nets

BATCHES = 4  # that the steps go through in turn
LIBRARIES = ("PyTorch", "torch.compile", "instnorm")


class Job:
    """Runs in a worker's process; the methods are what can be asked for.

    The step is what a learner writes: forward, loss, zero_grad, backward, SGD with momentum.
    """

    def __init__(self, name, library, batch_size, dtype, threads, smooth=False):
        state = nets.weights(name, dtype)
        batches = nets.batches(name, batch_size, dtype, BATCHES)
        classes = nets.TOYS[name].classes
        if library == "instnorm":
            import instnorm as lib
        else:
            import torch as lib
        if threads:
            lib.set_num_threads(threads)
        if library != "instnorm":
            state = {key: lib.from_numpy(value) for key, value in state.items()}
            batches = [tuple(map(lib.from_numpy, batch)) for batch in batches]
        self.net = nets.TOYS[name].make(nets.smooth(lib) if smooth else lib)
        self.net.to(getattr(lib, dtype) if library != "instnorm" else np.dtype(dtype))
        self.net.load_state_dict(state)
        self.loss = lib.nn.MSELoss() if classes is None else lib.nn.CrossEntropyLoss()
        self.optimizer = lib.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9)
        self.forward = lib.compile(self.net) if library == "torch.compile" else self.net
        self.batches = itertools.cycle(batches)
        self.resting = _status("VmRSS")

    def step(self):
        inputs, target = next(self.batches)
        loss = self.loss(self.forward(inputs), target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def losses(self, steps):
        """The losses of some steps, and the MiB that they take beyond the net at rest."""
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        losses = [self.step() for _ in range(steps)]
        return losses, (_status("VmHWM") - self.resting) / 1024

    def milliseconds(self, steps, clock):
        """Of one step, by wall time or by the time of all the process's threads."""
        time.sleep(0.01)  # the previous worker's threads stop spinning
        self.step()
        now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
        start = now()
        for _ in range(steps):
            self.step()
        return (now() - start) / steps * 1e3


def _status(field):
    """A figure from the process's status, in KiB."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1])
