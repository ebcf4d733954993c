"""Peak memory of the process: forward adds one output to the inputs, and little else."""

import instnorm

from .common import LAYOUTS, Inputs, forward_and_backward, layer_for

SHAPE = (16, 256, 2048)  # 32 MiB


class PeakMemory:
    params = (list(LAYOUTS),)
    param_names = ("layout",)

    def setup(self, layout):
        self.inputs = Inputs(SHAPE, layout=layout)

    def peakmem_inputs_alone(self, layout):
        pass

    def peakmem_forward(self, layout):
        return instnorm.instance_norm(self.inputs.x, self.inputs.weight, self.inputs.bias)

    def peakmem_forward_and_backward(self, layout):
        return forward_and_backward(self.inputs)

    def peakmem_training_step(self, layout):
        x = instnorm.Tensor(self.inputs.x, requires_grad=True)
        y = layer_for(self.inputs)(x)
        y.backward(instnorm.Tensor(self.inputs.grad_output))
