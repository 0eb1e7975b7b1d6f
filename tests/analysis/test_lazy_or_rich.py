"""Lazy or rich: at, just below and just above each limit, and of models whose answer is known.

Oracles: numbers that are chosen, a linear model and a rotated kernel in closed form, and a linear layer that was tracked.
"""

import dataclasses

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.analysis import load
from kerneltrack.analysis.report.verdicts import EDGE, LAZY_OR_RICH, RATE
from kerneltrack.callbacks import NTKTracker
from tests.analysis.altered import ABOVE, BELOW, just, stored

MOVED = ("anchored_linearization_error", "kernel_distance_from_initial", "relative_kernel_change", "jacobian_stability")


@pytest.fixture(scope="module")
def run(archives):
    return load(archives[0]).only


def moved(run, **values):
    """The run with these numbers of :data:`MOVED` and no others of them."""
    return stored(run, without=MOVED, **values).summary()[LAZY_OR_RICH]


@pytest.mark.parametrize(
    ("error", "distance", "change", "answer"),
    [
        (0.0, 0.0, 0.0, "lazy"),
        (just(0.01, BELOW), just(0.005, BELOW), just(0.1, BELOW), "lazy"),
        (0.01, 0.0, 0.0, "undecided"),
        (0.0, 0.005, 0.0, "undecided"),
        (0.0, 0.0, 0.1, "undecided"),  # a kernel that only grew is not the initial one
        (0.1, 0.05, 0.3, "rich"),
        (just(0.1, ABOVE), just(0.05, ABOVE), 9.0, "rich"),
        (just(0.1, BELOW), 0.05, 0.3, "undecided"),
        (0.1, just(0.05, BELOW), 0.3, "undecided"),
        (0.5, 0.001, 3.0, "undecided"),  # outputs far from linear, a kernel that only grew: no feature is shown
    ],
)
def test_lazy_or_rich_at_its_limits(run, error, distance, change, answer):
    names = dict(zip(MOVED, (error, distance, change), strict=False))
    found = moved(run, **names)
    assert found.answer == answer
    assert found.numbers == names


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        ({"kernel_distance_from_initial": 0.05}, "rich"),
        ({"kernel_distance_from_initial": 0.0}, "lazy"),
        ({"relative_kernel_change": 5.0}, "undecided"),  # scale alone
        ({"anchored_linearization_error": 0.3}, "rich"),
        ({"jacobian_stability": 0.0}, "lazy"),
        ({"jacobian_stability": just(0.5, BELOW)}, "lazy"),
        ({"jacobian_stability": 0.5}, "undecided"),
        ({"jacobian_stability": np.inf}, "undecided"),
        # of a lazy run C' may be rounding, which is NaN: the other numbers stand
        ({"jacobian_stability": [1.0] * 12 + [np.nan], "anchored_linearization_error": [0.5] * 12 + [0.0]}, "lazy"),
        # wide networks pass ½ while their kernel stands still, and C' shows no features
        (
            {"jacobian_stability": 3.0, "anchored_linearization_error": 0.001, "kernel_distance_from_initial": 0.0},
            "lazy",
        ),
        ({"jacobian_stability": 0.1, "anchored_linearization_error": 0.5, "kernel_distance_from_initial": 0.2}, "rich"),
        ({}, "undecided"),
        ({"anchored_linearization_error": np.nan}, "undecided"),
    ],
)
def test_lazy_or_rich_from_what_is_stored(run, names, answer):
    found = moved(run, **names)
    assert found.answer == answer
    if np.isfinite(np.ravel(names.get("jacobian_stability", np.nan))).all():
        assert "Zhang" in found.source or "C' = " in found.because


