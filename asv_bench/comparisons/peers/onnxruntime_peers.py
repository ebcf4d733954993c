"""ONNX Runtime: a model of one InstanceNormalization. It computes no gradients.

The operator takes (N, C, spatial...) in C order alone; a channels-last case has a Transpose
before and after it, as exported models do.
"""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from .peer import EPS, NotSupportedError, Peer

VERSION = onnxruntime.__version__


class Session(Peer):
    name, label = "onnxruntime", "ONNX Runtime"

    def __init__(self, threads):
        self._threads = threads

    def forward(self, case):
        if case.dtype != np.float32:
            raise NotSupportedError("its kernel for the CPU takes float32 alone")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        session = onnxruntime.InferenceSession(
            _model(case).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        x = case.x if case.layout == "contiguous" else np.moveaxis(case.x, 1, -1)
        return lambda: session.run(None, {"x": x})

    def training(self, case):
        raise NotSupportedError("it computes no gradients")

    def arrays(self, case, result):
        return result if case.layout == "contiguous" else [np.moveaxis(result[0], -1, 1)]


def _model(case):
    rank = len(case.shape)
    norm = ["InstanceNormalization", ["x", "weight", "bias"], ["y"]]
    nodes = [helper.make_node(*norm, epsilon=EPS)]
    shape = case.shape
    if case.layout != "contiguous":
        shape = (case.shape[0], *case.shape[2:], case.shape[1])
        nodes = [
            helper.make_node("Transpose", ["x"], ["a"], perm=[0, rank - 1, *range(1, rank - 1)]),
            helper.make_node(norm[0], ["a", *norm[1][1:]], ["b"], epsilon=EPS),
            helper.make_node("Transpose", ["b"], ["y"], perm=[0, *range(2, rank), 1]),
        ]
    graph = helper.make_graph(
        nodes,
        "instance_norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(case.weight, "weight"),
            numpy_helper.from_array(case.bias, "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def peers(threads):
    return [Session(threads)]
