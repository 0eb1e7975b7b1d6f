"""One network that learns a table of sums, and how much of named functions lies in its kernel's first modes, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from modular_sums import FAMILIES, Quadratic, pairs, shares, solved, targets, waves
from squares_by_sgd import mean_kernel
from torch import Tensor, nn

import kerneltrack as kt
from kerneltrack import observables
from kerneltrack.observables import pair_alignment, permuted_pair_alignment, permuted_squares

#: a frequency is in use from this share of a fair one, 1/((p − 1)/2), of the output's energy
IN_USE = 0.5
#: modes for each frequency in use
MODES = 8


@dataclass(frozen=True)
class Table:
    """All pairs, and which of them are learned from.

    Attributes:
        x: (p², 2p).
        labels: (p²,).
        y: (p², p).
        train: (n,) rows.
        test: (p² − n,) the others.
    """

    x: Tensor
    labels: Tensor
    y: Tensor
    train: Tensor
    test: Tensor

    @classmethod
    def of(cls, p: int, share: float, seed: int, *, random: bool = False) -> Table:
        """A share of the pairs, drawn by the seed; with ``random`` every label is drawn as well."""
        generator = torch.Generator().manual_seed(seed)
        x, labels = pairs(p)
        order = torch.randperm(len(x), generator=generator)
        if random:
            labels = torch.randint(p, labels.shape, generator=generator)
        count = round(share * len(x))
        return cls(x, labels, targets(labels, p), order[:count], order[count:])

    def right(self, outputs: Tensor, rows: Tensor) -> float:
        return float((outputs[rows].argmax(dim=1) == self.labels[rows]).double().mean())

    def loss(self, outputs: Tensor, rows: Tensor) -> float:
        """‖f − y‖²/‖y‖²."""
        return float((outputs[rows] - self.y[rows]).square().sum() / self.y[rows].square().sum())


@dataclass(frozen=True)
class Modes:
    """The leading modes of a kernel, at least as many as asked for, none of a cluster of equal eigenvalues left out.

    Attributes:
        vectors: (p², k) eigenvectors.
        ends: the numbers of modes that cut no cluster, the last of them k.
    """

    vectors: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, pairs: kt.EigenSystem, k: int) -> Modes:
        ends = pairs.cluster_ends[: int(np.searchsorted(pairs.cluster_ends, k)) + 1]
        return cls(pairs.vectors[:, : int(ends[-1])], ends)

    def energy(self, family: str, frequencies: list[int], k: int) -> float:
        """(1/D) Σ_d E(b_d, k), b_1 … b_D an orthonormal basis of cos and sin(2πj(ua + vb)/p), j in the frequencies."""
        basis = span(family, frequencies, len(self.vectors))
        return float(observables.relative_energy(self.vectors.T @ basis, basis.shape[1], k, self.ends))

    def chance(self, family: str, frequencies: list[int], k: int) -> float:
        """Its exact mean where the pairs are permuted."""
        basis = span(family, frequencies, len(self.vectors))
        return float(permuted_squares(self.vectors[:, :k], basis, "trace").sum() / basis.shape[1])


def span(family: str, frequencies: list[int], points: int) -> np.ndarray:
    """(p², 2F) orthonormal waves of a family at F frequencies."""
    return np.concatenate([waves(family, round(points**0.5), j) for j in frequencies], axis=1)


@dataclass(frozen=True)
class Moment:
    """The kernel at one step: its leading modes, and what is told of it alone."""

    modes: Modes
    facts: dict[str, float]


def moment(network: nn.Module, table: Table, modes: int) -> Moment:
    """Of (1/O) Σ_o Θ_oo on all pairs: λ_1, centred alignment with the targets, and its mean over permutations of these."""
    kernel = mean_kernel(network, table.x).numpy()
    found = kt.eigensystem(kernel)
    y = table.y.double().numpy()
    centred, phi = observables.centred_kernel(kernel), y - y.mean(axis=0)
    facts = {
        "largest": float(found.values[0]),
        "alignment": pair_alignment(centred, phi),
        "chance": permuted_pair_alignment(centred, phi),
    }
    return Moment(Modes.of(found, modes), facts)


def steps_of(updates: int, moments: int) -> list[int]:
    """0 and so many more, evenly spaced in log k, the last of them ``updates``."""
    return sorted({0, *np.geomspace(10, updates, moments).round().astype(int).tolist()})


def run(
    p: int, share: float, width: int, scale: float, seed: int, *, random: bool, updates: int, moments: int, rate: float,
    decay: float, look: int,
) -> dict[str, Any]:  # fmt: skip
    """The numbers of one network.

    Args:
        p: the modulus.
        share: of the pairs that are learned from.
        width: of the hidden layer.
        scale: α of the outputs.
        seed: of the pairs and the start.
        random: labels without a rule.
        updates: full-batch, of AdamW.
        moments: at which the kernel is measured.
        rate: of AdamW.
        decay: of the weights.
        look: updates between two looks at the accuracies.
    """
    table = Table.of(p, share, seed, random=random)
    torch.manual_seed(seed)
    network = Quadratic(p, width, scale)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    wanted, most = set(steps_of(updates, moments)), MODES * (p // 2)
    x, y = table.x[table.train], table.y[table.train]
    seen: list[tuple[int, float, float]] = []
    kept: dict[int, Moment] = {}
    told: list[dict[str, float]] = []
    for step in range(updates + 1):
        if step in wanted or step % look == 0:
            with torch.no_grad():
                outputs = network(table.x)
            right = [table.right(outputs, rows) for rows in (table.train, table.test)]
            seen.append((step, *right))
            if step in wanted:
                kept[step] = moment(network, table, most)
                losses = [table.loss(outputs, rows) for rows in (table.train, table.test)]
                told.append({"step": step, "losses": losses, "right": right, **kept[step].facts})
        if step < updates:
            optimizer.zero_grad()
            (network(x) - y).square().mean().backward()
            optimizer.step()
    of_each = shares(outputs.double().numpy())
    fair = 1 / (p // 2)
    used = [j for j, value in enumerate(of_each, 1) if value >= IN_USE * fair]
    told_in = used or list(range(1, p // 2 + 1))  # labels without a rule use none; all are asked for
    for row in told:
        row.update(energies(kept[int(row["step"])], told_in))
    return {
        "scale": scale, "seed": seed, "random": random, "used": used, "shares": [round(float(v), 4) for v in of_each],
        "learned": _first(seen, 1, 1.0), "grokked": _first(seen, 2, 0.5), "moments": told,
        "layers": by_layer(network, table, told_in), "solution": solution(p, width, told_in),
    }  # fmt: skip


def energies(at: Moment, used: list[int]) -> dict[str, Any]:
    """Of the frequencies in use in the first 8 modes for each: every family's, and what chance gives the sums."""
    k = MODES * len(used)
    return {"energy": {family: at.modes.energy(family, used, k) for family in FAMILIES},
            "permuted": at.modes.chance("a + b", used, k)}  # fmt: skip


def by_layer(network: nn.Module, table: Table, used: list[int]) -> dict[str, float]:
    """The sums' energy in the kernel of each layer alone, at the end."""
    k = MODES * len(used)
    kernels = kt.empirical_ntk(network, table.x, output="trace", by_layer=True)
    pairs_of = {name: kt.eigensystem(kernel.double().numpy()) for name, kernel in kernels.items()}
    return {name: Modes.of(found, k).energy("a + b", used, k) for name, found in pairs_of.items()}


def solution(p: int, width: int, used: list[int]) -> dict[str, float]:
    """Energies of the closed form's kernel at the same width, for the same frequencies."""
    k = MODES * len(used)
    modes = Modes.of(kt.eigensystem(mean_kernel(solved(p, width).double(), pairs(p)[0].double()).numpy()), k)
    return {family: modes.energy(family, used, k) for family in FAMILIES}


def _first(seen: list[tuple[int, float, float]], place: int, level: float) -> int | None:
    """The first look at which so much is right."""
    return next((int(row[0]) for row in seen if row[place] >= level), None)
