"""What an update of a loop of one's own is, and what its row says."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kerneltrack as kt
from kerneltrack.archive import check
from kerneltrack.errors import TrackerError
from kerneltrack.schedule import OnMetricChange
from kerneltrack.tracking import FOREIGN
from tests.archive.same import differences
from tests.tiers import diagonals
from tests.tracking.own_loop import NUMBERS, PROBE, Loop, X, Y, rows


def test_a_body_without_a_step_is_an_update_that_was_not_applied(tmp_path):
    """Oracle: the weights themselves."""
    loop = Loop()
    with loop.tracker(tmp_path / "run.h5") as tracker:
        for number in range(4):
            with tracker.update():
                if number == 1:
                    loop.loss().backward()
                elif number == 2:
                    loop.optimizer.zero_grad()
                    loop.optimizer.step()  # no gradient: nothing moves
                else:
                    loop.update()
    found = rows(tmp_path / "run.h5")
    assert [s.step for s in found] == [0, 1, 2, 3, 4]
    assert [s.update_applied for s in found] == [True, False, False, True, None]
    assert "the update was skipped" in found[1].message
    assert found[1].probes["probe"]["probe_loss"] == found[2].probes["probe"]["probe_loss"]


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_skips_is_not_applied(tmp_path, fused):
    """Oracle: the weights. A fused optimizer's step is called all the same, and looks at found_inf by itself."""
    loop = Loop(fused=fused, momentum=0.0)  # torch's fused momentum is not initialised by a first step that is skipped
    scaler, moved = torch.amp.GradScaler("cpu", init_scale=2.0**127), []
    with loop.tracker(tmp_path / "run.h5") as tracker:
        for _ in range(5):
            before = loop.model[0].weight.detach().clone()
            with tracker.update():
                loop.optimizer.zero_grad()
                scaler.scale(loop.loss() * 8).backward()
                scaler.step(loop.optimizer)
                scaler.update()
            moved.append(not torch.equal(before, loop.model[0].weight))
    assert True in moved
    assert False in moved
    assert [s.update_applied for s in rows(tmp_path / "run.h5")] == [*moved, None]


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.LBFGS], ids=lambda kind: kind.__name__)
def test_a_step_that_is_given_a_closure_has_its_gradients_inside(tmp_path, kind):
    """Nothing has a gradient when the step begins. Oracle: the weights."""
    loop = Loop()
    loop.optimizer = kind(loop.model.parameters(), lr=0.1)

    def closure():
        loop.optimizer.zero_grad()
        loss = loop.loss()
        loss.backward()
        return loss

    with loop.tracker(tmp_path / "run.h5") as tracker:
        before = loop.model[0].weight.detach().clone()
        with tracker.update() as update:
            update.loss = loop.optimizer.step(closure)
        assert not torch.equal(before, loop.model[0].weight)
    assert [(s.step, s.update_applied) for s in rows(tmp_path / "run.h5")] == [(0, True), (1, None)]


def test_the_rates_are_those_of_the_step(tmp_path):
    """A warm-up that is set after the update has begun. Oracle: the optimizer's own rate as it steps."""
    loop = Loop()
    with loop.tracker(tmp_path / "run.h5") as tracker:
        for number in range(3):
            with tracker.update():
                loop.optimizer.param_groups[0]["lr"] = 0.01 * (number + 1)
                loop.update()
                loop.optimizer.param_groups[0]["lr"] = 7.0
    found = [s.learning_rates for s in rows(tmp_path / "run.h5")]
    assert found == [(0.01,), (0.02,), (0.03,), (7.0,)]


def whole_batch(path, loss="mse", trained=1.0, **options):
    """One update of all data, which are the probe; its loss is that of ``loss="mse"``, times ``trained``."""
    loop = Loop(momentum=0.0)
    loader = DataLoader(TensorDataset(X, Y), batch_size=len(X), shuffle=True)
    given = {"probe": kt.Probe(X, Y), "loader": loader, "loss": loss, **options}
    with loop.tracker(path, **given) as tracker:
        for batch in loader:
            with tracker.update(batch) as update:
                update.loss = trained * loop.update(*batch)
    with kt.open_archive(path) as archive:
        return archive.probes["probe"].settings["stability_scope"]


def test_the_scope_is_exact_only_for_the_loss_that_is_trained(tmp_path):
    assert whole_batch(tmp_path / "exact.h5") == "exact"
    assert whole_batch(tmp_path / "clipped.h5", clip=1.0) == "probe estimate"
    assert whole_batch(tmp_path / "unknown.h5", loader=None) == "probe estimate"


