"""Backward passes one output at a time or several at once: the same gradients, whichever the sizes ask for.

Oracle: the double loop's kernel. Problems are so small that passes are batched everywhere else.
"""

import pytest
import torch
from oracles import EXACT, distance
from problems import PROBLEMS
from truth import exact, measured

from kerneltrack.ntk import gradients

NAMES = ("mlp", "lenet-inplace", "resnet-batch-norm", "encoder", "gpt-tied", "embedding-reused", "inplace-everywhere")


@pytest.mark.parametrize("rows", [0, 8, 10**9])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_together_or_one_by_one(monkeypatch, name, rows):
    monkeypatch.setattr(gradients, "ENOUGH_ROWS", rows)
    assert distance(measured(name, method="structured"), exact(name)) < EXACT


def test_an_operation_without_a_batched_backward_goes_one_by_one(monkeypatch):
    """The refusal must leave the graph: the loop behind it needs it."""
    asked = []
    real = torch.autograd.grad

    def refusing(*args, is_grads_batched=False, **options):
        asked.append(is_grads_batched)
        if is_grads_batched:
            raise RuntimeError("Batching rule not implemented")
        return real(*args, **options)

    monkeypatch.setattr(gradients.torch.autograd, "grad", refusing)
    kernel = measured("mlp", method="structured")
    assert distance(kernel, exact("mlp")) < EXACT
    outputs = PROBLEMS["mlp"].model()(PROBLEMS["mlp"].inputs()).shape[1]
    assert asked.count(True) == 1  # not asked again for this block
    assert asked.count(False) >= outputs
