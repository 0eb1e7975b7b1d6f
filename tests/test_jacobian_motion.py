"""How far the Jacobian went, in float32. Oracle: both Jacobians in float64, by torch.func, and their singular values."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.references import References
from kerneltrack.ntk import NetworkState
from kerneltrack.observables import select
from kerneltrack.probe import Probe
from kerneltrack.training.update_rule import UpdateRule


def jacobian(net, x, *, by_output):
    """(NO, P), or (N, OP)."""
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    rows = torch.func.jacrev(lambda p: torch.func.functional_call(net, p, (x,)))(parameters)
    matrix = torch.cat([j.flatten(2) for j in rows.values()], 2)
    return (matrix.flatten(1) if by_output else matrix.flatten(0, 1)).detach().numpy()


def measured(size, output, x):
    """(values and reasons after a step of that size, ‖J_t − J_0‖₂, ‖J_0‖₂ and λ_min(Θ_0) in float64)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 2)).eval()
    rule = UpdateRule.of([torch.optim.SGD(net.parameters(), lr=0.1)], {})
    names = ("jacobian_change", "jacobian_stability")
    instrument = Instrument(probe=Probe(x, x[:, :2]), output=output, observables=select(names))
    start, before = NetworkState.of(net), copy.deepcopy(net).double()
    first = instrument.measure(net, rule, step=0, references=References(start=start))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(size * torch.randn_like(p))
    found = instrument.measure(net, rule, step=1, references=References(start=start, initial=first.state))
    by_output = output == "trace"
    matrices = [jacobian(n, x.double(), by_output=by_output) for n in (copy.deepcopy(net).double(), before)]
    singular = np.linalg.svd(matrices[1], compute_uv=False)
    assert first.values["jacobian_change"] == 0
    return found, np.linalg.norm(matrices[0] - matrices[1], 2), singular


@pytest.mark.parametrize("output", ["full", "trace"])
@pytest.mark.parametrize("exponent", [1, 2, 3, 4, 5, 6, 7])
def test_a_change_is_told_down_to_the_rounding_of_products(output, exponent):
    """From Gram matrices alone it stops at 5e-4 ‖J‖, 3√ε being 1e-3: two decades more are told, each to a tenth."""
    x = torch.randn(8, 3)
    found, change, singular = measured(10.0**-exponent, output, x)
    floor = 20 * 2.0**-23 * singular[0]
    told = change > floor
    assert told == (exponent < 7)
    if told:
        assert found.values["jacobian_change"] == pytest.approx(change, rel=0.1)
        if output == "full":
            assert found.values["jacobian_stability"] == pytest.approx(3 * change / singular[-1], rel=0.12)
    else:
        assert math.isnan(found.values["jacobian_change"])
        assert found.reasons["jacobian_change"] == "the change of the Jacobian is rounding"


def test_weights_that_have_not_moved_have_not_changed_the_jacobian():
    found, change, _ = measured(0.0, "full", torch.randn(8, 3))
    assert found.values["jacobian_change"] == change == 0
