"""Small kernels on a CPU: what their operations are is written down once, and called again without the network.

Oracles: the double loop over plain autograd in float64, and for a model that has changed its plain Jacobian now.
"""

import gc

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import kerneltrack as kt
from kerneltrack.ntk import machine as sizes
from kerneltrack.ntk.machine import Machine
from kerneltrack.ntk.methods import preference, recorded, recording
from kerneltrack.ntk.methods.operator_tape import OperatorTape
from kerneltrack.ntk.network import FEW
from tests.ntk.exact_kernels import OUTPUTS, exact
from tests.ntk.oracles import EXACT, distance
from tests.ntk.problems import PROBLEMS
from tests.ntk.test_kept_plans import MODELS
from tests.ntk.test_lookup import setting, truth
from tests.ntk.test_recording import CALLS, CHANGES, PLAIN, Masked, X, agrees, small, warmed
from tests.tiers import one_in

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore:LSTM with projections")


@pytest.fixture(autouse=True)
def tapes(monkeypatch):
    """Those that were made; every problem here counts as small, however few operations it has."""
    made = []

    class Counted(OperatorTape):
        replays = 0

        def replay(self):
            self.replays += 1
            return super().replay()

    monkeypatch.setattr(sizes, "SMALL", 10**12)
    monkeypatch.setattr(recording, "tape_for", lambda device: made.append(Counted()) or made[-1])
    return made


def replays(tapes):
    return sum(tape.replays for tape in tapes)


@pytest.mark.parametrize(
    ("number", "name"), one_in(16, (pytest.param(*case, id=case[1]) for case in enumerate(PROBLEMS)))
)
def test_every_model(tapes, number, name):
    """Reductions and shapes in turn. A kernel of other samples comes first, so that none of its numbers is the right one."""
    problem, output = PROBLEMS[name], list(OUTPUTS)[number % len(OUTPUTS)]
    square = number // len(OUTPUTS) % 2 == 0
    model, (x1, x2) = problem.model(), problem.split()
    options = {"output": OUTPUTS[output], "forward": problem.forward}
    others = [tree_map(lambda value: value.flip(0) if isinstance(value, Tensor) else value, x) for x in (x1, x2)]
    for own in (*[others] * CALLS, (x1, x2)):
        kernel = kt.empirical_ntk(model, own[0], None if square else own[1], **options)
    assert distance(kernel, exact(name, output, square)) < EXACT
    assert name in PLAIN or replays(tapes), recorded(model)


@pytest.mark.parametrize("change", one_in(3, (pytest.param(change, id=change) for change in CHANGES)))
def test_a_change_from_outside(tapes, change):
    model = small()
    warmed(model)
    assert replays(tapes), recorded(model)
    CHANGES[change](model)
    for _ in range(CALLS):
        agrees(model)


@pytest.mark.parametrize("name", one_in(4, (pytest.param(name, id=name) for name in MODELS)))
def test_a_decision_of_the_forward_pass_changes(tapes, name):
    model = MODELS[name]()
    warmed(model)
    for which in (1, 0, 1):
        model.which = which
        agrees(model)


@pytest.mark.parametrize("place", [True, False], ids=["in place", "replaced"])
def test_a_constant_that_no_key_has(tapes, place):
    model = Masked()
    warmed(model)
    assert replays(tapes), recorded(model)
    if place:
        model.mask.fill_(2.0)
    else:
        model.mask = torch.full((5,), 2.0, dtype=torch.float64)
    agrees(model)


@pytest.mark.parametrize("output", ["full", "trace"])
def test_weights_and_samples_change(tapes, output):
    """One recording serves all of them; none of its replays is thrown away. Fails where one is not of what they hold now."""
    model = small()
    warmed(model, output=output)
    (asked,) = recording._ASKED[model].values()
    before, changes = replays(tapes), asked.changes
    for seed in range(3):
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.1)
            model[1].running_var.mul_(1.2)
        agrees(
            model, torch.randn(6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), output=output
        )
    assert (replays(tapes), len(tapes), asked.changes) == (before + 3, 1, changes)


