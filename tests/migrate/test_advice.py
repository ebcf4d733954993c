"""`instnorm advise`: its constructor calls, made in the real MindSpore, compute the same."""

import numpy as np
import pytest
from helpers.beside_torch import torch
from helpers.tensors import normal

from instnorm import convert
from instnorm.migrate.advice import ADVISORS, advise

pytestmark = pytest.mark.torch

# A layer of PyTorch's, the shape of its input, and what is said of it.
CASES = [
    ("Conv2d(4, 6, 3, padding=(1, 2), stride=2)", (1, 4, 8, 8), "pad_mode"),
    ('Conv1d(4, 6, 3, padding="same")', (1, 4, 8), "has_bias"),
    ("Conv3d(4, 6, 3, padding=(1, 2, 0))", (1, 4, 5, 5, 5), "pad_mode"),
    ("ConvTranspose2d(4, 6, 3, 2, (1, 0), (1, 0))", (1, 4, 5, 5), "output_padding"),
    ("ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2)", (1, 4, 5, 5), "output_padding"),
    ("ConvTranspose3d(4, 6, 3, 2, 1, 1)", (1, 4, 3, 3, 3), "pad_mode"),
    ("BatchNorm2d(4, momentum=0.3, eps=1e-3)", (2, 4, 5, 5), "momentum"),
    ("BatchNorm2d(4, track_running_stats=False)", (2, 4, 5, 5), "track_running_stats=False"),
    ("LayerNorm((4, 5))", (2, 4, 5), "begin_norm_axis"),
    ("LeakyReLU()", (2, 3), "alpha"),
    ("GELU()", (2, 3), "approximate"),
    ('GELU("tanh")', (2, 3), "approximate"),
    ("Softmax(1)", (2, 3), None),
    ("LogSoftmax(1)", (2, 3), None),
    ("Dropout(0.3)", (2, 3), "random"),
    ("Dropout2d(0.3)", (2, 3, 4, 4), "random"),
    ("MaxPool1d(2)", (2, 3, 8), "stride"),
    ("MaxPool2d(3, 2, 1)", (2, 3, 8, 8), "stride"),
    ("MaxPool3d(2)", (2, 3, 8, 8, 8), "stride"),
    ("AvgPool1d(2)", (2, 3, 8), "stride"),
    ("AvgPool2d(3, 2, 1, count_include_pad=False)", (2, 3, 8, 8), "stride"),
    ("AvgPool3d(2)", (2, 3, 8, 8, 8), "stride"),
    ("AdaptiveAvgPool1d(2)", (2, 3, 8), None),
    ("AdaptiveAvgPool2d((2, 3))", (2, 3, 8, 8), None),
    ("AdaptiveAvgPool3d(1)", (2, 3, 4, 4, 4), None),
    ("AdaptiveMaxPool2d(2)", (2, 3, 8, 8), None),
    ("ReflectionPad1d(1)", (2, 3, 8), None),
    ("ReflectionPad2d((1, 2, 3, 0))", (2, 3, 8, 8), None),
    ("ReplicationPad2d(1)", (2, 3, 8, 8), None),
    ("ConstantPad2d(1, 2.5)", (2, 3, 8, 8), None),
    ("ZeroPad2d(1)", (2, 3, 8, 8), None),
    ("Upsample(scale_factor=2)", (2, 3, 8, 8), "scale_factor"),
    ('Upsample(scale_factor=2, mode="bilinear")', (2, 3, 8, 8), "scale_factor"),
    ("Upsample(size=(4, 5))", (2, 3, 8, 8), None),
    ("Flatten(0, 1)", (2, 3, 8), None),
    ("Identity()", (2, 3), None),
    ("ReLU()", (2, 3), None),
    ("ReLU6()", (2, 3), None),
    ("ELU()", (2, 3), None),
    ("CELU(0.5)", (2, 3), None),
    ("SELU()", (2, 3), None),
    ("SiLU()", (2, 3), None),
    ("Mish()", (2, 3), None),
    ("Sigmoid()", (2, 3), None),
    ("LogSigmoid()", (2, 3), None),
    ("Tanh()", (2, 3), None),
    ("Softsign()", (2, 3), None),
    ("Hardswish()", (2, 3), None),
    ("Hardsigmoid()", (2, 3), None),
    ("Hardtanh(-2, 0.5)", (2, 3), None),
    ("PixelShuffle(2)", (2, 4, 3, 3), None),
]

every_case = pytest.mark.parametrize(
    ("text", "shape", "said"), CASES, ids=[text for text, *_ in CASES]
)


def made(text):
    torch.manual_seed(0)
    return eval(f"nn.{text}", {"nn": torch.nn})


