"""The summary's answers: at, just below and just above each limit, and of runs whose answer is known.

Oracles: archives made of numbers that are chosen or follow in closed form (a linear model, a rotated kernel, a target that is an
eigenvector, random labels), a loop over permutations with whole matrices, and the report's own findings.
"""

import dataclasses
import json
import shlex
import shutil

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.analysis import load, lr_decay_effects
from kerneltrack.analysis.cli import main
from kerneltrack.analysis.derived import DRAWS, HELD, PermutedEnergy, permuted_energy
from kerneltrack.analysis.derived import MOVED as MOVED_BY
from kerneltrack.analysis.report.findings import findings
from kerneltrack.analysis.report.motion import AT_THE_EDGE
from kerneltrack.analysis.report.verdicts import ALIGNED, EDGE, LAZY_OR_RICH, RATE, aligned, rates
from kerneltrack.analysis.report.verdicts.aligned import REACHED, _answer
from kerneltrack.analysis.report.verdicts.edge import SAMPLE
from kerneltrack.analysis.report.verdicts.lazy_or_rich import LIMITS
from kerneltrack.callbacks import NTKTracker
from kerneltrack.errors import AnalysisError
from kerneltrack.observables.alignment import permuted_squares
from tests.docs import running

MOVED = ("anchored_linearization_error", "kernel_distance_from_initial", "relative_kernel_change", "jacobian_stability")


def just(value, towards):
    return float(np.nextafter(value, towards))


def stored(run, *, without=(), settings=None, **values):
    """The run with other numbers: one for every snapshot, or an array of them; ``without`` names what is not stored."""
    dataset = run.dataset.drop_vars([name for name in without if name in run.dataset])
    like = run.dataset["trace"]
    dataset = dataset.assign(
        {name: like.copy(data=np.broadcast_to(value, like.shape)) for name, value in values.items()}
    )
    if "jacobian_stability" in values:  # the first definition is withheld where it may be rounding
        dataset["jacobian_stability"].attrs["definition"] = 2
    if settings is not None:
        dataset = dataset.assign_attrs(settings=json.dumps({**run.settings, **settings}))
    return dataclasses.replace(run, dataset=dataset)


@pytest.fixture(scope="module")
def run(archives):
    return load(archives[0]).only


@pytest.fixture(scope="module")
def control(archives):
    return load(archives[1]).only


def moved(run, **values):
    """The run with these numbers of :data:`MOVED` and no others of them."""
    return stored(run, without=MOVED, **values).summary()[LAZY_OR_RICH]


BELOW, ABOVE = -np.inf, np.inf


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


def at_ratio(run, ratio, *, scope="exact", **values):
    return stored(run, settings={"stability_scope": scope}, stability_ratio=ratio, **values).summary()[EDGE]


def arrived(run, level):
    """ρ of a run that came to its bound once, at the first snapshot, and was at ``level`` ever since."""
    return np.array([0.95] + [level] * (len(run) - 1))


@pytest.mark.parametrize(
    ("ratio", "answer"),
    [
        (0.0, "below"),
        (just(0.95, BELOW), "below"),
        (0.95, "at the edge"),
        (just(0.95, ABOVE), "at the edge"),
        (1.0, "at the edge"),
        (1.5, "at the edge"),
        (just(1.5, ABOVE), "beyond"),
        (2.0, "beyond"),
    ],
)
def test_the_edge_at_its_limits(run, ratio, answer):
    found = at_ratio(run, ratio)
    assert (found.answer, found.numbers["stability_ratio"]) == (answer, ratio)


@pytest.mark.parametrize(
    ("level", "answer"),
    [(0.75, "at the edge"), (just(0.75, BELOW), "undecided"), (0.3, "undecided"), (just(0.75, ABOVE), "at the edge")],
)
def test_an_edge_that_was_left_is_not_called_held(run, level, answer):
    found = at_ratio(run, arrived(run, level))
    assert found.answer == answer
    assert ("left again" in found.because) == (answer == "undecided")


