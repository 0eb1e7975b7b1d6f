"""What may be compared across probes of different size.

Oracles: one data set, a trained network, probes of N and 2N (a free number agrees within what the choice of the points does,
and the same test tells what is refused); permuted labels (what stands above its null is zero on average at every size).
"""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from torch import nn

from kerneltrack import empirical_ntk
from kerneltrack.analysis import load
from kerneltrack.analysis.comparison.comparison import compare
from kerneltrack.analysis.derived.quantities import FREE, NULLED, across_sizes, check_across_sizes, quantity
from kerneltrack.errors import AnalysisError
from kerneltrack.observables import Observable, State, catalogue, compute, registry, select
from kerneltrack.spectrum import eigensystem

DRAWS, SIZES = 8, (40, 80)


@functools.cache
def trained():
    """A classifier of three classes at the start and after 150 updates, and points that it has not seen."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1500, 10, generator=generator, dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[(x @ torch.randn(10, 3, generator=generator, dtype=torch.float64)).argmax(1)]
    torch.manual_seed(0)
    start, net = (nn.Sequential(nn.Linear(10, 48), nn.Tanh(), nn.Linear(48, 3)).double() for _ in range(2))
    net.load_state_dict(start.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
    for batch in torch.randint(500, (150, 64), generator=generator):
        optimizer.zero_grad()
        ((net(x[batch]) - y[batch]) ** 2).sum(1).mean().div(2).backward()
        optimizer.step()
    return start, net, x[500:], y[500:]


def state_of(net, x, y, **more):
    with torch.no_grad():
        outputs = net(x).numpy()
    kernel = empirical_ntk(net, x, output="trace").detach().numpy()
    return State(
        eigensystem=eigensystem(kernel),
        kernel=kernel,
        reduction="trace",
        outputs=outputs,
        targets=y.numpy(),
        residual=outputs - y.numpy(),
        probe_loss=float(((outputs - y.numpy()) ** 2).sum(1).mean() / 2),
        settings={"loss": "half_mse", "dtype": "float64", "step": more.pop("step"), "in_training": "no"},
        **more,
    )


@functools.cache
def drawn(size):
    """Every scalar on several probes of so many points: name → (draws,)."""
    start, net, x, y = trained()
    chosen = tuple(entry for entry in catalogue().values() if not entry.dims)
    found = []
    for draw in range(DRAWS):
        points = np.random.default_rng((size, draw)).choice(len(x), size, replace=False)
        first = state_of(start, x[points], y[points], step=0)
        now = state_of(net, x[points], y[points], step=150, initial=first, previous=first)
        found.append(compute(chosen, now))
    return {entry.name: np.array([values[entry.name] for values in found], dtype=float) for entry in chosen}


def difference(name):
    """Between the means at N and 2N, in standard deviations of one probe's number."""
    few, many = (drawn(size)[name] for size in SIZES)
    return abs(many.mean() - few.mean()) / np.hypot(few.std(ddof=1), many.std(ddof=1))


def test_free_numbers_agree_within_the_uncertainty_of_their_probe():
    """Two numbers of one mean are rarely two standard deviations of their difference apart; the means of eight, never."""
    tried = [name for name in FREE if np.isfinite(drawn(SIZES[0]).get(name, np.nan)).all()]
    assert len(tried) >= 11
    assert {name: difference(name) for name in tried if difference(name) >= 2} == {}


@pytest.mark.parametrize(
    "name", ["trace", "frobenius", "condition_number", "effective_rank", "effective_dimension",
             "target_rayleigh", "kernel_radius_from_initial", "kernel_target_alignment_centred_null", "cka_with_initial_null"],
)  # fmt: skip
def test_what_is_refused_does_not_agree(name):
    """Negative control: the same test tells them."""
    assert difference(name) > 2
    assert across_sizes(name) == ""


REFUSED = [
    "numerical_rank", "condition_number", "effective_rank", "participation_ratio", "stable_rank", "effective_dimension",
    "target_modes_90", "leave_one_out_error", "kernel_alignment_risk", "trace_share_5", "stability_ratio",
    "gauss_newton_sharpness", "spectrum_exponent", "target_complexity", "jacobian_stability",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_depends_on_n_is_refused(name):
    assert across_sizes(name) == ""


def test_every_name_of_the_classes_is_one_of_the_catalogue():
    """Except names to come or gone, which a class may know before the catalogue does; nothing is in two classes."""
    assert not FREE & NULLED.keys()
    assert len((FREE | NULLED.keys()) & catalogue().keys()) >= len(FREE | NULLED.keys()) - 3
    assert {null for null in NULLED.values() if null != "k/M"} <= catalogue().keys()


@pytest.mark.parametrize("size", SIZES)
def test_above_its_null_an_alignment_with_permuted_labels_is_zero(size):
    """Law, at every size: the mean over draws, within four of its standard errors."""
    _, net, x, y = trained()
    points = np.random.default_rng(size).choice(len(x), size, replace=False)
    state, found = state_of(net, x[points], y[points], step=150), []
    names = ["kernel_target_alignment", "kernel_target_alignment_centred"]
    for draw in range(60):
        order = np.random.default_rng(draw).permutation(size)
        values = compute(
            select([*names, *(f"{n}_null" for n in names)]), dataclasses.replace(state, targets=state.targets[order])
        )
        found.append([values[n] - values[f"{n}_null"] for n in names])
    means, errors = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(means) < 4 * errors).all()


