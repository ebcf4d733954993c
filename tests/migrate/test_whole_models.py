"""Whole models with every layer of the table, between PyTorch and the real MindSpore."""

import dataclasses
import re
import subprocess
import sys
import types

import numpy as np
import pytest
from helpers import ROOT
from helpers.beside_torch import torch
from helpers.tensors import normal

from instnorm import checkpoints, cli, convert
from instnorm.migrate import kind_checks, kinds
from instnorm.migrate.advice import advise
from instnorm.migrate.kinds import KINDS
from instnorm.migrate.modules import arrays_of, load
from instnorm.nn import InstanceNorm2d

mindspore = pytest.importorskip("mindspore")

from helpers import whole_models  # noqa: E402 - it imports both frameworks

from instnorm.bridge import mindspore as bridge  # noqa: E402

pytestmark = [pytest.mark.mindspore, pytest.mark.torch]

SEEDS = range(8)
SAMPLES = [(kind, sample) for kind in KINDS for sample in kind.samples]

every_sample = pytest.mark.parametrize(
    ("kind", "sample"), SAMPLES, ids=[sample.layer for _, sample in SAMPLES]
)


def parameters(state):
    return {
        name: mindspore.Parameter(mindspore.Tensor(np.asarray(value)), name=name)
        for name, value in state.items()
    }


def output_of_pytorch(model, x):
    with torch.no_grad():
        return model.eval()(torch.from_numpy(x)).numpy()


def output_of_mindspore(model, x):
    model.set_train(False)
    return bridge.convert(model)(mindspore.Tensor(x)).asnumpy()


def assert_agree(found, expected):
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


def zeroed(model):
    """The model, with nothing of its values left."""
    for value in model.state_dict().values():
        value.zero_()
    return model


# --- the rows of the table ------------------------------------------------------------------


@every_sample
def test_a_layer_computes_the_same_in_mindspore_and_back(kind, sample):
    assert kind_checks.carries(kind, sample, bridge.convert, tolerance=1e-5)


@pytest.mark.parametrize("name", ["Conv1d", "BatchNorm3d", "PReLU", "GroupNorm"])
def test_the_checks_of_the_table_can_fail(name, monkeypatch):
    """A row that gives each entry the name that it has in PyTorch."""
    kind = kinds.KIND_OF[name]
    entries = tuple(kinds.Entry(e.pytorch, e.pytorch, e.fill) for e in kind.entries)
    wrong = dataclasses.replace(kind, entries=entries, extra_axis=False, inside="")
    monkeypatch.setitem(kinds.KIND_OF, name, wrong)
    try:
        outcome = kind_checks.carries(wrong, kind.samples[0], bridge.convert, tolerance=1e-5)
    except RuntimeError as error:  # MindSpore refuses a shape
        outcome = "shape" not in str(error)
    assert not outcome


@every_sample
def test_mint_has_pytorchs_names_and_shapes(kind, sample):
    layer = torch.nn.Sequential(kind_checks.sampled(sample))
    mint = mindspore.mint.nn
    assert hasattr(mint, kind.pytorch) is kind.in_mint
    if not kind.in_mint or "bias=False" in sample.layer or "affine=False" in sample.layer:
        return
    cell = mindspore.nn.SequentialCell(eval(f"mint.{sample.layer}", {"mint": mint}))
    converted = convert.state_dict(layer.state_dict(), to="mindspore.mint", model=layer)
    loaded = mindspore.load_param_into_net(cell, parameters(converted.state), strict_load=True)
    assert loaded == ([], [])
    assert converted.changes == []


# --- whole models -------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=SEEDS)
def pair(request):
    """A random model in both frameworks, input, and the output."""
    tree = whole_models.Tree(request.param)
    ours = whole_models.pytorchs(tree)
    x = whole_models.numbers()
    return tree, ours, x, output_of_pytorch(ours, x)


@pytest.mark.parametrize("told_by", ["pytorch", "mindspore", "both"])
def test_a_model_computes_the_same_in_mindspore_and_back(pair, told_by):
    tree, ours, x, expected = pair
    theirs = whole_models.mindspores(tree, ours)
    models = {"pytorch": [ours], "mindspore": [theirs], "both": [ours, theirs]}[told_by]
    converted = convert.state_dict(ours.state_dict(), to="mindspore", model=models)
    unfound, unused = mindspore.load_param_into_net(
        theirs, parameters(converted.state), strict_load=True
    )
    if told_by == "mindspore":
        # A LayerNorm that is not affine in PyTorch may be one of another name: it is named.
        assert unfound == converted.unfound
    else:
        assert unfound == []
        assert converted.unfound == []
    if told_by != "pytorch":
        assert unused == []
    assert_agree(output_of_mindspore(theirs, x), expected)

    models = models if told_by != "mindspore" else [ours, theirs]
    back = convert.state_dict(arrays_of(theirs), to="pytorch", model=models)
    assert back.unfound == back.unused == []
    again = zeroed(whole_models.pytorchs(tree))
    again.load_state_dict({name: torch.as_tensor(value) for name, value in back.state.items()})
    assert_agree(output_of_pytorch(again, x), expected)