@pytest.mark.parametrize(
    ("ratio", "bias", "answer"),
    [
        (1.25, 0.25, "at the edge"),
        (1.0, 0.25, "undecided"),  # 0.75 without its bias: it never came to 0.95
        (1.2, 0.25, "at the edge"),  # 0.95 exactly
        (just(1.2, BELOW), 0.25, "undecided"),
        (2.0, 0.5, "at the edge"),
        (2.0, 0.25, "beyond"),
        (0.5, 0.25, "below"),  # a bias makes it too large: without it ρ is lower still
        (0.95 * 1.5, np.nan, "at the edge"),
        (just(0.95 * 1.5, BELOW), np.nan, "undecided"),
        (2.5, np.nan, "beyond"),
    ],
)
def test_a_sample_of_the_data_makes_the_ratio_too_large(run, ratio, bias, answer):
    assert at_ratio(run, ratio, scope="probe estimate", stability_ratio_bias=bias).answer == answer


def test_without_a_loss_nothing_is_said_of_the_edge(run):
    found = stored(run, without=["stability_ratio"]).summary()[EDGE]
    assert (found.answer, found.findings) == ("undecided", ())
    assert "NTKTracker(loss=" in found.because


def with_targets(run, targets):
    data = run.dataset["targets"]
    return dataclasses.replace(run, dataset=run.dataset.assign(targets=data.copy(data=targets.reshape(data.shape))))


def test_a_target_that_is_the_top_eigenvector_is_aligned_and_the_last_one_is_not(run, truth):
    for mode, answer, energy in ((0, "aligned", 1.0), (-1, "not aligned", 0.0)):
        found = with_targets(run, truth.basis[:, mode]).summary()[ALIGNED]
        assert found.answer == answer
        # float32 vectors: seven digits of twelve squares
        assert found.numbers["target_energy"] == pytest.approx(energy, abs=1e-6)


def test_random_labels_are_hardly_ever_aligned(run):
    """A level of 1 %: more than 2 of 30 have a probability of 0.003; and about half lie above the mean of permutations."""
    generator = np.random.default_rng(3)
    answers = [aligned(with_targets(run, generator.choice([-1.0, 1.0], run.count))).answer for _ in range(30)]
    assert answers.count("aligned") <= 2
    assert 7 < answers.count("not aligned") < 23
    assert answers.count("undecided") > 0


@pytest.mark.parametrize(
    ("reaching", "answer"), [(8, "aligned"), (9, "undecided"), (10, "undecided"), (400, "undecided")]
)
def test_aligned_at_its_limit(reaching, answer):
    """(1 + 9)/1000 is 1 %, and 1 % is not fewer."""
    null = np.concatenate([np.full(reaching, 0.9), np.linspace(0, 0.2, 999 - reaching)])
    found = PermutedEnergy(20, 0.9, null)
    assert found.reached == (1 + reaching) / 1000
    assert _answer(found, float(null.mean()), "")[0] == answer


@pytest.mark.parametrize(
    ("energy", "answer"), [(0.5, "not aligned"), (just(0.5, ABOVE), "undecided"), (0.2, "not aligned")]
)
def test_not_aligned_at_its_limit(energy, answer):
    assert _answer(PermutedEnergy(20, energy, np.tile([0.4, 0.6], 50)), 0.5, "")[0] == answer


def test_labels_of_one_class_decide_nothing(run):
    found = with_targets(run, np.ones(run.count)).summary()[ALIGNED]
    assert (found.answer, found.numbers["reached"]) == ("undecided", 1.0)


@pytest.mark.parametrize("missing", ["eigenvectors", "targets"])
def test_without_eigenvectors_or_targets_alignment_is_undecided(run, missing):
    found = stored(run, without=[missing]).summary()[ALIGNED]
    assert found.answer == "undecided"
    assert missing in found.because