@pytest.mark.parametrize(
    ("last", "answer"), [(0.9, "lazy"), (just(0.9, ABOVE), "undecided"), (just(0.9, BELOW), "lazy"), (1.5, "undecided")]
)
def test_a_network_that_has_learned_nothing_is_not_called_lazy(run, last, answer):
    """A tenth of the loss is the limit, and a loss that rose is no learning."""
    loss = np.full(len(run), 1.0)
    loss[-1] = last
    still = {"anchored_linearization_error": 0.0, "kernel_distance_from_initial": 0.0}
    assert moved(run, probe_loss=loss, **still).answer == answer


def test_without_a_loss_the_residual_says_what_was_learned(run, truth):
    still = {"anchored_linearization_error": 0.0, "kernel_distance_from_initial": 0.0}
    assert moved(stored(run, without=["probe_loss"]), **still).answer == "lazy"
    frozen = run.dataset["residual"].copy(data=np.broadcast_to(run.at("residual", 0), run.dataset["residual"].shape))
    stuck = dataclasses.replace(run, dataset=run.dataset.assign(residual=frozen).drop_vars("probe_loss"))
    assert moved(stuck, **still).answer == "undecided"
    assert "not stored" in moved(stored(run, without=["probe_loss", "residual"]), **still).because


def test_only_the_start_was_measured(run):
    """Distances from the start are 0 there, of every network."""
    found = run.window(0, 0).summary()[LAZY_OR_RICH]
    assert (found.answer, found.numbers) == ("undecided", {})


@pytest.mark.parametrize(("features", "answer"), [("fixed", "lazy"), ("turning", "rich")])
def test_a_linear_model_is_lazy_and_a_rotated_kernel_rich(run, features, answer):
    """f = Jθ with J fixed: C', the linearisation error and the motion of JJᵀ are 0. RΘRᵀ of a random R: from NumPy's cosine."""
    generator = np.random.default_rng(0)
    first = generator.standard_normal((12, 40))
    turn = np.linalg.qr(generator.standard_normal((12, 12)))[0]
    last = first if features == "fixed" else turn @ first
    start, way = generator.standard_normal(40), generator.standard_normal(40)
    travelled = last @ (start + way) - first @ start
    a, b = first @ first.T, last @ last.T
    found = moved(
        run,
        anchored_linearization_error=np.sum((travelled - first @ way) ** 2) / np.sum(travelled**2),
        kernel_distance_from_initial=1 - np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)),
        jacobian_stability=3 * np.linalg.norm(last - first, 2) / np.sqrt(np.linalg.eigvalsh(a)[0]),
    )
    assert found.answer == answer
    assert (found.numbers["jacobian_stability"] == 0) == (features == "fixed")


class Regression(pl.LightningModule):
    def __init__(self, network, rate):
        super().__init__()
        self.network, self.rate = network, rate

    def forward(self, inputs):
        return self.network(inputs)

    def training_step(self, batch, _):
        return nn.functional.mse_loss(self(batch[0]), batch[1]) / 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def test_a_linear_layer_that_was_tracked_is_lazy_and_below_the_edge(tmp_path):
    """f = Wx: the kernel of any W is XXᵀ; and η is half of 2/λ_1(XXᵀ/N), so that ρ = ½, but for float32."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(32, 4, generator=generator)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]])
    rate = 32 / float(torch.linalg.eigvalsh(inputs @ inputs.T)[-1])
    tracker = NTKTracker(
        tmp_path / "linear.h5", probe=kt.Probe(inputs, targets), schedule=kt.schedule.At((0, 4, 8)), loss="half_mse",
        observables=["default", "jacobian_stability"], log=False,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, targets), batch_size=32)
    pl.Trainer(
        max_steps=8, callbacks=[tracker], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path,
    ).fit(Regression(nn.Linear(4, 1, bias=False), rate), loader)  # fmt: skip
    found = load(tmp_path / "linear.h5").only.summary()
    assert found[LAZY_OR_RICH].answer == "lazy", found[LAZY_OR_RICH]
    assert found[EDGE].answer == "below"
    assert found[EDGE].numbers["stability_ratio"] == pytest.approx(0.5, rel=1e-4)
    assert found[RATE].answer == "no change"