def test_from_module_to_module(pair):
    tree, ours, x, expected = pair
    theirs = whole_models.mindspores(tree, ours)
    convert.module(ours, theirs)
    assert_agree(output_of_mindspore(theirs, x), expected)
    again = zeroed(whole_models.pytorchs(tree))
    convert.module(theirs, again)
    assert_agree(output_of_pytorch(again, x), expected)


def test_verify_finds_that_all_layers_agree(pair):
    tree, ours, x, _ = pair
    theirs = whole_models.mindspores(tree, ours)
    convert.module(ours, theirs)
    report = convert.verify(ours, bridge.convert(theirs), [x])
    assert report.first is None
    assert report.reasons == report.settings == []
    names = {comparison.name for comparison in report.compared}
    assert {"", "embedding", "body"} <= names
    assert len(names) > len(tree.layers)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz", ".ckpt"])
def test_files_of_every_kind(suffix, tmp_path, monkeypatch, capsys):
    tree = whole_models.Tree(3)
    ours = whole_models.pytorchs(tree)
    theirs = whole_models.mindspores(tree, ours)
    nets = types.ModuleType("nets_of_this_test")
    nets.ours, nets.theirs = ours, theirs
    monkeypatch.setitem(sys.modules, "nets_of_this_test", nets)
    x = whole_models.numbers()
    expected = output_of_pytorch(ours, x)
    source, there, back = (tmp_path / f"{name}{suffix}" for name in ("in", "there", "back"))
    source.write_bytes(checkpoints.dumps(source, arrays_of(ours)))

    models = ["--model", "nets_of_this_test:ours", "--model", "nets_of_this_test:theirs"]
    assert run(source, there, "--to", "mindspore", *models) == 0
    if suffix in (".ckpt", ".safetensors"):
        state = mindspore.load_checkpoint(str(there), format=suffix[1:])
    else:
        state = parameters(checkpoints.read(there).arrays)
    assert mindspore.load_param_into_net(theirs, state, strict_load=True) == ([], [])
    assert_agree(output_of_mindspore(theirs, x), expected)

    assert run(there, back, "--to", "pytorch", *models, "--verify", "--input", "2,4,4:int64") == 0
    assert re.search("verified: .* agree to 1e-05", capsys.readouterr().out)
    again = zeroed(whole_models.pytorchs(tree))
    state = {name: torch.tensor(v) for name, v in checkpoints.read(back).arrays.items()}
    again.load_state_dict(state)
    assert_agree(output_of_pytorch(again, x), expected)


def run(*arguments):
    return cli.main(["convert", *map(str, arguments)])


# --- what names and shapes tell alone ------------------------------------------------------------


def test_the_readmes_command_needs_no_flags_there_and_back(tmp_path):
    ours = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.InstanceNorm2d(4, affine=True), torch.nn.Conv2d(4, 2, 1)
    )
    whole_models.randomize(ours)
    x = normal(1, 3, 8, 8).astype(np.float32)
    expected = output_of_pytorch(ours, x)
    source, there, back = tmp_path / "model.pth", tmp_path / "model.ckpt", tmp_path / "back.pth"
    torch.save(ours.state_dict(), source)
    assert run(source, there, "--to", "mindspore", "--running-stats", "drop") == 0
    m = mindspore.nn
    theirs = m.SequentialCell(*(advice.call.made(m) for advice in advise(ours)))
    loaded = mindspore.load_param_into_net(theirs, mindspore.load_checkpoint(str(there)))
    assert loaded == ([], [])
    assert_agree(output_of_mindspore(theirs, x), expected)

    saved = tmp_path / "saved.ckpt"
    mindspore.save_checkpoint(theirs, str(saved))
    assert run(saved, back, "--to", "pytorch") == 0
    zeroed(ours).load_state_dict(torch.load(back))
    assert_agree(output_of_pytorch(ours, x), expected)


