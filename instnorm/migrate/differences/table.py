"""The table of differences: what PyTorch 2.13, MindSpore 2.10 and this package do.

The section PUBLISHED follows MindSpore's page "Differences with
torch.nn.InstanceNorm2d", row by row.
"""

from __future__ import annotations

from typing import NamedTuple

from instnorm.migrate.differences import checks as c
from instnorm.migrate.differences.checks import Check


class Cell(NamedTuple):
    """What one side does, and the check that it does; None where a CPU cannot tell."""

    text: str
    check: Check | None


class Row(NamedTuple):
    """One difference.

    Attributes
    ----------
    topic : str
    pytorch, mindspore : Cell
        What torch.nn.InstanceNorm2d and mindspore.nn.InstanceNorm2d do.
    instnorm : str
        What this package does.
    nn, nn_mindspore : Check, optional
        What the flavours do, where it is not what their frameworks do.
    """

    topic: str
    pytorch: Cell
    mindspore: Cell
    instnorm: str
    nn: Check | None = None
    nn_mindspore: Check | None = None

    @property
    def nn_check(self) -> Check | None:
        """The check of PyTorch's flavour."""
        return self.nn or self.pytorch.check

    @property
    def nn_mindspore_check(self) -> Check | None:
        """The check of MindSpore's flavour."""
        return self.nn_mindspore or self.mindspore.check


class Section(NamedTuple):
    """Rows under a heading."""

    title: str
    rows: tuple[Row, ...]


_FOLLOWS = "each flavour as its framework"

PUBLISHED = Section(
    "What MindSpore's page of differences lists",
    (
        Row(
            "input",
            Cell("`input`", c.input_is("input")),
            Cell("`x`", c.input_is("x")),
            "`input` in both flavours",
            nn_mindspore=c.input_is("input"),
        ),
        Row(
            "`num_features`",
            Cell(
                "not checked: 0, -1 and `True` are taken",
                c.all_of(*(c.takes(num_features=n) for n in (0, -1, True))),
            ),
            Cell(
                "an int of at least 1; else TypeError or ValueError",
                c.all_of(
                    *(c.refuses(ValueError, num_features=n) for n in (0, -1)),
                    *(c.refuses(TypeError, num_features=n) for n in (3.0, True, None)),
                ),
            ),
            "`nn`: an integer that is not negative; `nn.mindspore`: as MindSpore",
            nn=c.all_of(
                c.takes(num_features=0),
                c.refuses(ValueError, num_features=-1),
                *(c.refuses(TypeError, num_features=n) for n in (3.0, True, None)),
            ),
        ),
        Row(
            "`eps`",
            Cell(
                "1e-5; not checked, a negative one gives NaN",
                c.all_of(c.default("eps", 1e-5), c.negative_eps_gives_nan),
            ),
            Cell(
                "1e-5; a float in (0, 1], or NaN",
                c.all_of(
                    c.default("eps", 1e-5),
                    *(c.refuses(ValueError, eps=e) for e in (0.0, -1e-5, 1.5)),
                    c.refuses(TypeError, eps=1),
                    c.takes(eps=1.0),
                    c.takes(eps=float("nan")),
                ),
            ),
            "1e-5; `nn`: finite and at least 0; `nn.mindspore`: a float in (0, 1]",
            nn=c.all_of(
                c.default("eps", 1e-5),
                c.takes(eps=0),
                *(c.refuses(ValueError, eps=e) for e in (-1e-5, float("nan"), float("inf"))),
            ),
            nn_mindspore=c.all_of(
                c.default("eps", 1e-5),
                *(c.refuses(ValueError, eps=e) for e in (0.0, -1e-5, 1.5, float("nan"))),
                c.refuses(TypeError, eps=1),
                c.takes(eps=1.0),
            ),
        ),
        Row(
            "`momentum`",
            Cell(
                "0.1; not checked, None keeps the old statistics",
                c.all_of(c.default("momentum", 0.1), c.takes(momentum=None), c.takes(momentum=2.0)),
            ),
            Cell(
                "0.1; a float in [0, 1]",
                c.all_of(
                    c.default("momentum", 0.1),
                    *(c.refuses(TypeError, momentum=m) for m in (None, 1)),
                    *(c.refuses(ValueError, momentum=m) for m in (-0.1, 1.1)),
                    c.takes(momentum=0.0),
                    c.takes(momentum=1.0),
                ),
            ),
            _FOLLOWS,
        ),
        Row(
            "`affine`",
            Cell("False", c.default("affine", False)),
            Cell("True", c.default("affine", True)),
            _FOLLOWS,
        ),
        Row(
            "`track_running_stats`",
            Cell(
                "False; True keeps running statistics and normalizes by them in evaluation",
                c.all_of(
                    c.default("track_running_stats", False),
                    c.uses_tracked_statistics_in_evaluation,
                ),
            ),
            Cell("no such parameter", c.lacks("track_running_stats")),
            _FOLLOWS,
        ),
        Row(
            "`gamma_init`",
            Cell(
                "no such parameter: `weight` starts at 1",
                c.all_of(c.lacks("gamma_init"), c.starts_at(weight=1)),
            ),
            Cell(
                "'ones'; a name, a number, a Tensor or an Initializer",
                c.all_of(
                    c.default("gamma_init", "ones"),
                    c.starts_at(gamma=1),
                    c.first_values("zeros", 0),
                    c.first_values(2.0, 2),
                    c.refuses(ValueError, gamma_init="twos"),
                    c.refuses(TypeError, gamma_init=[1.0]),
                ),
            ),
            _FOLLOWS,
        ),
        Row(
            "`beta_init`",
            Cell(
                "no such parameter: `bias` starts at 0",
                c.all_of(c.lacks("beta_init"), c.starts_at(bias=0)),
            ),
            Cell(
                "'zeros'; as `gamma_init`",
                c.all_of(
                    c.default("beta_init", "zeros"),
                    c.starts_at(beta=0),
                    c.refuses(ValueError, beta_init="twos"),
                    c.refuses(TypeError, beta_init=[1.0]),
                ),
            ),
            _FOLLOWS,
        ),
    ),
)

