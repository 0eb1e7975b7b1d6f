"""A CUDA graph of a kernel is replayed while it is the kernel, beside training, and for nothing else.

Oracles: the double loop over plain autograd on the CPU in float64; of a model that has changed its plain Jacobian now; of
training the same training without a kernel.
"""

import gc

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, TensorDataset

import kerneltrack as kt
from kerneltrack.ntk.methods import recorded
from tests.gpu.moved import inputs_on, model_on
from tests.gpu.test_exactness import rounding
from tests.ntk.exact_kernels import OUTPUTS, exact
from tests.ntk.oracles import distance
from tests.ntk.problems import PROBLEMS
from tests.ntk.test_kept_plans import MODELS
from tests.ntk.test_recording import CALLS, CHANGES, PLAIN, Masked, X, agrees, small, warmed

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore:LSTM with projections")

#: What is perhaps not recorded on a device: torch's formula for orthogonal weights copies from the host there, and where the plain
#: Jacobian is the faster way depends on the device.
PLAIN_THERE = PLAIN | {"orthogonal", "einsum-diagonal"}


@pytest.fixture(autouse=True)
def only_there(device):
    if device.type != "cuda":
        pytest.skip("no CUDA graph on a CPU; tests/ntk/test_recording.py replays operators there")


def is_recorded(model):
    return any("bytes" in one for one in recorded(model))


@pytest.mark.parametrize(("number", "name"), list(enumerate(PROBLEMS)), ids=PROBLEMS)
def test_every_model(device, number, name):
    problem, output = PROBLEMS[name], list(OUTPUTS)[number % len(OUTPUTS)]
    square = number // len(OUTPUTS) % 2 == 0
    model, (x1, x2) = model_on(device, problem.model()), (inputs_on(device, x) for x in problem.split())
    options = {"output": OUTPUTS[output], "forward": problem.forward}
    others = [tree_map(lambda value: value.flip(0) if isinstance(value, Tensor) else value, x) for x in (x1, x2)]
    for own in (*[others] * CALLS, (x1, x2), (x1, x2)):
        kernel = kt.empirical_ntk(model, own[0], None if square else own[1], **options)
    assert distance(kernel.cpu(), exact(name, output, square)) < rounding(name, device)
    assert is_recorded(model) or name in PLAIN_THERE, recorded(model)


@pytest.mark.parametrize("name", MODELS)
def test_a_decision_of_the_forward_pass_changes(device, name):
    model, x = MODELS[name]().to(device), X.to(device)
    warmed(model, x)
    assert is_recorded(model), recorded(model)
    for which in (1, 1, 0, 0, 1, 0):
        model.which = which
        agrees(model, x)


@pytest.mark.parametrize("change", [c for c in CHANGES if not c.startswith(("new parameter", "new buffer"))])
def test_a_change_from_outside(device, change):
    model, x = small().to(device), X.to(device)
    warmed(model, x)
    assert is_recorded(model), recorded(model)
    CHANGES[change](model)
    for _ in range(CALLS + 1):
        agrees(model, x)


def test_a_constant_that_is_replaced_stays_readable(device):
    """Its memory would be given back to the driver, and a replay would read there."""
    model, x = model_on(device, Masked()), X.to(device)
    warmed(model, x)
    assert is_recorded(model), recorded(model)
    model.mask = model.mask * 2
    gc.collect()
    torch.cuda.empty_cache()
    agrees(model, x)


def trained(device, between):
    """Batches from pinned memory that other threads fill, dropout, momentum; ``between`` is called behind every step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    data = TensorDataset(torch.randn(256, 4), torch.randn(256, 3))
    for x, y in DataLoader(data, batch_size=16, shuffle=True, pin_memory=True, num_workers=2):
        loss = (model(x.to(device, non_blocking=True)) - y.to(device, non_blocking=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        between(model)
    return [p.detach().clone() for p in model.parameters()], torch.cuda.get_rng_state(device)


def test_training_is_the_same_with_replays_in_it(device):
    probe, seen = torch.randn(32, 4, generator=torch.Generator().manual_seed(3)).to(device), []

    def kernel(model):
        model.eval()
        found = kt.empirical_ntk(model, probe)
        plain = kt.empirical_ntk(model, probe, method="jacobian")
        seen.append(float((found - plain).abs().max() / plain.abs().max()))
        seen.append(is_recorded(model))
        model.train()

    with_kernels, without = trained(device, kernel), trained(device, lambda model: None)
    assert seen[-1], "recorded"
    assert max(seen[::2]) < 1e-5
    assert torch.equal(with_kernels[1], without[1])
    for a, b in zip(with_kernels[0], without[0], strict=True):
        assert torch.equal(a, b)


def test_memory_is_given_back_with_the_model(device):
    x = torch.randn(64, 256, device=device)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 10)).to(device)
    warmed(model, x)
    assert is_recorded(model)
    del model
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved(device) - before <= 2**21


def test_another_stream_has_its_own(device):
    model, x = small().to(device), X.to(device)
    warmed(model, x)
    with torch.cuda.stream(torch.cuda.Stream(device)):
        for _ in range(CALLS + 1):
            agrees(model, x)
    torch.cuda.synchronize(device)
    agrees(model, x)