@pytest.mark.parametrize("outputs", [1, 2])
def test_permuted_energies_are_those_of_a_loop(archives, two_outputs, synthetic, outputs):
    """Oracles: ‖VVᵀ(πy)‖²/‖y‖² with the whole projector, rows permuted one by one; and the closed form of the mean."""
    path = archives[0] if outputs == 1 else two_outputs[0]
    run = load(path).only
    truth = synthetic.simulate(outputs=outputs)
    found = permuted_energy(run, len(run) - 1, 10, draws=200, seed=4)
    projector = truth.basis[:, :10] @ truth.basis[:, :10].T
    target = truth.target.reshape(truth.count, outputs)
    generator, expected = np.random.default_rng(4), []
    for _ in range(200):
        order = generator.permutation(truth.count)
        moved = np.concatenate([target[n] for n in order])
        expected.append(moved @ projector @ moved / np.sum(target**2))
    np.testing.assert_allclose(found.null, expected, rtol=0, atol=1e-6)  # vectors are stored in float32
    own = target.reshape(-1) @ projector @ target.reshape(-1) / np.sum(target**2)
    assert found.energy == pytest.approx(own, abs=1e-6)
    mean = permuted_squares(truth.basis[:, :10], target, "full").sum() / np.sum(target**2)
    assert found.null.mean() == pytest.approx(mean, abs=5 * found.null.std() / np.sqrt(200))


def test_a_rate_that_was_kept_is_no_change(control):
    found = control.summary()[RATE]
    assert (found.answer, found.because) == ("no change", f"It was 0.25 in all {len(control)} snapshots.")


def test_a_change_that_the_analysis_cannot_see_is_not_called_none(run):
    """The spectrum is what a change is told of: without it nothing is known, whatever the rates did. And of one snapshot."""
    for less, reason in ((stored(run, without=["eigenvalues"]), "eigenvalues"), (run.window(0, 0), "before and after")):
        found = less.summary()[RATE]
        assert found.answer == "undecided"
        assert reason in found.because


def test_a_change_without_a_control_is_no_effect(run):
    found = run.summary()[RATE]
    assert (found.answer, found.numbers) == ("undecided", {})
    assert "no control was given" in found.because


def test_a_change_beside_its_control(run, control, truth, control_truth):
    """Oracle: both archives' own numbers, divided."""
    found = run.summary(control)[RATE]
    last = max(truth.eigenvalues)
    loss = [np.sum(t.coefficients[last] ** 2) for t in (truth, control_truth)]
    expected = {
        "eigenvalue_1": truth.eigenvalues[last][0] / control_truth.eigenvalues[last][0],
        "probe_loss": loss[0] / loss[1],
    }
    assert found.answer == "an effect"
    for name, factor in expected.items():
        assert found.numbers[name] == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize(
    ("factor", "answer"), [(1.0, "no effect"), (1.0999, "no effect"), (1.1, "an effect"), (1.1001, "an effect")]
)
def test_an_effect_at_its_limit(run, control, factor, answer, up):
    """λ_1 of the run is ``factor`` times the control's, or the other way round; all else is equal."""
    effects = lr_decay_effects(run, control)
    (change,) = effects.changes
    paired = [
        dataclasses.replace(
            m, numbers={**m.control, "eigenvalue_1": m.control["eigenvalue_1"] * (factor if up else 1 / factor)}
        )
        for m in change.after
    ]
    same = dataclasses.replace(effects, changes=(dataclasses.replace(change, after=tuple(paired)),))
    (found,) = rates(run, same)
    assert found.answer == answer


def test_a_schedule_that_moves_at_every_update_has_no_before_and_after(synthetic, tmp_path):
    rows, record = synthetic.one_more_kind("cosine")
    found = load(synthetic.write(tmp_path / "cosine.h5", rows, record)).only.summary()[RATE]
    assert found.answer == "undecided"
    assert "no before and after" in found.findings[0].sentence