UNPUBLISHED = Section(
    "What the page leaves out",
    (
        Row(
            "`bias`",
            Cell(
                "True; False leaves the bias out (affine only)",
                c.all_of(c.default("bias", True), c.state_names("weight", affine=True, bias=False)),
            ),
            Cell("no such parameter", c.lacks("bias")),
            _FOLLOWS,
        ),
        Row(
            "`dtype`, `device`",
            Cell(
                "None, None: PyTorch's defaults",
                c.all_of(c.default("dtype", None), c.default("device", None)),
            ),
            Cell(
                "`dtype` float32; no `device`",
                c.all_of(
                    lambda f: "float32" in str(f.parameters()["dtype"].default).lower(),
                    c.lacks("device"),
                ),
            ),
            f"{_FOLLOWS}; `device` is None or 'cpu'",
            nn=c.all_of(
                c.default("dtype", None),
                c.default("device", None),
                c.takes(device="cpu"),
                c.refuses(ValueError, device="cuda"),
            ),
        ),
        Row(
            "`affine=False`",
            Cell("no `weight`, no `bias`", c.state_names(affine=False)),
            Cell(
                "`gamma` and `beta` are there and applied, and are not learned",
                c.not_learned,
            ),
            _FOLLOWS,
            nn_mindspore=c.all_of(c.not_learned, c.applied_anyway),
        ),
        Row(
            "axes of the input",
            Cell(
                "1d: 2 or 3, 2d: 3 or 4, 3d: 4 or 5; else ValueError",
                c.all_of(c.one_rank_each, c.takes_unbatched),
            ),
            Cell(
                "1d: 3, 2d: 4, 3d: 5; else ValueError",
                c.all_of(c.one_rank_each, c.refuses_unbatched),
            ),
            _FOLLOWS,
        ),
        Row(
            "one sample without batch axis",
            Cell("taken", c.takes_unbatched),
            Cell("ValueError", c.refuses_unbatched),
            _FOLLOWS,
        ),
        Row(
            "wrong number of channels",
            Cell(
                "ValueError where affine, RuntimeError where tracking, else UserWarning",
                c.wrong_channels_warn(tracking=RuntimeError),
            ),
            Cell("ValueError", c.wrong_channels_raise),
            "`nn`: ValueError where affine or tracking, else UserWarning; "
            "`nn.mindspore`: ValueError",
            nn=c.wrong_channels_warn(tracking=ValueError),
        ),
        Row(
            "one spatial element",
            Cell(
                "ValueError, but for evaluation by running statistics",
                c.all_of(c.one_element_raises, c.one_element_is_evaluated),
            ),
            Cell("not checked", c.one_element_gets_to_the_kernel),
            "ValueError, but for evaluation by running statistics",
            nn_mindspore=c.one_element_raises,
        ),
        Row(
            "evaluation",
            Cell(
                "by the input's statistics, or the running ones where tracked",
                c.all_of(
                    c.uses_own_statistics_in_evaluation, c.uses_tracked_statistics_in_evaluation
                ),
            ),
            Cell(
                "by the input's statistics",
                c.documents(
                    "uses instance statistics computed from input data in both training and "
                    "evaluation modes"
                ),
            ),
            _FOLLOWS,
            nn_mindspore=c.uses_own_statistics_in_evaluation,
        ),
        Row(
            "mode of a new layer",
            Cell("training", c.starts_in_training(True)),
            Cell("evaluation, which is the same", c.starts_in_training(False)),
            "training in both flavours",
            nn_mindspore=c.starts_in_training(True),
        ),
        Row(
            "state of a layer by itself",
            Cell(
                "`weight`, `bias` where affine; `running_mean`, `running_var`, "
                "`num_batches_tracked` where tracked",
                c.all_of(
                    c.state_names(),
                    c.state_names("weight", "bias", affine=True),
                    c.state_names(
                        "running_mean",
                        "running_var",
                        "num_batches_tracked",
                        track_running_stats=True,
                    ),
                ),
            ),
            Cell(
                "`gamma`, `beta`, `mean`, `variance`, always",
                c.all_of(
                    *(
                        c.state_names("gamma", "beta", "mean", "variance", affine=affine)
                        for affine in (True, False)
                    )
                ),
            ),
            _FOLLOWS,
        ),
        Row(
            "state of a layer in a network",
            Cell("the same names", c.nested_state_names("weight", "bias", affine=True)),
            Cell(
                "`gamma`, `beta`, `moving_mean`, `moving_variance`",
                c.nested_state_names("gamma", "beta", "moving_mean", "moving_variance"),
            ),
            _FOLLOWS,
        ),
        Row(
            "`num_batches_tracked`",
            Cell("is there, and stays 0", c.counts_no_batches),
            Cell("none", lambda f: "num_batches_tracked" not in f.state(f.layer())),
            _FOLLOWS,
        ),
        Row(
            "momentum as documented",
            Cell(
                "share of the new statistic: (1 - m) old + m new",
                c.documents(
                    r"\hat{x}_\text{new} = (1 - \text{momentum}) \times \hat{x} + "
                    r"\text{momentum} \times x_t"
                ),
            ),
            Cell(
                "share of the old statistic: (1 - m) new + m old",
                c.documents(
                    r"\hat{x}_\text{new} = (1 - \text{momentum}) \times x_t + "
                    r"\text{momentum} \times \hat{x}"
                ),
            ),
            "each flavour as its framework; `instnorm.convert` makes 1 - m of m",
            nn=c.conversion_turns_momentum,
            nn_mindspore=c.conversion_turns_momentum,
        ),
        Row(
            "momentum as observed",
            Cell("as documented", c.momentum_is_the_share_of_the_new),
            Cell(
                "none is used: `moving_mean` and `moving_variance` stay 0 and 1 (by its source: "
                "the GPU kernel hands m to cuDNN as the share of the new, for a copy that is "
                "thrown away)",
                None,
            ),
            _FOLLOWS,
            nn_mindspore=c.leaves_moving_statistics,
        ),
        Row(
            "dtypes of the input",
            Cell(
                "float16, bfloat16, float32, float64; integers: NotImplementedError",
                c.all_of(
                    c.takes_dtypes("float16", "bfloat16", "float32", "float64"),
                    c.refuses_dtypes(NotImplementedError, "int32", "bool", "complex64"),
                ),
            ),
            Cell(
                "float16, float32; else TypeError",
                c.all_of(
                    c.documents("Data type: float16 or float32"),
                    c.refuses_dtypes(TypeError, "float64", "int32", "bool"),
                ),
            ),
            "float16, bfloat16, float32, float64 in both flavours; else TypeError",
            nn=c.all_of(
                c.takes_dtypes("float16", "bfloat16", "float32", "float64"),
                c.refuses_dtypes(TypeError, "int32", "bool", "complex64"),
            ),
            nn_mindspore=c.all_of(
                c.takes_dtypes("float16", "bfloat16", "float32", "float64"),
                c.refuses_dtypes(TypeError, "int32", "bool", "complex64"),
            ),
        ),
        Row(
            "parameters of another dtype",
            Cell(
                "float32 ones with half-precision input; else RuntimeError",
                c.takes_half_with_float32,
            ),
            Cell(
                "float32 ones with float16 input; a layer of another dtype can be made, and "
                "called is a TypeError",
                c.takes_float32_parameters_alone,
            ),
            "any, in both flavours",
            nn=c.takes_parameters_of_any_dtype,
            nn_mindspore=c.takes_parameters_of_any_dtype,
        ),
        Row(
            "memory layout",
            Cell("any input; the output is contiguous", c.contiguous_output),
            Cell("(N, C, ...) alone", c.documents(r"Tensor of shape :math:`(N, C, H, W)`")),
            "the output has the input's: channels-last in, channels-last out",
            nn=c.keeps_layout,
            nn_mindspore=c.keeps_layout,
        ),
        Row(
            "gradients where the batch is 1 and grad_output channels-last",
            Cell("wrong, without a warning", c.wrong_gradients_at_batch_one),
            Cell("no such layout", None),
            "right in every mix of layouts",
            nn=c.right_gradients,
            nn_mindspore=c.right_gradients,
        ),
        Row(
            "platforms",
            Cell("CPU, GPU", c.takes_dtypes("float32")),
            Cell(
                "GPU alone: on a CPU a call is a RuntimeError",
                c.all_of(c.documents("Supported Platforms: ``GPU`` "), c.has_no_kernel),
            ),
            "CPU, both flavours",
            nn_mindspore=c.takes_dtypes("float32"),
        ),
        Row(
            "announced change",
            Cell("none", None),
            Cell(
                "after 2.9: `affine` will be False by default, `gamma_init` and `beta_init` will "
                "go (in 2.10 all is as it was)",
                c.all_of(
                    c.documents(
                        "change after version 2.9.0: `gamma_init` and `beta_init` will be removed, "
                        "and `affine` will default to ``False``"
                    ),
                    c.default("affine", True),
                ),
            ),
            "`nn.mindspore` is MindSpore 2.10; say `affine=` to mean the same before and after",
            nn_mindspore=c.default("affine", True),
        ),
        Row(
            "a state that lacks entries",
            Cell("RuntimeError", c.missing_entries_raise),
            Cell(
                "keep their initial values in silence, with `strict_load=True` too: only what "
                "the loading function returns names them",
                c.missing_entries_are_kept,
            ),
            "RuntimeError in both flavours; `instnorm convert` names them, and exits with 3",
            nn_mindspore=c.missing_entries_raise,
        ),
        Row(
            "functional form",
            Cell("`torch.nn.functional.instance_norm`", c.has_function("instance_norm")),
            Cell("none", c.has_function("instance_norm", False)),
            "`instnorm.functional.instance_norm`",
            nn_mindspore=c.has_function("instance_norm"),
        ),
        Row(
            "`.view` of the output of a channels-last input",
            Cell("works: the output is contiguous", c.view_works),
            Cell("no such layout", c.documents(r"Tensor of shape :math:`(N, C, H, W)`")),
            "the output is channels-last, in `bridge.torch` too, where `.view` may then raise: "
            "`.reshape` does not",
            nn=c.keeps_layout,
            nn_mindspore=c.keeps_layout,
        ),
        Row(
            "convolutions around it",
            Cell(
                "`padding` 0, `bias` True",
                c.all_of(
                    c.default_of("Conv2d", "padding", 0), c.default_of("Conv2d", "bias", True)
                ),
            ),
            Cell(
                '`pad_mode` "same", `has_bias` False',
                c.all_of(
                    c.default_of("Conv2d", "pad_mode", "same"),
                    c.default_of("Conv2d", "has_bias", False),
                ),
            ),
            "`nn` as PyTorch, `nn.mindspore` has none",
            nn_mindspore=c.has_no("Conv2d"),
        ),
        Row(
            "a LayerNorm beside it",
            Cell("`eps` 1e-5", c.default_of("LayerNorm", "eps", 1e-5)),
            Cell("`epsilon` 1e-7", c.default_of("LayerNorm", "epsilon", 1e-7)),
            "what `nn` has of other layers is as PyTorch's",
            nn=c.if_there("LayerNorm", c.default_of("LayerNorm", "eps", 1e-5)),
            nn_mindspore=c.has_no("LayerNorm"),
        ),
        Row(
            "lazy layers",
            Cell("`LazyInstanceNorm2d`", lambda f: hasattr(f.namespace, "LazyInstanceNorm2d")),
            Cell("none", c.has_no("LazyInstanceNorm2d")),
            _FOLLOWS,
        ),
    ),
)

DEPARTURES = Section(
    "Where instnorm departs from PyTorch besides",
    (
        Row(
            "empty batch",
            Cell(
                "statistics become NaN; gradients of an affine layer: IndexError",
                c.empty_batch_spoils,
            ),
            Cell("not observed", None),
            "gradients are zero, statistics stay",
            nn=c.empty_batch_works,
        ),
        Row(
            "constant channel",
            Cell("float32: up to 0.3 instead of 0", c.constants_give(lambda y: y > 0.01)),
            Cell("not observed", None),
            "exactly 0, or the bias",
            nn=c.constants_give(lambda y: y == 0),
            nn_mindspore=c.constants_give(lambda y: y == 0),
        ),
        Row(
            "float32 at a mean of 100,000 standard deviations",
            Cell("off by more than 0.001", c.error_at_a_large_mean(lambda error: error > 1e-3)),
            Cell("not observed", None),
            "right to 2 units in the last place",
            nn=c.error_at_a_large_mean(lambda error: error < 1e-6),
            nn_mindspore=c.error_at_a_large_mean(lambda error: error < 1e-6),
        ),
    ),
)

SECTIONS = (PUBLISHED, UNPUBLISHED, DEPARTURES)
