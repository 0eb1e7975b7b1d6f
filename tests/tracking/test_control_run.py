"""Control runs of a plain loop. Oracle: the training from scratch whose rate never changes, in the weights to the bit."""

import pytest
import torch
from torch.utils.data import DataLoader

import kerneltrack as kt
from kerneltrack.archive import check
from kerneltrack.errors import ArchiveExistsError, ForkError, TrackerError
from tests.tracking.forked_runs import Run, generators, network, optimizer_of, same, update

CHANGE, UPDATES = 17, 30


def weights_at(counts):
    """An update function that keeps the weights after so many updates, and what it has kept."""
    kept, made = {}, [0]

    def body(model, optimizer, batch):
        loss = update(model, optimizer, batch)
        made[0] += 1
        if made[0] in counts:
            kept[made[0]] = {name: value.clone() for name, value in model.state_dict().items()}
        return loss

    return body, kept


def attributes(path):
    with kt.open_archive(path) as archive:
        return {n: archive.attrs.get(n) for n in ("control_of", "placebo_of", "fork_step", "batches", "archive_id")}


def rows(path):
    with kt.open_archive(path) as archive:
        return list(archive)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(CHANGE, UPDATES).tracked(tmp_path_factory.mktemp("control") / "run.h5")


@pytest.mark.parametrize(
    "options", [{}, {"generator": 5}, {"between": lambda: list(DataLoader(range(3), shuffle=True))}],
    ids=["torch's generator", "a generator of the loader's", "a validation between epochs"],
)  # fmt: skip
def test_weights_are_those_of_a_run_whose_rate_never_changes(tmp_path, options):
    """After 1, 10 and 100 updates: shuffled batches, dropout, batch statistics, momentum, a change in mid-epoch."""
    never = Run(None, CHANGE + 100, **options).train()
    run = Run(CHANGE, UPDATES, **options).tracked(tmp_path / "run.h5")
    counts = (1, 10) if "between" in options else (1, 10, 100)
    body, kept = weights_at(counts)
    path = kt.control_run(run.kept.forks[0], body, steps=counts[-1])
    for count in counts:
        within = "between" not in options or CHANGE + count <= 21  # what is drawn between epochs is no update
        assert same(kept[count], never.seen[CHANGE + count]) is within
    assert not same(run.seen[CHANGE + 1], never.seen[CHANGE + 1])  # negative control: the change did something
    assert attributes(path)["batches"] == ("same_batches" if counts[-1] == 100 else "other_batches")


class Counts(torch.optim.SGD):
    """Keeps a counter of its own among the settings of a group, as some optimizers do, and divides by it."""

    def __init__(self, params, **options):
        super().__init__(params, **options)
        self.param_groups[0]["count"] = 0

    @torch.no_grad()
    def step(self, closure=None):
        (group,) = self.param_groups
        group["count"] += 1
        for parameter in group["params"]:
            parameter.sub_(group["lr"] / group["count"] * parameter.grad)


def test_a_counter_among_an_optimizer_s_settings_counts_on(tmp_path):
    def trained(change):
        run = Run(change, 24)
        run.optimizer = Counts(run.model.parameters(), lr=0.05)
        return run

    never, run = trained(None).train(), trained(CHANGE).tracked(tmp_path / "run.h5")
    body, kept = weights_at((5,))
    kt.control_run(run.kept.forks[0], body, steps=5)
    assert same(kept[5], never.seen[CHANGE + 5])


def test_what_the_archive_says(run):
    """It is valid, says of which run and which step it is a control, and is measured at the run's steps, with the old rate."""
    body, _ = weights_at(())
    path = kt.control_run(run.kept.forks[0], body, steps=UPDATES - CHANGE)
    assert path.name == "run-control-17.h5"
    assert not list(check(path))
    theirs = attributes(run.kept.archive)
    assert attributes(path) == {
        "control_of": theirs["archive_id"], "placebo_of": None, "fork_step": 17, "batches": "same_batches",
        "archive_id": attributes(path)["archive_id"],
    }  # fmt: skip
    assert attributes(path)["archive_id"] != theirs["archive_id"]
    ours = rows(path)
    steps = [row.step for row in rows(run.kept.archive) if row.step >= CHANGE]
    assert [row.step for row in ours] == steps == [17, 18, 27, 28, 30]  # (27, 28) is a pair
    assert {row.learning_rates for row in ours} == {(0.05,)}
    before = next(row for row in rows(run.kept.archive) if row.step == CHANGE)
    for name in ("trace", "probe_loss", "outputs"):
        assert (ours[0].probes["probe"][name] == before.probes["probe"][name]).all()
    assert ours[0].samples_seen == before.samples_seen
    with pytest.raises(ArchiveExistsError):
        kt.control_run(run.kept.forks[0], body, steps=1)


def test_nothing_of_the_run_is_moved(run, tmp_path):
    """Model, optimizer, generators, loader and archive, to the bit."""
    model = {name: value.clone() for name, value in run.model.state_dict().items()}
    settings = [dict(group) for group in run.optimizer.param_groups]
    archive, left = run.kept.archive.read_bytes(), generators()
    kt.control_run(run.kept.forks[0], update, steps=5, archive=tmp_path / "control.h5")
    assert same(model, run.model.state_dict())
    assert [dict(group) for group in run.optimizer.param_groups] == settings
    assert generators() == left
    assert run.kept.archive.read_bytes() == archive


def test_a_model_of_ones_own(run, tmp_path):
    """Given with its optimizer it is trained, and ends where a copy of the run's would."""
    body, kept = weights_at((5,))
    kt.control_run(run.kept.forks[0], body, steps=5, archive=tmp_path / "copy.h5")
    model = network()
    given = {"model": model, "optimizer": optimizer_of(model)}
    kt.control_run(run.kept.forks[0], update, steps=5, archive=tmp_path / "own.h5", **given)
    assert same(kept[5], model.state_dict())


