"""Each set-up in a plain loop: the archive that Lightning's tracker writes of it, and the training without a tracker.

Oracles: the archive of the same set-up through a Lightning Trainer, byte for byte by tests/archive/same.py, with the losses
of both trainings, which no tracker makes; and the same loop without a tracker, bit for bit.
"""

from contextlib import nullcontext

import pytest

import kerneltrack as kt
from kerneltrack import schedule
from tests.archive.same import differences as unequal_archives
from tests.callbacks.comparisons import differences, same, tracker, train
from tests.callbacks.setups import SETUPS
from tests.callbacks.test_setups import NUMBERS
from tests.tracking.plain_loop import NAMES, Training
from tests.tracking.untracked import Untracked

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*", "ignore:.*nested.*tensor.*"),
    pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled.*", "ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
]


def watching(path, training, name, **options):
    """A tracker of the training with what tests/callbacks measures of the set-up."""
    given = {"probe": 8, "schedule": schedule.Every(2, window=2), "loss": "half_mse", "observables": NUMBERS}
    given = {**given, **SETUPS[name].tracker, "log": False, **options}
    loop = {"loader": training.loader, "clip": training.clip}
    return kt.Tracker(path, training.whole, training.optimizers, **given, **loop)


def ending(setup):
    """What ends the loop: pytest would take Ctrl-C for its own."""
    return (
        pytest.raises(KeyboardInterrupt if setup.raises is SystemExit else setup.raises)
        if setup.raises
        else nullcontext()
    )


#: Where the tracker has a path of its own: what an update, a step, a clipping, an epoch and an end are. The others differ in
#: what torch does, and are asked in the nightly run.
QUICK = {
    "automatic optimization",
    "gradient accumulation",
    "manual optimization, two optimizers",
    "16-mixed, skipped updates",
    "an exception",
}


#: What Fabric does in its own way: precision, the scaler, the backward pass, clipping, the optimizers that it wraps.
FABRIC = ["16-mixed, skipped updates", "gradient clipping by norm", "gradient clipping by value", "bf16-mixed",
          "manual optimization, two optimizers", "gradient accumulation", "64-true"]  # fmt: skip
CASES = [(name, False) for name in NAMES] + [(name, True) for name in FABRIC]
QUICK_CASES = {*((name, False) for name in QUICK), *((name, True) for name in FABRIC[:2])}
THROUGH_A_TRAINER = {}


@pytest.fixture
def trainer(request, tmp_path_factory):
    """The archive and the losses of the set-up through a Lightning Trainer; once for both loops."""
    name = request.node.callspec.params["name"]
    if name not in THROUGH_A_TRAINER:
        path, given = tmp_path_factory.mktemp("trainer") / "run.h5", {"observables": NUMBERS, "log": False}
        _, left = train(SETUPS[name], tracker(path, **given, **SETUPS[name].tracker))
        THROUGH_A_TRAINER[name] = path, left["losses"]
    return THROUGH_A_TRAINER[name]


@pytest.mark.parametrize(
    ("name", "fabric"), [c if c in QUICK_CASES else pytest.param(*c, marks=pytest.mark.nightly) for c in CASES]
)
def test_the_archive_is_lightnings_and_the_training_its_own(tmp_path, trainer, name, fabric):
    setup, (archive, losses) = SETUPS[name], trainer
    tracked = Training(setup, fabric=fabric)
    with ending(setup):
        tracked.run(watching(tmp_path / "loop.h5", tracked, name))
    plain = Training(setup, fabric=fabric)
    with ending(setup):
        plain.run(Untracked())
    assert differences(tracked.left, plain.left) == []
    assert same(tracked.losses, losses)  # the loop makes the Trainer's updates
    assert unequal_archives(archive, tmp_path / "loop.h5") == []


#: The row of docs/setups.md, see tests/callbacks/setups_table.py.
test_the_archive_is_lightnings_and_the_training_its_own.loop = lambda given: (
    "Lightning Fabric" if given["fabric"] else "a plain loop"
)