@pytest.mark.parametrize("call", ["twice", "twice-padded"])
def test_an_embedding_that_is_looked_up_twice(tapes, call):
    """Its rows meet by random numbers, which a generator draws: that is not recorded, and said. Fails where it is written down."""
    model, ids = setting(call, 12)
    for _ in range(CALLS):
        assert distance(kt.empirical_ntk(model, ids), truth(call, 12, "full")) < EXACT
    assert replays(tapes) or "random numbers are drawn" in recorded(model)[0]


def test_what_cannot_be_written_down_is_refused():
    """An operator with a generator. Fails where Python is asked to read it back from text."""
    with pytest.raises(RuntimeError, match="given a Generator"):
        OperatorTape().record(lambda: [torch.randn(3, generator=torch.Generator().manual_seed(0))])


class Far(nn.Module):
    """A number of Python's that only samples far from the others meet."""

    def __init__(self):
        super().__init__()
        self.layer, self.slope = nn.Linear(4, 3).double(), 1.0

    def forward(self, x):
        y = self.layer(x).tanh()
        return torch.where(x[:, :1] > 5, self.slope * y, y)


@pytest.mark.parametrize("far", [0, 5])
def test_a_change_that_one_sample_meets(tapes, far):
    """All samples are compared. Fails where a few are."""
    model, x = Far(), X.clone()
    x[far, 0] = 6.0
    warmed(model, x)
    assert replays(tapes), recorded(model)
    model.slope = 2.0
    agrees(model, x)


def test_a_warm_call_does_not_run_the_capture(tapes, monkeypatch):
    """It runs the network once, in an ordinary batch of the few samples that stand for all."""
    model, seen = small(), []
    warmed(model)
    model.register_forward_hook(lambda module, given, made: seen.append(len(given[0])))
    warmed(model)
    seen.clear()
    kt.empirical_ntk(model, X)
    assert seen == [FEW]


class Unseen(nn.Module):
    def forward(self, x):
        return torch.ops.aten.tanh(x)


@pytest.mark.parametrize(("activation", "least"), [(nn.Tanh, 0), (Unseen, 8 * 500 * 40)])
def test_all_that_is_held_is_counted(activation, least):
    """Oracle: the bytes behind all tensors that are there afterwards and were not before.

    Jᵀu, by which all samples are compared where a program says nothing, has as many numbers as there are parameters.
    """
    x = torch.randn(2, 500, dtype=torch.float64)
    for _ in range(2):  # the first fills what is computed once for a size
        model = nn.Sequential(nn.Linear(500, 40), activation(), nn.Linear(40, 3)).double()
        before = behind_all_tensors()
        warmed(model, x)
    new = behind_all_tensors()
    (held,) = recorded(model)
    assert least < sum(new[place] for place in new.keys() - before.keys()) <= int(held.split()[0])


def behind_all_tensors():
    """Address → bytes."""
    gc.collect()
    storages = [one.untyped_storage() for one in gc.get_objects() if type(one) in (Tensor, nn.Parameter)]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


@pytest.mark.parametrize("factor", [0, 10**12])
def test_what_takes_long_to_compare_is_not_recorded(tapes, monkeypatch, factor):
    """Fails where operations alone decide."""
    monkeypatch.setattr(preference, "_COMPARED", factor)
    model = small()
    warmed(model)
    assert bool(recorded(model)) == bool(tapes) == (factor == 0)


def test_what_is_kept_or_large_is_planned_for_a_processor(monkeypatch):
    monkeypatch.setattr(sizes, "SMALL", 10)
    assert kt.ntk_plan(small(), X).notes == ()
    assert Machine.of(torch.device("cpu")).small.counts_launches
