"""Reference methods with plain autodiff: the Jacobian parameter by parameter, and NTK-vector products.

    Θ = Σ_w J_w J_wᵀ,   J_w ∈ R^{NO×p}   (Novak et al. 2022, arXiv 2206.08720, "Jacobian contraction")
    Θ e_(m,p) = J (Jᵀ e_(m,p))            ("NTK-vector products")

They work for every differentiable model and serve the structured method as fallback and as oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from kerneltrack.ntk.capture import first_line
from kerneltrack.ntk.contraction import add_gram, mirror
from kerneltrack.ntk.machine import Machine
from kerneltrack.ntk.network import Inputs, Network, Preconditioner, layer_of
from kerneltrack.ntk.reduction import Kind, gram

#: Copies of a chunk's activations and Jacobian that batched reverse mode holds at its peak.
_WORKING_COPIES = 4


class Jacobian:
    """Rows of J, one parameter at a time, for chunks of samples.

    Batched over samples by ``vmap`` where the model allows it; sample by sample otherwise (recurrent layers,
    data-dependent control flow, autograd functions without a vmap rule); ``by_sample`` then says why.

    A rule of vmap may be wrong without an error, and for some sizes only (that of PReLU's backward pass, torch 2.13, where
    there are as many samples as outputs): of each size of chunk the rows of one sample are compared with its own, in the
    first call.

    Args:
        network: the network.
        metric: P.
        dtype: of the rows; None is each parameter's own.
        note: told f (n, O) and the rows of J, without P, of every chunk that vmap made.
    """

    def __init__(
        self,
        network: Network,
        metric: Preconditioner | None = None,
        dtype: torch.dtype | None = None,
        note: Callable[[Tensor, Mapping[str, Tensor]], None] | None = None,
    ) -> None:
        self.network, self.metric, self.dtype, self.note = network, metric, dtype, note
        self.by_sample: str | None = None

    def rows(self, samples: Inputs, names: Sequence[str], outputs: int, budget: int) -> dict[str, Tensor]:
        """√P-scaled rows of J: name → (n, O, p). ``budget`` bounds the working memory beside the result."""
        values = self.network.parameters
        own = {name: values[name] for name in names}
        result = {
            name: value.new_empty(len(samples), outputs, value.numel(), dtype=self.dtype) for name, value in own.items()
        }
        size = max(1, min(len(samples), budget // _row_bytes(self.network, own.values(), samples, outputs)))
        with self.network.evaluating():
            for place, chunk in samples.chunks(size):
                for name, block in self._chunk(chunk, own, values).items():
                    result[name][place] = block.reshape(len(chunk), outputs, -1)
        return {name: self._scaled(name, block) for name, block in result.items()}

    def _chunk(self, chunk: Inputs, own: dict[str, Tensor], values: dict[str, Tensor]) -> dict[str, Tensor]:
        seen = self.network.sight(chunk)
        self.by_sample = self.by_sample or seen.uncapturable or None
        if own.keys() & set(seen.parameters):
            self.by_sample = self.by_sample or "hooks change gradients"
        if self.by_sample is None:
            try:
                outputs, rows = self._batched(chunk, own, values)
            except (RuntimeError, NotImplementedError, TypeError, ValueError) as refusal:
                self.by_sample = first_line(refusal)
            else:
                known = self.network.known(chunk).mapped
                size = len(chunk), next(iter(rows.values())).shape[1], tuple(own)
                if size not in known:
                    known[size] = self._are_of_the_sample(rows, chunk)
                if known[size]:
                    if self.note is not None:
                        self.note(outputs, rows)
                    return rows
                self.by_sample = f"vmap's derivative of {len(chunk)} samples is not that of one"
        return self._one_by_one(chunk, own, values)

    def _are_of_the_sample(self, rows: Mapping[str, Tensor], chunk: Inputs) -> bool:
        """Whether uᵀJ of the last sample is what one ordinary backward pass gives; a wrong rule is wrong by its own size."""
        first = next(iter(rows.values()))
        u = torch.randn(1, first.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(first)
        alone = self.network.vjp(chunk.rows(len(chunk) - 1, len(chunk)), u)
        batched = {name: torch.tensordot(u[0], block[-1], 1) for name, block in rows.items()}
        gap = torch.stack([(part - alone[name]).square().sum() for name, part in batched.items()]).sum()
        size = torch.stack([alone[name].square().sum() for name in batched]).sum()
        return bool(gap <= torch.finfo(first.dtype).eps * size)

    def _batched(
        self, chunk: Inputs, own: dict[str, Tensor], values: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """f (n, O) and the rows of J, each sample alone."""

        def single(parameters: dict[str, Tensor], *tensors: Tensor) -> tuple[Tensor, Tensor]:
            one = chunk.replace(tuple(t.unsqueeze(0) for t in tensors))
            outputs = self.network.evaluate({**values, **parameters}, one)[0]
            return outputs, outputs

        outputs: Tensor
        rows: dict[str, Tensor]
        with torch.no_grad():
            rows, outputs = vmap(jacrev(single, has_aux=True), (None, *(0 for _ in chunk.tensors)))(own, *chunk.tensors)
        return outputs, rows

    def _one_by_one(self, chunk: Inputs, own: dict[str, Tensor], values: dict[str, Tensor]) -> dict[str, Tensor]:
        leaves = self.network.leaves(own)
        with torch.enable_grad():
            rows = [
                self.network.applied({**values, **leaves}, sample, partial(_rows_of_one, leaves))
                for _, sample in chunk.chunks(1)
            ]
        return {name: torch.cat([row[name] for row in rows]) for name in own}

    def _scaled(self, name: str, rows: Tensor) -> Tensor:
        weight = 1.0 if self.metric is None else self.metric[name]
        if isinstance(weight, Tensor):
            return rows * weight.flatten().sqrt()
        return rows if weight == 1.0 else rows * weight**0.5


def _rows_of_one(leaves: Mapping[str, Tensor], outputs: Tensor) -> dict[str, Tensor]:
    """Gradients of one sample's outputs (1, O), one after the other: name → (O, …)."""
    rows: dict[str, list[Tensor]] = {name: [] for name in leaves}
    for output in outputs[0]:
        parts: Sequence[Tensor | None] = [None] * len(leaves)
        if output.requires_grad:
            parts = torch.autograd.grad(output, list(leaves.values()), retain_graph=True, allow_unused=True)
        for (name, leaf), part in zip(leaves.items(), parts, strict=True):
            rows[name].append(torch.zeros_like(leaf) if part is None else part.to_dense())
    return {name: torch.stack(parts) for name, parts in rows.items()}


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _row_bytes(network: Network, values: Iterable[Tensor], samples: Inputs, outputs: int) -> int:
    """What batched reverse mode takes at its peak for one sample's rows."""
    return _WORKING_COPIES * outputs * (network.activation_bytes(samples) + sum(map(_bytes, values)))