def test_a_loss_that_is_not_the_trained_one_is_refused(tmp_path):
    with pytest.raises(TrackerError, match=r"(?s)loss='half_mse'.*the loss that is trained, 'mse'"):
        whole_batch(tmp_path / "run.h5", loss="half_mse")
    with pytest.warns(UserWarning, match="adds something to the loss"):
        whole_batch(tmp_path / "other.h5", trained=3.0)


def test_a_body_that_raises_is_no_update(tmp_path):
    """Out of memory, say: the loop goes on with another batch. Oracle: the archive of the loop to which it never happened."""

    def train(path, fails):
        loop = Loop()
        with loop.tracker(path) as tracker:
            for number in range(4):
                try:
                    with tracker.update():
                        if number == fails:
                            raise MemoryError
                        loop.update()
                except MemoryError:
                    with tracker.update():
                        loop.update()

    train(tmp_path / "fails.h5", 2)
    train(tmp_path / "runs.h5", None)
    assert differences(tmp_path / "fails.h5", tmp_path / "runs.h5") == []


def test_a_body_that_raises_after_its_step_leaves_a_row_that_does_not_know(tmp_path):
    """The next update is of a state that is not due: it is not taken for the one of the row."""
    loop = Loop()
    with loop.tracker(tmp_path / "run.h5", schedule=2) as tracker:
        with pytest.raises(TypeError, match="unsupported operand"), tracker.update():
            loop.update() + "a"
        with tracker.update():
            loop.update()
    assert [(s.step, s.update_applied) for s in rows(tmp_path / "run.h5")] == [(0, None), (2, None)]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_closes_the_archive_with_every_row(tmp_path, error):
    loop = Loop()

    def ends():
        loop.update()
        if tracker.step == 3:
            raise error

    def train():
        for _ in range(5):
            with tracker.update():
                ends()

    with pytest.raises(error), loop.tracker(tmp_path / "run.h5") as tracker:
        train()
    said = [(s.step, s.update_applied) for s in rows(tmp_path / "run.h5")]
    assert said == [(0, True), (1, True), (2, True), (3, None)]
    assert not (tmp_path / "run.h5.parts").exists()
    assert not list(check(tmp_path / "run.h5"))


def test_the_norm_says_by_how_much_gradients_were_clipped(tmp_path):
    """ρ of a clipped update is ηλ/2 times min(1, bound/‖g‖). Oracle: ρ of the same state where nothing is clipped."""
    found = {}
    for name, clip, tells in (
        ("plain", None, False),
        ("told", 0.01, True),
        ("untold", 0.01, False),
        ("wide", 50.0, False),
    ):
        loop = Loop(momentum=0.0)
        with loop.tracker(tmp_path / f"{name}.h5", clip=clip) as tracker, tracker.update():
            loop.loss().backward()
            norm = torch.nn.utils.clip_grad_norm_(loop.model.parameters(), clip or 1e9)
            if tells:
                tracker.clipped(norm)
            loop.optimizer.step()
        first = rows(tmp_path / f"{name}.h5")[0]
        found[name] = float(first.probes["probe"].get("stability_ratio", "nan")), first.message
    factor = 0.01 / (float(norm_of_the_first_gradient()) + 1e-6)
    assert 0 < factor < 1
    # products of a few dozen terms in float32, once with the factor inside
    assert found["told"][0] == pytest.approx(factor * found["plain"][0], rel=1e-5)
    assert found["wide"][0] == found["plain"][0]
    assert str(found["untold"][0]) == "nan"
    assert "tracker.clipped" in found["untold"][1]


def shortened(kind, loop, bound):
    """What a loop may do to gradients between its backward pass and its step."""
    parameters = list(loop.model.parameters())
    if kind == "by norm":
        torch.nn.utils.clip_grad_norm_(parameters, bound)
    elif kind == "by value":
        torch.nn.utils.clip_grad_value_(parameters, bound)
    elif kind == "replaced":
        for p in parameters:
            p.grad = p.grad * bound
    elif kind == "of one parameter":
        parameters[0].grad.mul_(bound)


