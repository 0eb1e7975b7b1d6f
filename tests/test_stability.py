"""ρ where a schedule ends: no learning rate, no curvature. (Nonzero rates are tested through the tracker.)"""

import torch

from kerneltrack.loss import ProbeLoss
from kerneltrack.ntk.network import Network
from kerneltrack.stability import stability_ratio
from kerneltrack.update_rule import UpdateRule


def test_a_learning_rate_of_zero_has_ratio_zero():
    """Oracle: P = 0, so the operator is zero. Lanczos used to refuse a start that it maps to zero."""
    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(3, 4), torch.randn(5, 3), torch.eye(4)[[0, 1, 2, 3, 0]]
    network = Network(model)
    names = {id(p): name for name, p in model.named_parameters()}
    ratios = []
    for rate in (0.0, 0.1):
        rule = UpdateRule.of([torch.optim.SGD(model.parameters(), lr=rate)], names)
        ratios.append(stability_ratio(network, x, network.outputs(x), y, ProbeLoss.of("cross_entropy"), rule)[0])
    assert ratios[0] == 0.0
    assert ratios[1] > 0