def in_one_piece(network: Network, samples: Inputs, outputs: int, budget: int) -> bool:
    """Whether :func:`add_jacobian_kernel` makes all rows of J at once, of the samples with themselves."""
    one = _row_bytes(network, network.parameters.values(), samples, outputs)
    return 2 * one * max(len(samples), 8) <= budget


def add_jacobian_kernel(
    into: Mapping[str, Tensor],
    jacobian: Jacobian,
    names: Iterable[str],
    x1: Inputs,
    x2: Inputs | None,
    outputs: int,
    kind: Kind,
    budget: int,
    other: Jacobian | None = None,
) -> None:
    """Adds Σ_{w in names} J_w J_wᵀ to the kernels ``into`` (layer → kernel, or one under the key "" for all).

    Args:
        into: where each layer's kernel is accumulated.
        jacobian: the source of rows.
        names: parameters to add.
        x1: N1 samples.
        x2: N2 samples; None is x1, and then only blocks on and above the diagonal are computed.
        outputs: O.
        kind: pairs of outputs to keep.
        budget: bytes of working memory.
        other: the source of the rows of ``x2`` where it is not the same network in the same state.
    """
    values = jacobian.network.parameters
    total = len(x1) + (len(x2) if x2 is not None else 0)
    for group in _groups({name: outputs * _bytes(values[name]) for name in names}, budget // (2 * max(total, 8))):
        row = outputs * sum(_bytes(values[name]) for name in group)
        size = max(1, budget // (4 * row)) if total * row > budget // 2 else max(len(x1), len(x2 or ()))
        for i, chunk1 in x1.chunks(size):
            left = jacobian.rows(chunk1, group, outputs, budget // 2)
            for j, chunk2 in (x2 if x2 is not None else x1).chunks(size):
                if x2 is None and j.start < i.start:
                    continue
                same = x2 is None and i == j
                right = left if same else (other or jacobian).rows(chunk2, group, outputs, budget // 4)
                room = budget // 8
                for target, members in _by_target(into, group).values():
                    for ours, theirs in _joined(left, right, members, room):
                        piece = max(1, room // (len(chunk2) * outputs**2 * target.element_size()))
                        if same and piece >= len(chunk1) and kind != "diagonal":
                            _add_own_gram(target[i, j], ours, kind, Machine.of(ours.device))
                            continue
                        for start in range(0, len(chunk1), piece):
                            block = gram(ours[start : start + piece], theirs, kind)
                            rows = slice(i.start + start, i.start + start + block.shape[0])
                            target[rows, j] += block
                            if x2 is None and not same:
                                target[j, rows] += (
                                    block.transpose(0, 1).transpose(2, 3) if kind == "full" else block.transpose(0, 1)
                                )


def _by_target(into: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, tuple[Tensor, list[str]]]:
    """The kernels to which these parameters add, each with those that do."""
    found: dict[str, tuple[Tensor, list[str]]] = {}
    for name in names:
        layer = layer_of(name) if len(into) > 1 or "" not in into else ""
        found.setdefault(layer, (into[layer], []))[1].append(name)
    return found


def _joined(
    left: Mapping[str, Tensor], right: Mapping[str, Tensor], names: Sequence[str], room: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of J on both sides: of all parameters side by side where a copy fits in ``room``, else one by one."""
    if len(names) > 1 and sum(_bytes(side[name]) for side in (left, right) for name in names) <= room:
        ours = torch.cat([left[name] for name in names], -1)
        yield ours, ours if right is left else torch.cat([right[name] for name in names], -1)
        return
    for name in names:
        yield left[name], right[name]


def _add_own_gram(into: Tensor, rows: Tensor, kind: Kind, machine: Machine) -> None:
    """Adds :func:`gram` of rows with themselves to a symmetric kernel: what is below the diagonal is copied from above it.

    Also where to multiply everything would take less time: a product X Xᵀ is symmetric only but for rounding.
    """
    flat = rows.flatten(1) if kind == "trace" else rows.flatten(0, 1)
    kernel = into if kind == "trace" else into.transpose(1, 2)
    theta = kernel.view(len(flat), -1) if kernel.is_contiguous() else flat.new_zeros(len(flat), len(flat))
    add_gram(theta, flat, flat, symmetric=True, machine=machine)
    mirror(theta.unsqueeze(0), machine.mirror_rows)
    if not kernel.is_contiguous():
        kernel += theta.view(kernel.shape)


def least_jacobian_bytes(network: Network, names: Iterable[str], x1: Inputs, outputs: int, dtype: torch.dtype) -> int:
    """The least working memory of :func:`add_jacobian_kernel`: one row of each parameter in turn."""
    values = network.parameters
    largest = max(values[name].numel() for name in names) * dtype.itemsize
    return _WORKING_COPIES * outputs * (network.activation_bytes(x1) + 2 * largest) + 2**16


def jacobian_bytes(
    network: Network, names: Iterable[str], x1: Inputs, samples: int, outputs: int, dtype: torch.dtype
) -> int:
    """What :func:`add_jacobian_kernel` holds where no budget stops it: all rows of J, and how batched reverse mode makes them."""
    values = network.parameters
    row = outputs * sum(values[name].numel() for name in names) * dtype.itemsize
    return samples * row + _WORKING_COPIES * len(x1) * (outputs * network.activation_bytes(x1) + row) + 2**16


def _groups(row_bytes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Consecutive parameters whose rows fit together in ``limit``; one that does not stands alone."""
    groups: list[list[str]] = []
    room = 0
    for name, size in row_bytes.items():
        if not groups or size > room:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= size
    return groups