def test_what_is_shared_in_one_model_alone_is_written_under_all_its_names():
    norm = torch.nn.GroupNorm(2, 4)
    ours = torch.nn.ModuleDict({"a": norm, "b": torch.nn.Sequential(norm)})
    whole_models.randomize(ours)

    class Shared(mindspore.nn.Cell):
        def __init__(self):
            super().__init__()
            self.a = mindspore.nn.GroupNorm(2, 4)
            self.b = mindspore.nn.SequentialCell(self.a)

    theirs = Shared()
    (name, *_) = theirs.parameters_dict()
    converted = convert.state_dict(ours.state_dict(), to="mindspore", model=[ours, theirs])
    assert sorted(converted.state) == sorted(theirs.parameters_dict())
    assert name in ("a.gamma", "b.0.gamma")
    back = convert.state_dict(converted.state, to="pytorch", model=theirs).state
    ours.load_state_dict({key: torch.as_tensor(value) for key, value in back.items()})


def test_tied_parameters_come_back_under_both_names():
    class Tied(mindspore.nn.Cell):
        def __init__(self):
            super().__init__()
            self.table, self.out = mindspore.nn.Embedding(5, 3), mindspore.nn.Dense(3, 5)
            self.out.weight = self.table.embedding_table

    back = convert.state_dict(arrays_of(Tied()), to="pytorch", model=Tied()).state
    assert set(back) == {"table.weight", "out.weight", "out.bias"}
    np.testing.assert_array_equal(back["table.weight"], back["out.weight"])


def test_norms_that_are_not_affine_have_no_entries_in_pytorch():
    m = mindspore.nn
    theirs = m.SequentialCell(
        m.InstanceNorm2d(4, affine=False), m.BatchNorm2d(4, affine=False), m.GroupNorm(1, 4)
    )
    back = convert.state_dict(arrays_of(theirs), to="pytorch", model=theirs).state
    assert sorted(back) == [
        "1.num_batches_tracked",
        "1.running_mean",
        "1.running_var",
        "2.bias",
        "2.weight",
    ]


@pytest.mark.parametrize(
    ("pytorchs", "mindspores"),
    [
        ("LSTM(3, 4, bidirectional=True)", "LSTM(3, 4, bidirectional=True)"),
        ("GRU(3, 4)", "GRU(3, 4)"),
        ("RNN(3, 4)", "RNN(3, 4)"),
        ("LSTMCell(3, 4)", "LSTMCell(3, 4)"),
        ("MultiheadAttention(4, 2)", "MultiheadAttention(4, 2)"),
        ("Bilinear(2, 3, 4)", "BiDense(2, 3, 4)"),
    ],
)
def test_layers_that_are_not_in_the_table_have_the_same_names(pytorchs, mindspores):
    ours = torch.nn.Sequential(eval(f"nn.{pytorchs}", {"nn": torch.nn}), torch.nn.GroupNorm(1, 2))
    m = mindspore.nn
    theirs = m.SequentialCell(eval(f"nn.{mindspores}", {"nn": m}), m.GroupNorm(1, 2))
    converted = convert.state_dict(ours.state_dict(), "mindspore", model=ours)
    loaded = mindspore.load_param_into_net(theirs, parameters(converted.state), strict_load=True)
    assert loaded == ([], [])


def test_an_instance_norm_that_is_affine_in_mindspore_alone():
    m = mindspore.nn
    theirs = m.SequentialCell(m.Conv2d(1, 2, 3), m.InstanceNorm2d(2))
    state = {"0.weight": np.ones((2, 1, 3, 3), np.float32)}
    converted = convert.state_dict(state, "mindspore", model=theirs)
    assert converted.unfound == []
    assert mindspore.load_param_into_net(theirs, parameters(converted.state)) == ([], [])
    # It may have another name in PyTorch.
    converted = convert.state_dict(state | {"norm.bias": np.ones(2)}, "mindspore", model=theirs)
    assert converted.unused == ["norm.bias"]
    assert sorted(converted.unfound) == ["1.beta", "1.gamma"]


def test_a_state_that_is_not_whole_is_refused():
    ours = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.GroupNorm(1, 2))
    for key in ours.state_dict():
        state = {name: value for name, value in ours.state_dict().items() if name != key}
        with pytest.raises(ValueError, match=rf"has no entries of the model's {key}$"):
            convert.state_dict(state, "mindspore", model=ours)
    wrapped = {f"module.{name}": value for name, value in ours.state_dict().items()}
    with pytest.raises(ValueError, match=r"all its names begin with 'module\.'"):
        convert.state_dict(wrapped, "mindspore", model=ours)