@every_case
@pytest.mark.mindspore
def test_the_call_computes_the_same(text, shape, said):
    mindspore = pytest.importorskip("mindspore")
    from instnorm.bridge import mindspore as bridge

    ours = torch.nn.Sequential(made(text)).eval()
    theirs = mindspore.nn.SequentialCell(advise(ours)[0].call.made(mindspore.nn))
    theirs.set_train(False)
    if ours.state_dict():
        convert.module(ours, theirs)
    x = normal(*shape).astype(np.float32)
    with torch.no_grad():
        expected = ours(torch.from_numpy(x)).numpy()
    found = bridge.convert(theirs)(mindspore.Tensor(x)).asnumpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@every_case
def test_what_is_said(text, shape, said):
    (advice,) = advise(torch.nn.Sequential(made(text)))
    assert advice.prefix == "0"
    topics = [text.partition(":")[0] for text in advice.differs]
    assert (said in topics) if said else topics == []


@pytest.mark.mindspore
def test_the_text_of_a_call_makes_the_same_layer():
    mindspore = pytest.importorskip("mindspore")
    names = {"nn": mindspore.nn, "mindspore": mindspore}
    for text, *_ in CASES:
        (advice,) = advise(torch.nn.Sequential(made(text)))
        assert type(eval(str(advice.call), names)) is type(advice.call.made(mindspore.nn))
    (advice,) = advise(torch.nn.Sequential(torch.nn.Embedding(5, 3)))
    table = eval(str(advice.call), names).embedding_table.asnumpy()
    assert 0.3 < table.std() < 3


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('Conv2d(1, 1, 3, padding=1, padding_mode="reflect")', ['mode="reflect"', "(1, 1, 1, 1)"]),
        ("InstanceNorm2d(3, affine=True, track_running_stats=True)", ["track_running_stats:"]),
        ("InstanceNorm2d(3, affine=True, bias=False)", ["bias=False:"]),
        ("InstanceNorm2d(3, eps=0)", ["eps 0:"]),
        ("BatchNorm2d(3, momentum=None)", ["momentum=None"]),
        ("ConvTranspose1d(1, 1, 3, 2, 1, 1)", ["no constructor call"]),
        ("ConvTranspose2d(1, 1, 3, 2, 0, 1)", ["no constructor call"]),
        ("ELU(0.5)", ["1.0 alone"]),
        ("Embedding(3, 2, max_norm=1)", ["max_norm:"]),
        ("LayerNorm(3, elementwise_affine=False)", ["elementwise_affine=False:"]),
        ("Softmax()", ["dim=None"]),
        ("LSTM(2, 3)", ["not in this table", "weight_ih_l0"]),
    ],
)
def test_what_no_call_gives_is_said(text, parts):
    (advice,) = advise(torch.nn.Sequential(made(text)))
    said = " ".join(advice.differs)
    for part in parts:
        assert part in said


def test_constants_that_parameters_start_at():
    nn = torch.nn
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.InstanceNorm2d(3, affine=True))
    nn.init.zeros_(model[0].bias)
    nn.init.zeros_(model[1].weight)
    nn.init.constant_(model[2].bias, 0.5)
    calls = [str(advice.call) for advice in advise(model)]
    assert calls[0].endswith('has_bias=True, bias_init="zeros")')
    assert calls[1] == 'nn.BatchNorm2d(3, gamma_init="zeros")'
    assert calls[2].endswith("affine=True, beta_init=0.5)")


@pytest.mark.mindspore
def test_constants_are_what_mindspore_starts_at():
    mindspore = pytest.importorskip("mindspore")
    norm = torch.nn.InstanceNorm2d(3, affine=True)
    torch.nn.init.constant_(norm.weight, 2)
    cell = advise(torch.nn.Sequential(norm))[0].call.made(mindspore.nn)
    assert cell.gamma.asnumpy().tolist() == [2, 2, 2]
    assert cell.beta.asnumpy().tolist() == [0, 0, 0]


def test_weight_norm_is_said():
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 2))
    (advice,) = advise(torch.nn.Sequential(layer))
    assert str(advice.call) == "nn.Dense(2, 2)"
    assert "weight_norm" in advice.differs[-1]


def test_every_advisor_has_a_case():
    tested = {text.partition("(")[0] for text, *_ in CASES}
    from instnorm.migrate.kinds import KINDS

    tested |= {kind.pytorch for kind in KINDS}
    alike = {"Dropout1d", "Dropout3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool3d", "SyncBatchNorm"}
    alike |= {"ReflectionPad3d", "ReplicationPad1d", "ReplicationPad3d"}
    alike |= {"ConstantPad1d", "ConstantPad3d"}
    assert ADVISORS.keys() - tested == alike
