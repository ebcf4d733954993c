"""OpenVINO: a model of MVN, times weight, plus bias. It computes no gradients.

MVN takes (N, C, spatial...) alone; a channels-last case has a Transpose before and after it, as
exported models do.
"""

import numpy as np
import openvino
from openvino import opset13 as ops

from .peer import EPS, NotSupportedError, Peer

VERSION = openvino.__version__


class Model(Peer):
    name, label = "openvino", "OpenVINO"

    def __init__(self, threads):
        self._core, self._threads = openvino.Core(), threads

    def forward(self, case):
        if case.dtype != np.float32:
            raise NotSupportedError("on the CPU its model is measured in float32 alone")
        settings = {
            "INFERENCE_NUM_THREADS": self._threads,
            # Else it computes in bfloat16 where the processor can.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = self._core.compile_model(_model(case), "CPU", settings).create_infer_request()
        x = case.x if case.layout == "contiguous" else np.moveaxis(case.x, 1, -1)
        request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
        y = request.get_output_tensor()

        def forward():
            request.infer()
            return (y.data,)

        return forward

    def training(self, case):
        raise NotSupportedError("it computes no gradients")

    def arrays(self, case, result):
        (y,) = result
        return [y if case.layout == "contiguous" else np.moveaxis(y, -1, 1)]


def _model(case):
    rank, last = len(case.shape), case.layout != "contiguous"
    shape = (case.shape[0], *case.shape[2:], case.shape[1]) if last else case.shape
    x = y = ops.parameter(shape, np.float32)
    if last:
        y = ops.transpose(y, np.array([0, rank - 1, *range(1, rank - 1)]))
    y = ops.mvn(y, np.array(case.axes), True, EPS, "inside_sqrt")
    y = ops.multiply(y, ops.constant(case.per_channel(case.weight)[None]))
    y = ops.add(y, ops.constant(case.per_channel(case.bias)[None]))
    if last:
        y = ops.transpose(y, np.array([0, *range(2, rank), 1]))
    return openvino.Model([y], [x], "instance_norm")


def peers(threads):
    return [Model(threads)]