def test_a_net_of_mint_and_nn_mixed():
    mint, m = mindspore.mint.nn, mindspore.nn
    theirs = m.SequentialCell(mint.Conv1d(4, 4, 3), m.InstanceNorm1d(4), mint.BatchNorm1d(4))
    nn = torch.nn
    ours = nn.Sequential(nn.Conv1d(4, 4, 3), nn.InstanceNorm1d(4, affine=True), nn.BatchNorm1d(4))
    for to in ("mindspore", "mindspore.mint"):
        converted = convert.state_dict(ours.state_dict(), to=to, model=theirs)
        loaded = mindspore.load_param_into_net(theirs, parameters(converted.state))
        assert loaded == ([], [])
        assert converted.unfound == converted.unused == []


def test_entries_that_mindspore_will_not_find_are_named(tmp_path, capsys, monkeypatch):
    nets = types.ModuleType("nets_of_this_test")
    m = mindspore.nn
    nets.theirs = m.SequentialCell(m.Conv2d(1, 2, 3, has_bias=True), m.GroupNorm(1, 2))
    monkeypatch.setitem(sys.modules, "nets_of_this_test", nets)
    source, out = tmp_path / "in.npz", tmp_path / "out.ckpt"
    np.savez(source, **{"0.weight": np.ones((2, 1, 3, 3), np.float32), "2.bias": np.ones(2)})
    status = run(source, out, "--to", "mindspore", "--model", "nets_of_this_test:theirs")
    assert status == 3
    printed = capsys.readouterr().out
    _, found = printed.split("not found:")
    for name in ("0.bias", "1.gamma", "1.beta", "2.bias"):
        assert f"  {name}\n" in found
    state = mindspore.load_checkpoint(str(out))
    unfound, unused = mindspore.load_param_into_net(nets.theirs, state, strict_load=True)
    assert (sorted(unfound), unused) == (["0.bias", "1.beta", "1.gamma"], ["2.bias"])


def test_a_shape_that_is_not_the_models_is_refused():
    theirs = mindspore.nn.SequentialCell(mindspore.nn.Conv2d(1, 2, 3))
    with pytest.raises(ValueError, match=r"0\.weight has shape \(2, 1, 5, 5\), and the model's"):
        convert.state_dict({"0.weight": np.ones((2, 1, 5, 5))}, "mindspore", model=theirs)


def test_nothing_is_written_to_a_module_that_does_not_fit():
    ours = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.GroupNorm(1, 2))
    m = mindspore.nn
    theirs = m.SequentialCell(m.Conv2d(1, 2, 3), m.GroupNorm(1, 2))
    before = arrays_of(theirs)
    with pytest.raises(ValueError, match=r"would not find none, and has no place for 0\.bias"):
        convert.module(ours, theirs)
    for name, value in arrays_of(theirs).items():
        np.testing.assert_array_equal(value, before[name])
    with pytest.raises(ValueError, match="both pytorch's"):
        convert.module(ours, InstanceNorm2d(3))


# --- faults that verify finds ---------------------------------------------------------------------


def net(norm=None, conv=None, act=None):
    m = mindspore.nn
    return m.SequentialCell(
        conv or m.Conv2d(3, 4, 3, pad_mode="pad", padding=1, has_bias=True),
        norm or m.BatchNorm2d(4),
        act or m.LeakyReLU(0.01),
        m.Conv2d(4, 2, 1, has_bias=True),
    )


