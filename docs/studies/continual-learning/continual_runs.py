"""One network, one task after the other: what it forgets of the first, and what its kernel does where the task changes.

With a_ij the accuracy on task j after task i, forgetting is F = 1/(T − 1) Σ_{j<T} max_{i<T} (a_ij − a_Tj). What training on B
does to the outputs at A's points while the kernel stays that of the switch (arXiv 2006.11942):

    Δf_A = Θ_AB Θ_BB⁻¹ (I − (I − ηΘ_BB/N)^k)(y_B − f_B)        after k updates
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from digit_images import CLASSES, Images, Source
from squares_by_sgd import Learner, Sgd, State, Task, mean_kernel, stable_rate
from torch import Tensor, nn
from wide_networks import Parametrisation, mlp

import kerneltrack as kt
from kerneltrack import observables
from kerneltrack.regression import cross_size, descent_filter, trained

Order = Literal["turning", "same", "shuffled"]


@dataclass(frozen=True)
class Budget:
    """When a task is left.

    Attributes:
        epochs: after so many at the latest.
        accuracy: after the first epoch at whose end so much of the training set is right; None: not before the last one.
    """

    epochs: int
    accuracy: float | None = None

    def used(self, learner: Learner, task: Task, epochs: int) -> bool:
        if epochs >= self.epochs or not epochs or self.accuracy is None:
            return epochs >= self.epochs
        return learner.accuracy(task.x, task.y.argmax(dim=1)) >= self.accuracy


@dataclass(frozen=True)
class Stay:
    """What a network went through in one task.

    Attributes:
        states: θ before it and after each epoch.
        updates: of all epochs.
    """

    states: list[State]
    updates: int

    @property
    def epochs(self) -> int:
        return len(self.states) - 1


def tasks(source: Source, order: Order, angles: Sequence[float], train: int, test: int, seed: int) -> list[Task]:
    """Other images for each task, the same unseen ones for all, turned by the task's angle; "same": never turned.

    Raises:
        ValueError: fewer images than asked for.
    """
    images = Images.load(source, seed)
    if len(images) < len(angles) * train + test:
        raise ValueError(f"{len(angles)} tasks of {train} and {test} unseen need more than {len(images)} images")
    turned = {"turning": list(angles), "same": [0.0] * len(angles), "shuffled": _shuffled(angles, seed)}[order]
    unseen, centre = images[len(images) - test :], images[:train].pixels.mean(axis=0)
    return [_task(images[j * train : (j + 1) * train], unseen, angle, centre) for j, angle in enumerate(turned)]


def _shuffled(angles: Sequence[float], seed: int) -> list[float]:
    """Another order than the given one."""
    generator = np.random.default_rng(seed)
    while True:
        found = list(generator.permutation(angles))
        if len(angles) < 2 or found != list(angles):
            return found


def _task(seen: Images, unseen: Images, angle: float, centre: np.ndarray) -> Task:
    x, other = (part.rotated(angle).on_sphere(centre).flatten(1) for part in (seen, unseen))
    return Task(x, seen.targets, other, torch.tensor(unseen.labels))


def learn(learner: Learner, task: Task, sgd: Sgd, budget: Budget, generator: torch.Generator) -> Stay:
    """Epochs until the budget is used."""
    states, updates = [learner.state], 0
    while not budget.used(learner, task, len(states) - 1):
        updates += sgd.epoch(learner, learner.network.parameters(), task, generator)
        states.append(learner.state)
    return Stay(states, updates)


def foretold(learner: Learner, old: Tensor, task: Task, sgd: Sgd, updates: int) -> np.ndarray:
    """(M, O) Δf at the old points, by the kernel as it is now, if so many full-batch updates are made on the task."""
    kernel = mean_kernel(learner.network, torch.cat([task.x, old])).numpy()
    within, cross = np.split(kernel[:, : len(task.x)], [len(task.x)])
    pairs = kt.eigensystem(within)
    filters = descent_filter(pairs.values, sgd.rate / len(task.x), updates)
    return trained(cross, pairs, task.y.double().numpy() - learner.outputs(task.x), filters)


def forgetting(accuracies: np.ndarray) -> float:
    """F of a (T, T) table of a_ij."""
    best = accuracies[:-1, :-1].max(axis=0)
    return float(np.mean(best - accuracies[-1, :-1]))


def run(
    setting: Parametrisation, budget: Budget, order: Order, width: int, seed: int, *, source: Source,
    angles: Sequence[float], train: int, test: int, probe: int, batch: int, share: float,
) -> dict[str, Any]:  # fmt: skip
    """The numbers of one network.

    Args:
        setting: its parametrisation.
        budget: when a task is left.
        order: of the angles.
        width: of both hidden layers.
        seed: of images, initialisation and minibatches.
        source: of the images.
        angles: of the tasks, in degrees.
        train: images of each task.
        test: unseen images.
        probe: images of a task on which kernels are compared.
        batch: of a minibatch.
        share: η as a share of the stable rate of Θ_0 on the first task.
    """
    some = tasks(source, order, angles, train, test, seed)
    torch.manual_seed(seed)
    learner = Learner(mlp(setting, "relu", width, some[0].x.shape[1], CLASSES))
    sgd = Sgd(share * stable_rate(mean_kernel(learner.network, some[0].x)), batch)
    return {"width": width, "seed": seed, "rate": sgd.rate} | follow(learner, some, sgd, budget, probe, seed)


def follow(learner: Learner, some: Sequence[Task], sgd: Sgd, budget: Budget, probe: int, seed: int) -> dict[str, Any]:
    """All tasks in turn; numbers of the kernel are on the first ``probe`` training points of the first task."""
    old, watch = some[0].x[:probe], Watch(learner, some[0], probe)
    generator = torch.Generator().manual_seed(seed)
    stays, accuracies, errors, overlaps = [], [], [], []
    for j, task in enumerate(some):
        before, at_switch = learner.outputs(old), copy.deepcopy(learner)
        stays.append(learn(learner, task, sgd, budget, generator))
        accuracies.append([learner.accuracy(each.unseen, each.labels) for each in some])
        watch.ended(learner)
        if j:
            told = foretold(at_switch, old, task, sgd, stays[-1].updates)
            errors.append(observables.relative_squared_error(told, learner.outputs(old) - before))
            overlaps.append(overlap(at_switch.network, old, task.x[:probe]))
    return {
        "epochs": [stay.epochs for stay in stays],
        "accuracies": accuracies,
        "errors": errors,
        "overlaps": overlaps,
        **watch.numbers,
        **watch.turns(stays),
    }


def overlap(model: nn.Module, a: Tensor, b: Tensor) -> float:
    """‖Θ_AB‖_F/√(‖Θ_AA‖_F ‖Θ_BB‖_F)."""
    kernel = mean_kernel(model, torch.cat([a, b]))
    first, second = slice(len(a)), slice(len(a), None)
    return cross_size(
        *(float(kernel[rows, columns].norm()) for rows, columns in ((first, second), (first, first), (second, second)))
    )


class Watch:
    """The kernel on points of the first task, over all tasks."""

    def __init__(self, learner: Learner, task: Task, probe: int) -> None:
        self._network, self._x = copy.deepcopy(learner.network), task.x[:probe]
        self._target = task.y[:probe].double()
        self._kernels: list[np.ndarray] = []

    def ended(self, learner: Learner) -> None:
        """A task is over."""
        self._kernels.append(self._at(learner.state))

    @property
    def numbers(self) -> dict[str, list[float]]:
        """After each task: λ_1, the distance S from the kernel after the first, the alignment with the first task's targets."""
        gram = (self._target @ self._target.T).numpy()
        return {
            "largest": [float(np.linalg.eigvalsh(kernel)[-1]) for kernel in self._kernels],
            "distances": [observables.kernel_distance(kernel, self._kernels[0]) for kernel in self._kernels],
            "alignments": [observables.cosine(kernel, gram) for kernel in self._kernels],
        }

    def turns(self, stays: Sequence[Stay]) -> dict[str, list[float]]:
        """Milliradians an epoch: in the last one before each switch, and in the first one after it."""
        before = [self._turn(stay.states[-2:]) for stay in stays[:-1]]
        after = [self._turn(stay.states[:2]) for stay in stays[1:]]
        return {"turns_before": before, "turns_after": after}

    def _turn(self, states: Sequence[State]) -> float:
        return 1e3 * observables.kernel_angle(*(self._at(state) for state in states))

    def _at(self, state: State) -> np.ndarray:
        self._network.load_state_dict(state)
        return np.asarray(mean_kernel(self._network, self._x))
