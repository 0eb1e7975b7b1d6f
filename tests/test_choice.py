"""Which kernel a run measures where it leaves that open. Oracle: the rules as the design has them, written out."""

import pytest
import torch
from torch import nn

from kerneltrack.errors import TrackerError
from kerneltrack.measurement import choose
from kerneltrack.training import ProbeLoss

CROSS, SQUARES = ProbeLoss.of("cross_entropy"), ProbeLoss.of("half_mse")
OWN = ProbeLoss.of(nn.functional.cross_entropy)


@pytest.mark.parametrize(
    ("points", "outputs", "found"),
    [
        (256, 1, "full"),
        (100_000, 1, "full"),  # the trace of one output is the full kernel
        (256, 4, "full"),
        (1024, 1, "full"),
        (512, 2, "full"),
        (513, 2, "trace"),
        (256, 10, "trace"),
        (1, 1024, "full"),
        (2, 1000, "trace"),
    ],
)
def test_auto_is_full_up_to_1024_rows(points, outputs, found):
    choice = choose("auto", "raw", SQUARES, points=points, outputs=outputs)
    assert (choice.output, choice.gauge) == (found, "raw")
    assert f'output="{found}" ({points} points × {outputs} output' in choice.reason


@pytest.mark.parametrize("output", ["full", "diagonal", "trace", "sum", torch.sin])
def test_what_is_asked_for_is_measured_and_nothing_is_said(output):
    choice = choose(output, "raw", SQUARES, points=9, outputs=3)
    assert (choice.output, choice.gauge, choice.reason) == (output, "raw", "")


@pytest.mark.parametrize(
    ("loss", "outputs", "output", "gauge", "found"),
    [
        (CROSS, 2, "full", "auto", "softmax"),
        (CROSS, 1, "full", "auto", "raw"),  # a single logit has no gauge
        (CROSS, 2, torch.sin, "auto", "raw"),
        (CROSS, 2, "trace", "raw", "raw"),
        (OWN, 2, "full", "auto", "raw"),
        (OWN, 2, "full", "softmax", "softmax"),
        (SQUARES, 2, "full", "auto", "raw"),
        (None, 2, "full", "auto", "raw"),
        (None, 2, "full", "softmax", "softmax"),
    ],
)
def test_auto_takes_off_what_a_cross_entropy_does_not_see(loss, outputs, output, gauge, found):
    choice = choose(output, gauge, loss, points=9, outputs=outputs)
    assert choice.gauge == found
    assert bool(choice.reason) == (gauge == "auto" and found == "softmax")


@pytest.mark.parametrize(
    ("loss", "outputs", "output", "gauge", "words"),
    [
        (CROSS, 3, "sum", "auto", r'output="sum" under a softmax loss.*"trace"'),
        (CROSS, 3, "sum", "raw", r'output="sum" under a softmax loss'),
        (None, 3, "sum", "softmax", r'output="sum" under a softmax loss'),
        (SQUARES, 3, "full", "softmax", r"gauge=\"softmax\" with loss='half_mse'"),
        (CROSS, 1, "full", "softmax", 'gauge="softmax" of one output'),
        (CROSS, 3, torch.sin, "softmax", "with a callable output="),
    ],
)
def test_what_says_nothing_is_refused_with_what_does(loss, outputs, output, gauge, words):
    with pytest.raises(TrackerError, match=words) as caught:
        choose(output, gauge, loss, points=9, outputs=outputs)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("loss", "ignores"),
    [
        (nn.functional.cross_entropy, True),
        (lambda f, y: nn.functional.cross_entropy(f, y, label_smoothing=0.1), True),
        (lambda f, y: torch.relu(1 + f - (f * y).sum(1, keepdim=True)).sum(1).mean(), True),  # a hinge: S = 0 too
        (nn.functional.mse_loss, False),
        (nn.functional.l1_loss, False),  # S = 0 everywhere, and m is not
        (nn.functional.binary_cross_entropy_with_logits, False),
        (lambda f, y: nn.functional.cross_entropy(f, y) + 1e-3 * f.square().mean(), False),
    ],
)
def test_a_loss_of_ones_own_is_looked_at(loss, ignores):
    """Oracle: the loss at outputs to each row of which one number is added."""
    generator = torch.Generator().manual_seed(0)
    f, y = (
        torch.randn(6, 4, generator=generator, dtype=torch.float64),
        torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 0, 1]],
    )
    shift = torch.randn(6, 1, generator=generator, dtype=torch.float64)
    assert torch.isclose(loss(f, y), loss(f + shift, y), rtol=1e-9) == ignores
    assert ProbeLoss.of(loss).ignores_shift(f, y) == ignores
    assert not ProbeLoss.of(loss).ignores_shift(f[:, :1], y[:, :1])