class Unrepeatable:
    """A loader that cannot begin again: every look at it gives other batches, of a generator that nobody can see."""

    def __init__(self, data, batch_size, **_):
        self.data, self.size, self.look = data, batch_size, 0

    def __iter__(self):
        self.look += 1
        order = torch.randperm(len(self.data), generator=torch.Generator().manual_seed(100 + self.look))
        return iter([[part[i] for part in self.data.tensors] for i in order.split(self.size)])


def test_a_loader_that_cannot_be_replayed_gives_other_batches(tmp_path, capsys):
    run = Run(CHANGE, UPDATES, make=Unrepeatable).tracked(tmp_path / "run.h5", log=True)
    capsys.readouterr()
    path = kt.control_run(run.kept.forks[0], update, steps=3)
    assert attributes(path)["batches"] == "other_batches"
    assert "other_batches: its batches are others than the run's from step 17 on" in capsys.readouterr().err
    again = kt.control_run(
        run.kept.forks[0], update, steps=3, batches=run.batches[CHANGE:], archive=tmp_path / "given.h5"
    )
    assert attributes(again)["batches"] == "same_batches"  # whoever has them can give them
    with pytest.raises(ForkError, match="batches ended before steps"):
        kt.control_run(run.kept.forks[0], update, steps=30, batches=run.batches[-3:], archive=tmp_path / "few.h5")


def test_batches_that_become_others_later_are_seen(tmp_path):
    """The same to the end of the epoch, and then not, for the run drew something between epochs."""
    drew = Run(CHANGE, UPDATES, between=lambda: torch.rand(2)).tracked(tmp_path / "run.h5")
    for steps, word in ((4, "same_batches"), (5, "other_batches")):
        path = kt.control_run(drew.kept.forks[0], update, steps=steps, archive=tmp_path / f"{steps}.h5")
        assert attributes(path)["batches"] == word


def test_where_nothing_tells_the_batches_they_count_as_others(tmp_path):
    run = Run(CHANGE, UPDATES).tracked(tmp_path / "run.h5", tell=False)
    path = kt.control_run(run.kept.forks[0], lambda *given: update(*given) and None, steps=3)
    assert attributes(path)["batches"] == "other_batches"


def test_a_control_that_has_not_ended_has_not_been_verified(run, tmp_path):
    """What a kill would leave says nothing of its batches; what is stopped before its first update, that nothing tells."""
    said = []

    def looks(model, optimizer, batch):
        said.append(attributes(tmp_path / "looks.h5")["batches"])
        return update(model, optimizer, batch)

    kt.control_run(run.kept.forks[0], looks, steps=2, archive=tmp_path / "looks.h5")
    assert said == ["unverified"] * 2

    def stops(model, optimizer, batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kt.control_run(run.kept.forks[0], stops, steps=3, archive=tmp_path / "stopped.h5")
    assert attributes(tmp_path / "stopped.h5")["batches"] == "other_batches"


def test_a_placebo_has_the_run_s_rates_and_other_batches(run, tmp_path):
    path = kt.control_run(run.kept.forks[0], update, steps=13, placebo=True, archive=tmp_path / "placebo.h5")
    said = attributes(path)
    assert (said["control_of"], said["placebo_of"]) == (None, attributes(run.kept.archive)["archive_id"])
    assert said["batches"] == "other_batches"
    assert [row.learning_rates for row in rows(path)] == [(0.01,)] * 5
    losses = [row.probes["probe"]["probe_loss"] for row in rows(path)]
    theirs = [row.probes["probe"]["probe_loss"] for row in rows(run.kept.archive) if row.step >= CHANGE]
    assert losses[0] == theirs[0]
    assert losses[1] != theirs[1]
    again = kt.control_run(run.kept.forks[0], update, steps=1, placebo=True)
    other = kt.control_run(run.kept.forks[0], update, steps=1, placebo=2)
    assert (again.name, other.name) == ("run-placebo-17.h5", "run-placebo2-17.h5")
    assert rows(again)[1].probes["probe"]["probe_loss"] == losses[1]  # the same draws whenever it is asked for
    assert rows(other)[1].probes["probe"]["probe_loss"] not in (losses[1], theirs[1])
    for wrong in (-1, 1.5, "yes"):
        with pytest.raises(TrackerError, match="placebo"):
            kt.control_run(run.kept.forks[0], update, steps=1, placebo=wrong)


def of_another_make():
    model = torch.nn.Linear(3, 1)
    return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}


def of_other_groups():
    model = network()
    groups = [{"params": [p]} for p in model.parameters()]
    return {"model": model, "optimizer": torch.optim.SGD(groups, lr=0.1)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: {"update": 3}, r"update: expected a function \(model, optimizer, batch\)"),
        (lambda: {"update": lambda model, optimizer, batch: None}, "did not step the optimizer that it was given"),
        (lambda: {"model": network()}, "belong together"),
        (of_another_make, "other parameters than the run.*expected 0.bias"),
        (of_other_groups, "optimizers are of another make.*expected parameters by group"),
    ],
    ids=["no function", "no step", "no optimizer", "another model", "other groups"],
)
def test_what_cannot_go_on_is_refused(run, tmp_path, given, message):
    options = {"update": update, "steps": 2, "archive": tmp_path / "refused.h5", **given()}
    with pytest.raises(ForkError, match=message):
        kt.control_run(run.kept.forks[0], options.pop("update"), **options)


def test_what_is_no_fork_is_refused():
    with pytest.raises(ForkError, match=r"expected a fork of a kerneltrack\.Tracker.*run_control"):
        kt.control_run("run.h5", update, steps=3)
