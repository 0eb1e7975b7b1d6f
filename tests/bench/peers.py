"""How each package computes each workload, as its documentation has it; imported only by its own process.

A peer offers methods; a method makes a function without arguments that returns the finished kernel in the
package's own layout, and a function that brings it to (N, O, N, O), (N, N) or (N, O) for the check, which is
not timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

FULL = ("M1", "M2", "C1", "C2", "T1", "L1", "D1", "tiny-mlp")
TRACE = ("C1t", "tiny-trace")
KERNELS = (*FULL, *TRACE)
PRETRAINED = ("H1", "H2", "H3")
PRODUCTS = ("V0", "tiny-product")


@dataclass(frozen=True)
class Job:
    """One method on one workload, ready to run; ``prepare`` (compilation) is timed apart."""

    run: Callable[[], Any]
    canonical: Callable[[Any], np.ndarray]
    prepare: Callable[[], None] | None = None
    note: str = ""


class Unsupported(Exception):
    """The peer says that it cannot do this workload."""


#: peer -> distribution that must be installed, its methods, and the workloads that each is run on.
PEERS: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "kerneltrack": ("kerneltrack", {"auto": (*KERNELS, *PRETRAINED), "product": PRODUCTS}),
    "torch_func": (
        "torch",
        {
            "jacobian": (*KERNELS, *PRETRAINED),
            "jacobian_blocks": (*KERNELS, *PRETRAINED),
            "product": PRODUCTS,
        },
    ),
    "nngeometry": ("nngeometry", {"gram": (*KERNELS,)}),
    "neural_tangents": (
        "neural-tangents",
        {
            "structured": ("M1", "M2", "C1", "C2", "C1t", "T1"),
            "contraction": ("C1", "C1t", "T1"),
            "product": PRODUCTS[:1],
        },
    ),
    "asdfghjkl": (
        "asdfghjkl",
        {"hadamard": ("M2",), "batch_gradient": ("C1", "M2", "D1"), "product": PRODUCTS},
    ),
    "backpack": ("backpack-for-pytorch", {"batch_gradient": ("M2", "C1", "C1t", "tiny-mlp")}),
    "curvlinops": ("curvlinops-for-pytorch", {"product": PRODUCTS}),
}  # fmt: skip


def make(peer: str, method: str, problem: Any) -> Job:
    """``problem`` has .name, .workload, .model, .x, .v (torch) or, for JAX, .weights and .inputs (NumPy)."""
    return globals()[f"make_{peer}"](method, problem)


def as_numpy(*axes: int) -> Callable[[Any], np.ndarray]:
    """Permute a torch tensor's axes, then leave torch."""
    return lambda kernel: (kernel.permute(*axes) if axes else kernel).detach().cpu().contiguous().numpy()


def shaped(problem: Any) -> Callable[[Any], np.ndarray]:
    n, o, kind = problem.workload.samples, problem.workload.outputs, problem.workload.kind
    shape = {"full": (n, o, n, o), "trace": (n, n), "product": (n, o)}[kind]
    return lambda kernel: kernel.detach().cpu().reshape(shape).numpy()


# ------------------------------------------------------------ this package


def make_kerneltrack(method: str, problem: Any) -> Job:
    import kerneltrack as kt

    model, x, kind = problem.model, problem.x, problem.workload.kind
    if method == "product":
        operator, v = kt.NTKOperator(model, x), problem.v.reshape(-1)
        return Job(lambda: operator.matvec(v), shaped(problem))
    axes = (0, 2, 1, 3) if kind == "full" else ()
    return Job(lambda: kt.empirical_ntk(model, x, output=kind, method=method), as_numpy(*axes))


# ------------------------------------------------------------ torch.func, as in PyTorch's tutorial


