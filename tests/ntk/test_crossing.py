"""J_t J_0ᵀ. Oracle: the double loop's float64 Jacobians of the two states, contracted with each other."""

import pytest
import torch

from kerneltrack.errors import AuditError
from kerneltrack.ntk import NetworkState, cross_time_ntk
from kerneltrack.ntk.contraction import gradient, token
from kerneltrack.ntk.methods import Execution
from tests.ntk.exact_kernels import OUTPUTS, readout, tightest
from tests.ntk.oracles import EXACT, contract, distance, jacobian
from tests.ntk.problems import PROBLEMS, ROWS, samples
from tests.tiers import one_in

STRUCTURED = ("mlp", "lenet-inplace", "resnet-batch-norm", "encoder", "gpt-tied", "embedding-reused")


def moved(name, output="full"):
    """A problem's model after its parameters and running statistics moved, the state before, the inputs, and the kernel
    between the two. Fails where the earlier state is taken with today's statistics.
    """
    problem = PROBLEMS[name]
    model, inputs, read = problem.model(), samples(problem.inputs(), ROWS), readout if output == "callable" else None
    before, anchor = jacobian(model, inputs, problem.forward, read), NetworkState.of(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.mul_(
                1 + 0.3 * torch.rand(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
            )
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(0.5 * torch.rand(buffer.shape, generator=generator, dtype=torch.float64).to(buffer))
    now = jacobian(model, inputs, problem.forward, read)
    return model, anchor, inputs, problem.forward, contract(now, before, "full" if output == "callable" else output)


def crossed(model, anchor, inputs, forward, **options):
    return cross_time_ntk(model, inputs, anchor, forward=forward, **options)


@pytest.fixture
def runs(monkeypatch):
    """How often the structure ran with another state on its second side."""
    found, add_to = [], Execution.add_to

    def counting(self, *args, against=None):
        found.append(against is not None)
        add_to(self, *args, against=against)

    monkeypatch.setattr(Execution, "add_to", counting)
    return found


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", one_in(3, PROBLEMS, first=1))
def test_every_model(name, runs):
    *setting, expected = moved(name)
    assert distance(crossed(*setting), expected) < EXACT
    if name in STRUCTURED:
        assert runs == [True]


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("name", ["mlp", "lenet-inplace"])
def test_every_reduction_also_in_tiles(name, output, runs):
    *setting, expected = moved(name, output)
    for budget in (None, "60KiB"):
        found = crossed(*setting, output=OUTPUTS[output], memory_budget=budget)
        assert distance(found, expected) < EXACT
    assert runs[0]


@pytest.mark.parametrize("name", ["mlp", "lenet-inplace"])
def test_the_structure_is_taken_where_its_result_has_room_too(name, runs):
    """With one byte less than a refusal says that two sets of samples need, Jacobians do it, and as exactly.

    Oracle: structured runs, counted; the double loop for either.

    Fails where the check leaves the result out: then the structure would run beyond its budget.
    """
    model, anchor, inputs, forward, expected = moved(name)
    least = tightest(model, inputs, inputs, forward=forward)
    for budget in (least, least - 1):
        found = crossed(model, anchor, inputs, forward, memory_budget=budget)
        assert distance(found, expected) < EXACT
    assert runs == [True]


@pytest.mark.audit
def test_a_wrong_contraction_does_not_pass_its_audit(monkeypatch):
    """The audit is J_t (J_0ᵀ v) by passes, which know nothing of contractions."""
    *setting, _ = moved("mlp")
    real = token.TokenLayer.add
    monkeypatch.setattr(token.TokenLayer, "add", lambda self, tile, *a: (real(self, tile, *a), tile.mul_(1.5))[0])
    monkeypatch.setattr(gradient, "add_gram", lambda *a, **options: None)
    with pytest.raises(AuditError, match="disagrees with plain autodiff"):
        crossed(*setting)