FAULTS = {
    "eps": (lambda m: {"norm": m.BatchNorm2d(4, eps=0.1)}, "1", "eps is 0.1, expected 1e-05"),
    "pad_mode": (
        lambda m: {"conv": m.Conv2d(3, 4, 3, pad_mode="valid", has_bias=True)},
        "0",
        "pad_mode is 'valid', expected 'pad'",
    ),
    "a default": (lambda m: {"act": m.LeakyReLU()}, "2", "alpha is 0.2, expected 0.01"),
    "another layer": (lambda m: {"act": m.ReLU()}, "2", "nn.ReLU, expected nn.LeakyReLU"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_verify_names_the_first_layer_that_differs_and_why(fault):
    make, name, reason = FAULTS[fault]
    nn = torch.nn
    ours = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU(0.01), nn.Conv2d(4, 2, 1)
    )
    whole_models.randomize(ours)
    theirs = net(**make(mindspore.nn))
    convert.module(ours, theirs)
    report = convert.verify(ours, theirs, [normal(1, 3, 8, 8).astype(np.float32)])
    assert report.first.name == name
    assert any(reason in text for text in report.reasons), report.reasons
    assert ours.training


def test_verify_tells_of_momentum_though_outputs_agree():
    ours = torch.nn.Sequential(torch.nn.BatchNorm2d(3, momentum=0.25))
    theirs = mindspore.nn.SequentialCell(mindspore.nn.BatchNorm2d(3, momentum=0.25))
    convert.module(ours, theirs)
    report = convert.verify(ours, theirs, [normal(1, 3, 8, 8).astype(np.float32)])
    assert report.first is None
    (setting,) = report.settings
    assert setting.startswith("0: momentum is 0.25, expected 0.75; momentum: the share of the old")


def test_verify_tells_of_what_is_computed_between_layers():
    class Padded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Conv2d(1, 2, 1), torch.nn.Conv2d(2, 1, 1)

        def forward(self, x):
            return self.b(torch.relu(self.a(x)))

    class Plain(mindspore.nn.Cell):
        def __init__(self):
            super().__init__()
            self.a = mindspore.nn.Conv2d(1, 2, 1, has_bias=True)
            self.b = mindspore.nn.Conv2d(2, 1, 1, has_bias=True)

        def construct(self, x):
            return self.b(self.a(x))

    ours, theirs = Padded(), Plain()
    convert.module(ours, theirs)
    report = convert.verify(ours, theirs, [normal(1, 1, 8, 8).astype(np.float32)])
    assert report.first.name == "b"
    assert "its input differs already" in report.reasons[0]


def test_verify_tells_of_parameters_that_differ():
    ours = torch.nn.Sequential(torch.nn.GroupNorm(1, 3))
    theirs = mindspore.nn.SequentialCell(mindspore.nn.GroupNorm(1, 3))
    load(theirs, {"0.gamma": np.full(3, 2.0)})
    report = convert.verify(ours, theirs, [normal(1, 3, 8, 8).astype(np.float32)])
    assert report.reasons[0] == "its parameters differ: weight"


def test_verify_fails_with_a_status_of_its_own(tmp_path, monkeypatch, capsys):
    nets = types.ModuleType("nets_of_this_test")
    nets.ours = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    nets.theirs = mindspore.nn.SequentialCell(mindspore.nn.BatchNorm2d(3, eps=0.5))
    monkeypatch.setitem(sys.modules, "nets_of_this_test", nets)
    source, out = tmp_path / "in.pth", tmp_path / "out.ckpt"
    torch.save(nets.ours.state_dict(), source)
    models = ["--model", "nets_of_this_test:ours", "--model", "nets_of_this_test:theirs"]
    assert run(source, out, "--to", "mindspore", *models, "--verify") == 4
    printed = capsys.readouterr().out
    assert re.search(r"first to differ: 0 \(BatchNorm2d\), by", printed)
    assert "  eps is 0.5, expected 1e-05\n" in printed


def test_models_that_do_not_run_are_told_in_one_line(tmp_path, monkeypatch, capsys):
    nets = types.ModuleType("nets_of_this_test")
    nets.ours = torch.nn.Sequential(torch.nn.Linear(3, 2))
    nets.theirs = mindspore.nn.SequentialCell(mindspore.nn.Dense(3, 2))
    monkeypatch.setitem(sys.modules, "nets_of_this_test", nets)
    source, out = tmp_path / "in.pth", tmp_path / "out.ckpt"
    torch.save(nets.ours.state_dict(), source)
    models = ["--model", "nets_of_this_test:ours", "--model", "nets_of_this_test:theirs"]
    arguments = [source, out, "--to", "mindspore", *models, "--verify"]
    assert run(*arguments, "--input", "2,4") == 1
    error = capsys.readouterr().err
    assert re.search(r"argument --verify: the models failed on input of float32 \(2, 4\)", error)
    assert run(*arguments) == 0


def test_verify_takes_one_of_each_framework():
    with pytest.raises(TypeError, match="expected a module of mindspore, got Conv2d"):
        convert.verify(torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1), [])


# --- the guide --------------------------------------------------------------------------------


def test_the_guides_example_carries_a_generator_both_ways():
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "cyclegan_mindspore.py"],
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
    )
    missing, there, back = done.stdout.splitlines()
    assert missing == "MindSpore did not find 0 entries, and had no place for 0"
    # In float32 and after 19 convolutions, both frameworks are off by some 1e-5.
    assert float(there.split()[-1]) < 3e-5
    assert back == "there and back, the output differs by 0.0e+00"