EXTRA = {
    "kernel_target_alignment_centred": 0.5,
    "kernel_target_alignment_centred_null": 0.125,
    "cka_with_initial_unbiased": 0.75,
}


@pytest.fixture
def two_sizes(synthetic, truth, tmp_path):
    """The same run on all points and on the first half of them."""
    runs = []
    for count in (synthetic.N, synthetic.N // 2):
        record = synthetic.record(
            truth,
            fingerprint=f"sha256:{count:064d}",
            identity={"dataset": "digits", "indices": list(range(count))},
            inputs=False,
        )
        record = dataclasses.replace(record, count=count, targets=record.targets[:count])
        rows = []
        for row in synthetic.snapshots(truth, drop={"kernel"}):
            values = {**row.probes["train"], **{name: np.array(value) for name, value in EXTRA.items()}}
            cut = {k: v[:count] if np.shape(v)[:1] == (synthetic.N,) else v for k, v in values.items()}
            rows.append(dataclasses.replace(row, probes={"train": cut}))
        runs.append(synthetic.write(tmp_path / f"{count}.h5", rows, record))
    return load(runs)


def test_a_null_is_subtracted_snapshot_by_snapshot(two_sizes):
    """Stored numbers less stored nulls, by hand; energies of outputs less k/M."""
    found = compare(two_sizes, quantities=["kernel_target_alignment_centred_above_null", "cka_with_initial_unbiased"])
    np.testing.assert_array_equal(found.values["kernel_target_alignment_centred_above_null"], 0.375)
    np.testing.assert_array_equal(found.values["cka_with_initial_unbiased"], 0.75)
    for run in two_sizes:
        grid = run.values("energy_k").tolist()
        for name in ("target_energy", "output_energy"):
            column = grid.index(5)
            null = run.values("target_energy_null")[:, column] if name == "target_energy" else 5 / run.dimension
            np.testing.assert_array_equal(quantity(run, f"{name}_5_above_null"), run.values(name)[:, column] - null)


def test_a_random_direction_has_its_share_of_all_modes(two_outputs, synthetic):
    """k/M with M = 48 modes, on 24 points of two outputs. Fails where M is the number of points."""
    run = load(two_outputs[0]).only
    found = quantity(run, "residual_energy_5_above_null")
    stored = run.values("residual_energy")[:, synthetic.ENERGY_K.index(5)]
    np.testing.assert_array_equal(found, stored - 5 / synthetic.N)


def test_what_has_a_null_names_it_and_what_has_none_is_refused(two_sizes):
    with pytest.raises(AnalysisError, match=r"has a null that depends.*Compare target_energy_5_above_null"):
        check_across_sizes(two_sizes, ["target_energy_5"])
    with pytest.raises(AnalysisError, match=r"'effective_rank' grows with.*\[24, 48\]"):
        check_across_sizes(two_sizes, ["probe_loss", "effective_rank"])
    with pytest.raises(AnalysisError, match="which has no null"):
        quantity(two_sizes[0], "trace_above_null")
    check_across_sizes(two_sizes, ["eigenvalue_3", "probe_loss", "training_loss", "kernel_distance_from_initial"])
    check_across_sizes(load([run.path for run in two_sizes[:1]]), ["effective_rank"])


def test_what_is_compared_by_default_fits_the_sizes(two_sizes):
    chosen = compare(two_sizes).values
    assert {"eigenvalue_1", "kernel_distance_from_initial", "probe_loss"} <= chosen.keys()
    assert "target_energy_20_above_null" in chosen
    assert not {"effective_rank", "stability_ratio"} & chosen.keys()


def test_what_a_user_registered_is_the_user_s_to_judge(monkeypatch):
    entry = Observable("mine", "1", "1", "here", frozenset(), lambda state: 1.0, reading="none")
    monkeypatch.setitem(registry._REGISTERED, "mine", entry)
    assert across_sizes("mine") == "mine"