def test_every_finding_of_the_report_stands_in_the_summary_once(run, control):
    found = run.summary(control)
    told = [*found.findings, *(finding for verdict in found.verdicts for finding in verdict.findings)]
    report = findings(run, lr_decay_effects(run, control))
    assert sorted(told, key=repr) == sorted(report, key=repr)
    text = str(found)
    assert {text.count(finding.sentence) for finding in report} == {1}


def test_the_answers_come_first(run):
    found = run.summary()
    lines = str(found).splitlines()
    asked = [(v.question, v.answer.upper()) for v in found.verdicts]
    assert [(line[: len(q)], line.rstrip().endswith(a)) for line, (q, a) in zip(lines[2:], asked, strict=False)] == [
        (q, True) for q, _ in asked
    ]
    assert {q for q, _ in asked} == {LAZY_OR_RICH, EDGE, ALIGNED, RATE}


def test_every_answer_has_its_threshold_and_source(run):
    for verdict in run.summary().verdicts:
        assert verdict.threshold
        assert verdict.source
        assert verdict.because


def test_asking_for_another_question_names_those_there_are(run):
    with pytest.raises(KeyError, match="Lazy or rich"):
        run.summary()["Is it good?"]


def test_the_command_prints_the_same(archives, run, control, capsys):
    assert main(["summary", str(archives[0]), "--control", str(archives[1])]) == 0
    assert capsys.readouterr().out == f"{run.summary(control)}\n"
    assert main(["summary", str(archives[0]), "--control", str(archives[1]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(run.summary(control).to_dict()))


def test_what_an_archive_says_cannot_move_the_cursor(run):
    hostile = stored(run, settings={"stability_scope": "\x1b[2Jgone\n"})
    assert "\x1b" not in str(hostile.summary())
    assert "gone" in str(hostile.summary())


def test_an_archive_with_little_in_it_is_undecided(run):
    """The spectrum alone; oracle: nothing but that is stored."""
    bare = dataclasses.replace(
        run, dataset=run.dataset[["eigenvalues", "learning_rate"]].assign_coords(run.dataset["step"].coords)
    )
    answers = {verdict.question: verdict.answer for verdict in bare.summary().verdicts}
    assert answers == {LAZY_OR_RICH: "undecided", EDGE: "undecided", ALIGNED: "undecided", RATE: "undecided"}


def test_nothing_measured_is_refused(run):
    nothing = stored(run, without=["eigenvalues"], trace=np.nan)
    with pytest.raises(AnalysisError, match="no snapshot of this probe holds a measurement"):
        nothing.summary()


def test_the_page_runs_as_written(archives, tmp_path, monkeypatch, capsys):
    """Oracles: its own assertion; that every command of it ends well; and the limits of its table, from the code."""
    monkeypatch.chdir(tmp_path)
    for name, path in zip(("run.h5", "control.h5"), archives, strict=True):
        shutil.copy(path, name)
    names = running.run("how-to/summary")
    capsys.readouterr()
    printed = []
    for line in running.blocks("how-to/summary", "sh")[0].splitlines():
        assert main(shlex.split(line)[1:]) == 0
        printed.append(capsys.readouterr().out)
    run, control = names["run"], names["control"]
    assert printed[:2] == [f"{run.summary()}\n", f"{run.summary(control)}\n"]
    assert json.loads(printed[2])["verdicts"][0]["answer"] == run.summary()[LAZY_OR_RICH].answer


def test_the_limits_on_the_page_are_those_of_the_code():
    page = (running.DOCS / "how-to" / "summary.md").read_text(encoding="utf-8")
    for name, (_, lazy, rich) in LIMITS.items():
        assert f"`{name}` below {lazy:g}" in page
        assert np.isnan(rich) or f"`{name}` at least {rich:g}" in page
    assert f"reaches {AT_THE_EDGE:g}, and its median from then on is within {HELD[0]:g} and {HELD[1]:g}" in page
    assert f"fewer than {100 * REACHED:g} % of {DRAWS} permutations" in page
    assert f"×{MOVED_BY:g} or more from the control's" in page
    assert f"or by ×{SAMPLE:g} where" in page
