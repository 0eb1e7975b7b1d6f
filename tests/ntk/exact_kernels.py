"""The exact kernels of the problem table, computed once per problem, and the calls compared with them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

import kerneltrack as kt
from kerneltrack.errors import MemoryBudgetError
from tests.ntk.oracles import Array, Jacobian, contract, jacobian, rows_of
from tests.ntk.problems import COLUMNS, PROBLEMS, ROWS, samples


def readout(outputs: Tensor) -> Tensor:
    """A callable output g: (O,) → (2,), neither linear nor symmetric."""
    return torch.stack([outputs.sum().tanh(), (outputs * outputs).sum()])


#: What is passed as ``output=`` under each name.
OUTPUTS: dict[str, Any] = {"full": "full", "diagonal": "diagonal", "trace": "trace", "sum": "sum", "callable": readout}


@functools.cache
def rows(name: str, of: str = "outputs") -> Jacobian:
    """The float64 Jacobian of all samples of a problem, by the double loop over plain autograd."""
    problem = PROBLEMS[name]
    return jacobian(problem.model(), problem.inputs(), problem.forward, readout if of == "callable" else None)


def exact(name: str, output: str = "full", square: bool = True) -> Array:
    """The kernel of a problem's rows with themselves, or with its columns."""
    jacobians = rows(name, "callable" if output == "callable" else "outputs")
    left = rows_of(jacobians, ROWS)
    right = left if square else rows_of(jacobians, COLUMNS)
    return contract(left, right, "full" if output == "callable" else output)


def metrics(name: str) -> dict[str, tuple[Any, dict[str, Any]]]:
    """A number, one number per parameter, and one per entry, with their NumPy twins."""
    model = PROBLEMS[name].model()
    generator = torch.Generator().manual_seed(5)
    trainable = {key: p for key, p in model.named_parameters() if p.requires_grad}
    number = {key: 0.5 + i for i, key in enumerate(trainable)}
    entries = {key: torch.rand(p.shape, generator=generator, dtype=torch.float64) + 0.1 for key, p in trainable.items()}
    return {
        "scalar": (0.25, dict.fromkeys(trainable, 0.25)),
        "parameter": (number, number),
        "entry": (entries, {key: t.numpy() for key, t in entries.items()}),
    }


def tightest(model: torch.nn.Module, x1: Any, x2: Any = None, **options: Any) -> int:
    """The smallest memory budget that the engine itself says can work."""
    try:
        kt.empirical_ntk(model, x1, x2, memory_budget=1, **options)
    except MemoryBudgetError as error:
        return error.required_bytes
    raise AssertionError("a budget of one byte was accepted")


def measured(
    name: str, *, square: bool = True, tight: bool = False, precision: torch.dtype = torch.float64, **options: Any
) -> Any:
    """``kt.empirical_ntk`` on a problem whose model and inputs have this precision."""
    problem = PROBLEMS[name]
    model, inputs = problem.model(precision), problem.inputs(precision)
    x1, x2 = samples(inputs, ROWS), None if square else samples(inputs, COLUMNS)
    options.setdefault("forward", problem.forward)
    if tight:
        options["memory_budget"] = tightest(model, x1, x2, **options)
    return kt.empirical_ntk(model, x1, x2, **options)


def matrix(kernel: Array, output: str = "full") -> Array:
    """A kernel as a matrix, rows ordered (n, o); block-diagonal where only equal outputs meet."""
    if output in ("trace", "sum"):
        return kernel
    if output == "diagonal":
        kernel = kernel[..., None] * np.eye(kernel.shape[-1])
    n, m, o, p = kernel.shape
    return kernel.transpose(0, 2, 1, 3).reshape(n * o, m * p)
