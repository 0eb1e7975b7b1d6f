"""What was recorded is replayed while it is the kernel, and for nothing else.

Oracles: the double loop over plain autograd in float64, and for a model that has changed its plain Jacobian now. The CPU has
a tape that runs operators again without Python (tests/ntk/tape.py), so what only a CUDA graph would not notice shows here.
"""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import kerneltrack as kt
from kerneltrack.errors import UnsupportedModelError
from kerneltrack.ntk.machine import Machine, use
from kerneltrack.ntk.methods import recorded, recording
from tests.ntk.exact_kernels import OUTPUTS, exact
from tests.ntk.oracles import EXACT, distance
from tests.ntk.problems import PROBLEMS
from tests.ntk.tape import OperatorTape
from tests.ntk.test_kept_plans import MODELS, Switched
from tests.tiers import one_in

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore:LSTM with projections")

MACHINE = Machine.accelerator(memory=80e9)
X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
#: A plan, what is compared once for it, a call that is watched, and one that is recorded.
CALLS = 4
#: Models of which the engine asks a value (first two rows), or keeps no plan.
PLAIN = {
    *("embedding-bag-max", "embedding-bag-mean", "embedding-bag-sum", "embedding-bag-weighted", "gpt-tied"),
    *("checkpointing", "control-flow", "custom-function-of-weight", "custom-function-old", "data-dependent-depth"),
    *("fourier", "keeps-activations", "rnn-packed"),
}


@pytest.fixture
def tapes(monkeypatch):
    """Those that were asked for."""
    made = []
    monkeypatch.setattr(recording, "tape_for", lambda device: made.append(OperatorTape()) or made[-1])
    with use(MACHINE):
        yield made


def replays(tapes):
    return sum(tape.replays for tape in tapes)


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double().eval()


def warmed(model, x=X, **options):
    for _ in range(CALLS):
        kt.empirical_ntk(model, x, **options)


def agrees(model, x=X, **options):
    found = kt.empirical_ntk(model, x, **options)
    expected = kt.empirical_ntk(model, x, **{**options, "method": "jacobian"})
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


#: Every third problem; the next ones meet the same machine without a tape in test_accelerator.py.
EVERY_THIRD = one_in(3, (pytest.param(*case, id=case[1]) for case in enumerate(PROBLEMS)))


@pytest.mark.parametrize(("number", "name"), EVERY_THIRD)
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
    assert (replays(tapes) > 0) == (name not in PLAIN), recorded(model)