@pytest.mark.parametrize(
    ("kind", "scale"),
    diagonals(2, ["by norm", "by value", "replaced", "of one parameter", "not at all"], [1.0, 2.0**16]),
)
def test_clipping_that_nobody_told_of_is_seen_in_the_gradients(tmp_path, kind, scale):
    """Oracle: the ratio of the loop that clips nothing. A scaled loss, and a bound that is not reached, change none."""
    found = {}
    for bound in (0.03, 1e6):
        loop, scaler = Loop(momentum=0.0), torch.amp.GradScaler("cpu", init_scale=scale)
        with loop.tracker(tmp_path / f"{bound}.h5") as tracker:
            for _ in range(2):
                with tracker.update():
                    loop.optimizer.zero_grad()
                    for part in (slice(0, 6), slice(6, 12)):  # accumulated
                        scaler.scale(loop.loss(X[part], Y[part]) / 2).backward()
                    scaler.unscale_(loop.optimizer)
                    if kind in ("by norm", "by value") or bound < 1:
                        shortened(kind, loop, bound)
                    scaler.step(loop.optimizer)
                    scaler.update()
        assert not any(p._post_accumulate_grad_hooks for p in loop.model.parameters())
        found[bound] = rows(tmp_path / f"{bound}.h5")
    clipped, not_clipped = found[0.03][:2], found[1e6][:2]
    assert all(row.probes["probe"]["stability_ratio"] > 0 for row in not_clipped)
    assert all(("stability_ratio" in row.probes["probe"]) is (kind == "not at all") for row in clipped)
    said = "stability_ratio: gradients were changed between the backward pass and the step"
    assert all((said in row.message) is (kind != "not at all") for row in clipped)


def averaged_in(model):
    with torch.no_grad():
        for p in model.parameters():
            p.data.copy_(p.data * 0.9)


def test_weights_that_the_loop_swaps_in_are_noticed(tmp_path):
    """Before an update, and before the end; weights that were swapped back are as they were."""
    loop = Loop()
    with loop.tracker(tmp_path / "run.h5") as tracker:
        for step in range(5):
            kept = {name: value.clone() for name, value in loop.model.state_dict().items()}
            if step in (1, 2):
                averaged_in(loop.model)
            if step == 1:  # evaluated, and put back
                loop.model.load_state_dict(kept)
            with tracker.update():
                loop.update()
        averaged_in(loop.model)
    said = [FOREIGN in row.message for row in rows(tmp_path / "run.h5")]
    assert said == [False, False, True, False, False, True]


def norm_of_the_first_gradient():
    loop = Loop()
    loop.loss().backward()
    return torch.nn.utils.get_total_norm([p.grad for p in loop.model.parameters()])


def test_a_batch_is_counted_and_nothing_else_is_known(tmp_path):
    loop = Loop()
    with loop.tracker(tmp_path / "run.h5") as tracker:
        for part in (slice(0, 4), slice(4, 9)):
            with tracker.update((X[part], Y[part])) as update:
                update.loss = loop.update(X[part], Y[part])
        with tracker.update():
            loop.update()
    found = rows(tmp_path / "run.h5")
    assert [s.samples_seen for s in found] == [0, 4, 9, -1]
    assert [s.batch for s in found] == [0, 1, 2, 3]
    assert [s.training_loss > 0 for s in found] == [True, True, False, False]  # the last two are NaN
    # of the last state there is no update, so there is nothing to hand over
    assert ["training_loss: the loop handed no loss over" in s.message for s in found] == [False, False, True, False]


def test_metrics_of_the_loop_ask_for_states(tmp_path):
    loop = Loop()
    with loop.tracker(tmp_path / "run.h5", schedule=OnMetricChange("accuracy", 2.0)) as tracker:
        for number in range(6):
            tracker.metrics["accuracy"] = 0.1 if number < 3 else 0.9
            with tracker.update():
                loop.update()
    assert [s.step for s in rows(tmp_path / "run.h5")] == [0, 3, 6]


def test_the_scalars_are_there_for_the_loops_logger(tmp_path):
    loop = Loop()
    with loop.tracker(tmp_path / "run.h5", log=True) as tracker:
        assert tracker.scalars == {}
        with tracker.update():
            loop.update()
        first = rows(tmp_path / "run.h5")[0].probes["probe"]
        assert tracker.scalars["ntk/trace"] == first["trace"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("wrap", [torch.compile, nn.parallel.DataParallel], ids=["compiled", "DataParallel"])
def test_wrappers_are_seen_through(tmp_path, wrap):
    found = []
    for number, around in enumerate((lambda model: model, wrap)):
        loop = Loop()
        with kt.Tracker(
            tmp_path / f"{number}.h5", around(loop.model), loop.optimizer,
            probe=PROBE, loss="mse", log=False, schedule=1, observables=NUMBERS,
        ) as tracker, tracker.update():  # fmt: skip
            loop.update()
        with kt.open_archive(tmp_path / f"{number}.h5") as archive:
            found.append((archive.provenance.parameters, archive.provenance.run["model"]))
    assert differences(tmp_path / "0.h5", tmp_path / "1.h5") == []
    assert found[0] == found[1]
