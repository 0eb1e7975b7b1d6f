"""What a loop of one's own may do with a tracker, and what it is told where it does something else."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kerneltrack as kt
from kerneltrack.archive import check
from kerneltrack.errors import ArchiveError, ProbeError, TrackerError
from kerneltrack.schedule import Epochs, OnMetricChange
from tests.archive.same import differences
from tests.callbacks.comparisons import unequal

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
Y = X[:, :1].sin()
PROBE = kt.Probe(X[:6], Y[:6])
NUMBERS = ["trace", "probe_loss", "stability_ratio", "linearization_error"]


class Loop:
    """A network, an optimizer, and one update of them at a time."""

    def __init__(self, **optimizer):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), **{"lr": 0.1, "momentum": 0.9, **optimizer})

    def tracker(self, path, **options):
        given = {"probe": PROBE, "loss": "mse", "log": False, "observables": NUMBERS, "schedule": 1, **options}
        return kt.Tracker(path, self.model, self.optimizer, **given)

    def loss(self, x=X, y=Y):
        return (self.model(x) - y).square().mean()

    def update(self, x=X, y=Y):
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        return loss


def rows(path):
    with kt.open_archive(path) as archive:
        return list(archive)


# -- misuse ------------------------------------------------------------------------------------------------------------


def twice(loop, tracker):
    tracker.before()
    tracker.before()


def nested(loop, tracker):
    with tracker.update(), tracker.update():
        pass


def ends_nothing(loop, tracker):
    tracker.after()


def adds_to_nothing(loop, tracker):
    tracker.add()


def clips_nothing(loop, tracker):
    tracker.clipped(1.0)


def steps_outside(loop, tracker):
    loop.update()


def clips_without_a_bound(loop, tracker):
    with tracker.update():
        tracker.clipped(1.0)


def saves_inside(loop, tracker):
    with tracker.update():
        tracker.state_dict()


def loads_late(loop, tracker):
    with tracker.update():
        loop.update()
    tracker.load_state_dict(tracker.state_dict())


def enters_twice(loop, tracker):
    with tracker:
        pass


def gives_a_loss_for_each_sample(loop, tracker):
    with tracker.update() as update:
        loop.update()
        update.loss = torch.ones(3)


MISUSES = {
    twice: r"(?s)before\(\) is out of turn.*after\(\) of the update before.*add\(batch\)",
    nested: r"(?s)before\(\) is out of turn.*Call after\(\)",
    ends_nothing: r"(?s)after\(\) is out of turn.*Call before\(\) ahead of the forward pass",
    adds_to_nothing: r"(?s)add\(\) is out of turn.*tracker\.update\(\)",
    clips_nothing: r"(?s)clipped\(\) is out of turn.*tracker\.update\(\)",
    steps_outside: r"(?s)optimizer\.step\(\) is out of turn.*tracker\.update\(\)",
    clips_without_a_bound: r"(?s)clip=.*clip_grad_norm_",
    saves_inside: r"(?s)state_dict\(\) is out of turn.*after the update has ended",
    loads_late: r"(?s)load_state_dict\(\) is out of turn.*before the first update",
    enters_twice: r"(?s)with tracker is out of turn.*once at a time",
    gives_a_loss_for_each_sample: r"(?s)loss of an update.*one number.*\(3,\)",
}


@pytest.mark.parametrize("misuse", MISUSES, ids=lambda f: f.__name__)
def test_misuse_is_told_with_its_remedy(tmp_path, misuse):
    """The archive is closed as a run that ended so: valid, with every row that there was."""
    loop = Loop()
    with pytest.raises(TrackerError, match=MISUSES[misuse]), loop.tracker(tmp_path / "run.h5") as tracker:
        misuse(loop, tracker)
    if (tmp_path / "run.h5").exists():
        assert not list(check(tmp_path / "run.h5"))
    before = [p.clone() for p in loop.model.parameters()]
    loop.update()  # no hook is left on the optimizer
    assert not all(map(torch.equal, before, loop.model.parameters()))


def test_outside_of_the_with():
    with pytest.raises(TrackerError, match=r"(?s)before\(\) is out of turn.*Write `with kt.Tracker"):
        Loop().tracker("run.h5").before()


WRONG = [
    ({"probe": 5}, TrackerError, r"(?s)probe=5.*loader=.*got none"),
    ({"probe": {"train": PROBE, "val": 5}, "loader": [X]}, TrackerError, r"(?s)'val': 5.*from_dataloader"),
    ({"probe": 5, "loader": [X]}, TrackerError, r"(?s)probe=5.*got list"),
    ({"probe": X}, ProbeError, "a Probe or the path"),
    ({"steps": 0}, TrackerError, "steps"),
    ({"clip": "norm"}, TrackerError, r"(?s)clip.*clip_grad_norm_"),
    ({"clip": -1.0}, TrackerError, "clip"),
    ({"clip": ("all", 1.0)}, TrackerError, "clip"),
    ({"loss": "mae"}, TrackerError, "loss"),
    ({"log": 1}, TrackerError, "log"),
    ({"max_overhead": 2}, TrackerError, "max_overhead"),
]


@pytest.mark.parametrize(("given", "error", "message"), WRONG)
def test_wrong_arguments_are_refused_when_the_tracker_is_made(given, error, message):
    with pytest.raises(error, match=message):
        Loop().tracker("run.h5", **given)


def test_what_is_no_optimizer_is_refused():
    model = nn.Linear(3, 1)
    for given in (None, [], [model], 0.1):
        with pytest.raises(TrackerError, match=r"(?s)optimizer.*torch\.optim\.Optimizer"):
            kt.Tracker("run.h5", model, given, probe=PROBE)


def test_an_optimizer_of_another_network_is_refused_before_the_first_update(tmp_path):
    tracker = kt.Tracker(tmp_path / "run.h5", nn.Linear(3, 1), Loop().optimizer, probe=PROBE)
    with pytest.raises(TrackerError, match=r"(?s)model's parameters.*after the model was moved"), tracker:
        tracker.before()


def test_epochs_that_nobody_tells_are_asked_for(tmp_path):
    loop = Loop()
    with (
        pytest.raises(TrackerError, match=r"(?s)epoch.*loader=.*epoch=epoch"),
        loop.tracker(tmp_path / "a.h5", schedule=Epochs(1)) as tracker,
    ):
        tracker.before()
    with loop.tracker(tmp_path / "b.h5", schedule=Epochs(2)) as tracker:
        for epoch in range(4):
            for _ in range(2):
                with tracker.update(epoch=epoch):
                    loop.update()
    assert [(s.step, s.epoch) for s in rows(tmp_path / "b.h5")] == [(0, 0), (4, 2), (8, 3)]


def test_a_loop_without_an_update_is_told_so(tmp_path):
    with pytest.warns(UserWarning, match=r"no update.*tracker\.update\(\)"), Loop().tracker(tmp_path / "run.h5"):
        pass
    assert not (tmp_path / "run.h5").exists()


# -- updates -----------------------------------------------------------------------------------------------------------


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


# -- resuming ----------------------------------------------------------------------------------------------------------


def resumable(path, upto, state=None, **options):
    """A training over a loader without shuffling to step ``upto``; from ``state`` on, where one is given."""
    loop = Loop()
    loader = DataLoader(TensorDataset(X, Y), batch_size=4)
    tracker = loop.tracker(path, loader=loader, probe=5, **options)
    first = 0
    if state is not None:
        loop.model.load_state_dict(state["model"])
        loop.optimizer.load_state_dict(state["optimizer"])
        tracker.load_state_dict(state["tracker"])
        first = tracker.step
    batches = [batch for _ in range(4) for batch in loader]
    with tracker:
        for batch in batches[first:upto]:
            with tracker.update(batch) as update:
                update.loss = loop.update(*batch)
            if tracker.step == 5:
                kept = torch.tensor([]), loop.model.state_dict(), loop.optimizer.state_dict(), tracker.state_dict()
                torch.save(dict(zip(("", "model", "optimizer", "tracker"), kept, strict=True)), path.with_suffix(".pt"))
    return loop


NIGHTLY = [pytest.param(schedule, marks=pytest.mark.nightly) for schedule in (2, "log")]


@pytest.mark.parametrize("schedule", ["epoch", kt.schedule.Every(3, window=2), *NIGHTLY], ids=str)
def test_a_resumed_run_continues_its_archive_bit_for_bit(tmp_path, schedule):
    """In the middle of an epoch, through a file. Oracle: the run that was not interrupted, its weights and its archive."""
    options = {
        "schedule": schedule,
        "observables": [*NUMBERS, "anchored_linearization_error", "kernel_angular_velocity"],
    }
    whole = resumable(tmp_path / "whole.h5", 12, **options)
    resumable(tmp_path / "run.h5", 8, **options)  # goes on beyond the checkpoint, and is lost there
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    resumed = resumable(tmp_path / "run.h5", 12, state, **options)
    assert all(map(torch.equal, whole.model.state_dict().values(), resumed.model.state_dict().values()))
    with kt.open_archive(tmp_path / "whole.h5") as expected, kt.open_archive(tmp_path / "run.h5") as found:
        assert unequal(expected, found) == []


def test_another_run_finds_the_archive_there(tmp_path):
    resumable(tmp_path / "run.h5", 3)
    before = (tmp_path / "run.h5").read_bytes()
    with pytest.raises(ArchiveError, match="exists"):
        resumable(tmp_path / "run.h5", 3)
    assert (tmp_path / "run.h5").read_bytes() == before
    resumable(tmp_path / "run.h5", 2, if_exists="replace")
    assert [s.step for s in rows(tmp_path / "run.h5")] == [0, 1, 2]


def test_entering_again_goes_on(tmp_path):
    """A second phase of the same loop: one archive."""
    loop = Loop()
    tracker = loop.tracker(tmp_path / "run.h5")
    for _ in range(2):
        with tracker, tracker.update():
            loop.update()
    assert [s.step for s in rows(tmp_path / "run.h5")] == [0, 1, 2]


def test_the_state_of_another_tracker_is_refused():
    with pytest.raises(TrackerError, match=r"(?s)state_dict\(\) of a kerneltrack\.Tracker.*NTKTracker"):
        Loop().tracker("run.h5").load_state_dict({"run_id": "a", "step": 3})


def test_no_lightning_is_loaded():
    """Oracle: the modules of a fresh process."""
    import subprocess
    import sys

    code = "import sys, kerneltrack as kt; kt.Tracker; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pytorch_lightning", "lightning", "matplotlib"} & set(done.stdout.split())
    assert "torch" in done.stdout.split()  # negative control


def test_a_quiet_loop_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumable(tmp_path / "run.h5", 2)