def test_weights_and_samples_change(tapes):
    model = small()
    warmed(model)
    before = replays(tapes)
    for seed in range(4):
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.1)
            model[1].running_var.mul_(1.2)
        agrees(model, torch.randn(6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    assert replays(tapes) == before + 4


@pytest.mark.parametrize("name", MODELS)
def test_a_decision_of_the_forward_pass_changes(tapes, name):
    """It stands in no key of a plan, and in no operator of the tape."""
    model = MODELS[name]()
    warmed(model)
    assert replays(tapes), recorded(model)
    for which in (1, 1, 0, 0, 1, 0):
        model.which = which
        agrees(model)


def new_storage(model):
    model[0].weight.data = model[0].weight.detach() * 2


def twice(model):
    model.load_state_dict({k: v * 2 if v.is_floating_point() else v for k, v in model.state_dict().items()})


def hook(model):
    model[0].register_forward_hook(lambda module, given, made: 2 * made)


CHANGES = {
    "new storage": new_storage,
    "state dict": twice,
    "frozen": lambda m: m[0].weight.requires_grad_(False),
    "submodule": lambda m: m.__setitem__(2, nn.Sigmoid()),
    "number": lambda m: setattr(m[1], "eps", 0.5),
    "hook": hook,
    "new parameter": lambda m: setattr(m[0], "weight", nn.Parameter(torch.ones(6, 4, dtype=torch.float64))),
    "new buffer": lambda m: setattr(m[1], "running_mean", torch.ones(6, dtype=torch.float64)),
    "tied": lambda m: setattr(m[3], "bias", nn.Parameter(m[3].bias.detach() + 1)),
}


@pytest.mark.parametrize("output", ["full", "trace"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_from_outside(tapes, change, output):
    model = small()
    warmed(model, output=output)
    assert replays(tapes), recorded(model)
    CHANGES[change](model)
    for _ in range(CALLS + 1):
        agrees(model, output=output)


class Masked(nn.Module):
    """A constant that is no buffer."""

    def __init__(self):
        super().__init__()
        self.mask, self.layer = torch.ones(5, dtype=torch.float64), nn.Linear(4, 5).double()

    def forward(self, x):
        return self.layer(x).tanh() * self.mask


@pytest.mark.parametrize("place", [True, False], ids=["in place", "replaced"])
def test_a_constant_that_no_key_has(tapes, place):
    model = Masked()
    warmed(model)
    assert replays(tapes), recorded(model)
    for size in (2.0, 3.0):
        if place:
            model.mask.fill_(size)
        else:
            model.mask = torch.full((5,), size, dtype=torch.float64)
            gc.collect()
        agrees(model)


def test_what_it_reads_stays_alive(tapes):
    """The recording itself holds the constant's memory, of which a graph knows the address only. Fails where it forgets it."""
    model = Masked()
    warmed(model)
    address = model.mask.data_ptr()
    (asked,) = recording._ASKED[model].values()
    assert address in [held.data_ptr() for held in asked.recording.read]


def test_parameters_elsewhere_are_not_read_where_they_were(tapes):
    """Nothing is replayed, not even to be found wrong. Fails where addresses are not compared."""
    model = small()
    warmed(model)
    before = replays(tapes)
    new_storage(model)
    agrees(model)
    assert before == replays(tapes) > 0


def test_a_switch_that_chooses_kernels_has_a_recording_of_its_own(tapes):
    model = small()
    warmed(model)
    torch.use_deterministic_algorithms(True)
    try:
        warmed(model)
        assert [tape.replays > 0 for tape in tapes] == [True, True]
    finally:
        torch.use_deterministic_algorithms(False)


def test_options_are_apart(tapes):
    model = small()
    asked = [{}, {"output": "trace"}, {"by_layer": True}, {"dtype": torch.float32}, {"params": ["3.weight"]}]
    for _ in range(CALLS + 1):
        for options in asked:
            kernels = kt.empirical_ntk(model, X, **options)
            plain = kt.empirical_ntk(model, X, method="jacobian", **options)
            for found, expected in zip(
                *((k.values() if isinstance(k, dict) else [k]) for k in (kernels, plain)), strict=True
            ):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert len(tapes) == len(asked)


class Asks(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 3).double(), nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x):
        return self.layer(x).tanh() * (1.0 if float(self.scale.detach()) > 0 else 2.0) + self.scale


def test_a_host_that_asks_is_not_recorded(tapes):
    model = Asks()
    warmed(model)
    with torch.no_grad():
        model.scale.neg_()
    for _ in range(4):
        agrees(model)
    assert not tapes
    assert ["value" in reason for reason in recorded(model)] == [True]


def test_what_cannot_be_recorded_is_computed(tapes, monkeypatch):
    def refuse(self, work):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(OperatorTape, "record", refuse)
    model = small()
    for _ in range(CALLS + 2):
        agrees(model)
    assert len(tapes) == 1
    assert recorded(model) == ["operation not permitted when stream is capturing"]


def test_memory_is_bounded_and_given_back(tapes, monkeypatch):
    """Each recording says that it holds a third of what all may hold."""
    sizes = iter(range(0, 10**12, MACHINE.recorded_bytes // 3))
    monkeypatch.setattr(recording, "reserved_bytes", lambda device: next(sizes))
    models = [small() for _ in range(5)]
    for model in models:
        warmed(model)
    assert [bool(recorded(model)) for model in models] == [False, False, True, True, True]
    for model in models:
        agrees(model)


def test_nothing_is_recorded_where_no_memory_is_for_it(tapes):
    with use(replace(MACHINE, recorded_bytes=0)):
        model = small()
        warmed(model)
    assert not tapes


def test_what_would_hold_too_much_is_not_recorded(tapes):
    """It is known before anything is taken."""
    with use(replace(MACHINE, recorded_bytes=4000)):
        model = small()
        warmed(model)
        agrees(model)
    assert not tapes
    assert ["would hold" in reason for reason in recorded(model)] == [True]


def test_a_model_is_let_go(tapes):
    model = small()
    warmed(model)
    assert recorded(model)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_a_network_that_never_stays_is_not_recorded_for_ever(tapes):
    model = MODELS["another scale"]()
    for call in range(40):
        model.which = call // 5 % 2
        agrees(model)
    assert recorded(model) == ["the network changes between calls"]


def test_generators_are_left_alone(tapes):
    model = small()
    warmed(model)
    state = torch.get_rng_state()
    kt.empirical_ntk(model, X)
    assert torch.equal(state, torch.get_rng_state())


def noisy(m, x):
    return m.layer(x) + (m.layer.bias * torch.randn_like(x[:, :3]) if m.which else 0.0)


@pytest.mark.parametrize("calls", [2, CALLS])
def test_a_model_that_becomes_random_is_refused(tapes, calls):
    """By a kept plan and by a replay; generators stay as they were."""
    model = Switched(noisy, layer=nn.Linear(4, 3))
    for _ in range(calls):
        kt.empirical_ntk(model, X)
    model.which, state = 1, torch.get_rng_state()
    for _ in range(2):
        with pytest.raises(UnsupportedModelError, match="random"):
            kt.empirical_ntk(model, X)
        assert torch.equal(state, torch.get_rng_state())
    model.which = 0
    agrees(model)