def make_torch_func(method: str, problem: Any) -> Job:
    import torch
    from torch.func import functional_call, jacrev, jvp, vjp, vmap

    model, x, kind = problem.model, problem.x, problem.workload.kind
    n, o = problem.workload.samples, problem.workload.outputs
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    if method == "product":

        def product() -> Any:
            pull = vjp(lambda p: functional_call(model, (p, buffers), (x,)), parameters)[1]
            gradient = pull(problem.v)
            return jvp(lambda p: functional_call(model, (p, buffers), (x,)), (parameters,), gradient)[1]

        return Job(torch.no_grad()(product), shaped(problem))

    how = {"mapped": True} if problem.workload.needs == "transformers" else {}

    def one(p: Any, sample: Any) -> Any:
        return functional_call(model, (p, buffers), (sample.unsqueeze(0),), how).squeeze(0)

    def rows(samples: Any, chunk: int | None = None) -> Any:
        found = vmap(jacrev(one), (None, 0), chunk_size=chunk)(parameters, samples)
        return [j.flatten(2) if kind == "full" else j.flatten(1) for j in found.values()]

    def gram(left: Any, right: Any) -> Any:
        return sum(a.flatten(0, -2) @ b.flatten(0, -2).T for a, b in zip(left, right, strict=True))

    if method == "jacobian":

        def contraction() -> Any:
            jacobian = rows(x)
            return gram(jacobian, jacobian)

        return Job(torch.no_grad()(contraction), shaped(problem))

    # The same in blocks of rows that hold 3 GiB, upper triangle only: what a careful user would write.
    size = 4 * sum(p.numel() for p in parameters.values()) * o
    block = max(1, min(n, 3 * 2**30 // size))
    width = o if kind == "full" else 1

    def blocks() -> Any:
        kernel = torch.empty(n * width, n * width, device=x.device)
        for i in range(0, n, block):
            left = rows(x[i : i + block], 16)
            for j in range(i, n, block):
                right = left if i == j else rows(x[j : j + block], 16)
                tile = gram(left, right)
                kernel[i * width : (i + block) * width, j * width : (j + block) * width] = tile
                kernel[j * width : (j + block) * width, i * width : (i + block) * width] = tile.T
        return kernel

    return Job(torch.no_grad()(blocks), shaped(problem), note=f"{-(-n // block)} blocks")


# ------------------------------------------------------------ other torch packages


def make_nngeometry(method: str, problem: Any) -> Job:
    import torch
    from nngeometry.gram import GramMatrix
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(problem.x), batch_size=problem.workload.samples)
    trace = problem.workload.kind == "trace"

    def run() -> Any:
        kernel = GramMatrix(model=problem.model, loader=loader).to_torch()  # (O, N, O, N)
        return torch.einsum("onom->nm", kernel) if trace else kernel

    return Job(run, as_numpy() if trace else as_numpy(1, 0, 3, 2))


def make_asdfghjkl(method: str, problem: Any) -> Job:
    import torch
    from asdl import kernel
    from asdl.gradient import batch_gradient

    model, x = problem.model, problem.x
    n, o = problem.workload.samples, problem.workload.outputs
    if method == "product":
        return Job(lambda: kernel.kernel_vector_product(model, x, problem.v.clone()), shaped(problem))
    if method == "hadamard":  # equal outputs only: the whole kernel where there is one output
        return Job(lambda: kernel.empirical_class_wise_hadamard_ntk(model, x), shaped(problem))

    def run() -> Any:
        rows = []
        for output in range(o):

            def closure(output: int = output) -> Any:
                model.zero_grad()
                y = model(x)
                y[:, output].sum().backward()
                return y

            rows.append(batch_gradient(model, closure).reshape(n, -1))
        jacobian = torch.stack(rows, 1).flatten(0, 1)
        return jacobian @ jacobian.T

    return Job(run, shaped(problem))


def make_backpack(method: str, problem: Any) -> Job:
    import torch
    from backpack import backpack, extend
    from backpack.extensions import BatchGrad

    model, x, kind = extend(problem.model), problem.x, problem.workload.kind
    n, o = problem.workload.samples, problem.workload.outputs
    parameters = list(model.parameters())

    def row(output: int) -> list[Any]:
        model.zero_grad()
        y = model(x)
        with backpack(BatchGrad()):
            y[:, output].sum().backward()
        gradients = [p.grad_batch.flatten(1) for p in parameters]
        for p in parameters:
            del p.grad_batch
        return gradients

    def run() -> Any:
        if kind == "trace":
            return sum(g @ g.T for output in range(o) for g in row(output))
        stacked = [torch.stack(parts, 1).reshape(n * o, -1) for parts in zip(*map(row, range(o)), strict=True)]
        return sum(j @ j.T for j in stacked)

    return Job(run, shaped(problem))


def make_curvlinops(method: str, problem: Any) -> Job:
    import torch
    from curvlinops import JacobianLinearOperator, TransposedJacobianLinearOperator

    model, n, o = problem.model, problem.workload.samples, problem.workload.outputs
    data, v = [(problem.x, torch.zeros(n, o))], problem.v.reshape(-1)
    parameters = dict(model.named_parameters())
    try:
        forward = JacobianLinearOperator(model, parameters, data, check_deterministic=False)
        backward = TransposedJacobianLinearOperator(model, parameters, data, check_deterministic=False)
    except (TypeError, ValueError, AttributeError):  # releases before 3 take a list
        listed = list(parameters.values())
        forward = JacobianLinearOperator(model, listed, data, check_deterministic=False)
        backward = TransposedJacobianLinearOperator(model, listed, data, check_deterministic=False)
    return Job(lambda: forward @ (backward @ v), shaped(problem))


# ------------------------------------------------------------ neural-tangents, on JAX


def make_neural_tangents(method: str, problem: Any) -> Job:
    import jax
    import networks_jax
    from jax.interpreters import ad

    # Release 0.6.5 reads two names where later releases of JAX no longer put them.
    if not hasattr(ad, "source_info_util"):
        from jax._src import source_info_util

        ad.source_info_util = source_info_util
    if not hasattr(ad, "config"):
        ad.config = jax.config
    import neural_tangents as nt

    network, parameters, x = networks_jax.load(problem)
    compiled: dict[str, Any] = {}
    if method == "product":
        v = jax.numpy.asarray(problem.vector)

        def product(p: Any, x: Any, v: Any) -> Any:
            pull = jax.vjp(lambda q: network(q, x), p)[1]
            return jax.jvp(lambda q: network(q, x), (p,), pull(v))[1]

        return Job(
            lambda: compiled["run"](parameters, x, v).block_until_ready(),
            np.asarray,
            lambda: compiled.update(run=jax.jit(product).lower(parameters, x, v).compile()),
            "jax.vjp and jax.jvp, jitted",
        )
    trace = problem.workload.kind == "trace"
    way = {"structured": 3, "contraction": 1}[method]
    kernel = nt.empirical_ntk_fn(network, trace_axes=(1,) if trace else (), vmap_axes=0, implementation=way)

    def prepare() -> None:
        compiled["run"] = jax.jit(lambda x, p: kernel(x, None, p)).lower(x, parameters).compile()

    def canonical(found: Any) -> np.ndarray:
        found = np.asarray(found)
        if trace:  # theirs is the mean over outputs
            return found * np.float32(problem.workload.outputs)
        return found.transpose(0, 2, 1, 3)

    return Job(lambda: compiled["run"](x, parameters).block_until_ready(), canonical, prepare)
