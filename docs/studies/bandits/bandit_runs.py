"""A strategy plays a bandit: it looks at a context, chooses an arm, is paid or not, and learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from arm_network import ArmNetwork, Tangents
from bandit_tasks import TASKS, Task
from confidence import Confidence, Diagonal, Full
from scipy.optimize import brentq
from strategies import DEPTH, STRATEGIES, Centre, Moment, Strategy, infinite, prescribed

import kerneltrack as kt
from kerneltrack import regression

#: Scores that differ by less than this share of the largest are equal: f = 0 at the start but for rounding.
_TIED = 1e-6
#: rounds at which a course is kept
MARKS = 20


class Learner(Protocol):
    """What a bandit's rewards are foretold by: :class:`arm_network.ArmNetwork`."""

    width: int
    updates: int

    def look(self, x: np.ndarray, arms: np.ndarray) -> tuple[np.ndarray, Tangents]: ...

    def prior_mean(self, values: np.ndarray, tangents: Tangents, centre: Centre) -> np.ndarray: ...

    def learn(
        self, x: np.ndarray, arms: np.ndarray, rewards: np.ndarray, *, ridge: float, rate: float, updates: int
    ) -> None: ...


@dataclass(frozen=True)
class Plan:
    """When to learn.

    Attributes:
        rounds: T.
        often: up to this round the network learns after every round, then after every tenth.
        updates: of a learning after one round, and after ten.
        refits: rounds between two looks for the largest evidence.
        early: rounds with one beside these.
        share: of the rate 1/λ_1 of descent.
    """

    rounds: int
    often: int
    updates: tuple[int, int]
    refits: int = 50
    early: tuple[int, ...] = (10, 20)
    share: float = 1.0

    def learns(self, chosen: int) -> int:
        """Updates when so many pairs have been chosen."""
        if chosen <= self.often:
            return self.updates[0]
        return self.updates[1] if chosen % 10 == 0 else 0

    def refits_at(self, chosen: int) -> bool:
        return chosen in self.early or chosen % self.refits == 0


@dataclass
class Course:
    """What was chosen in each round.

    Attributes:
        arms: chosen.
        rewards: 0 or 1.
        explored: whether the arm was not one of the largest f.
        explorations: γ.
        ridges: λ.
        refused: looks for the largest evidence that changed nothing.
    """

    arms: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    explored: list[bool] = field(default_factory=list)
    explorations: list[float] = field(default_factory=list)
    ridges: list[float] = field(default_factory=list)
    refused: int = 0


def best(scores: np.ndarray) -> np.ndarray:
    """The places of the largest score, and of what is equal to it."""
    return np.flatnonzero(scores >= scores.max() - _TIED * np.abs(scores).max())


def play(task: Task, learner: Learner, confidence: Confidence, strategy: Strategy, plan: Plan, seed: int) -> Course:
    """T rounds on the contexts in their order; the seed is for ties alone."""
    rng, course, every = np.random.default_rng(seed), Course(), np.arange(task.arms)
    ridge, noise = strategy.ridge, 1.0
    assert strategy.exploration is not None
    for t in range(plan.rounds):
        values, tangents = learner.look(np.broadcast_to(task.x[t], (task.arms, task.x.shape[1])), every)
        moment = Moment(t, learner.width, confidence.log_determinant, learner.updates, ridge, noise)
        gamma = strategy.exploration(moment)
        arm = int(rng.choice(best(values + gamma * confidence.widths(tangents))))
        confidence.add(arm)
        course.arms.append(arm)
        course.rewards.append(float(arm == task.labels[t]))
        course.explored.append(arm not in best(values))
        course.explorations.append(gamma)
        course.ridges.append(ridge)
        seen = task.x[: t + 1], np.array(course.arms), np.array(course.rewards)
        if updates := plan.learns(t + 1):
            rate = plan.share / (largest(learner.look(*seen[:2])[1]) + ridge)
            learner.learn(*seen, ridge=ridge, rate=rate, updates=updates)
        if strategy.evidence and plan.refits_at(t + 1):
            found = refit(learner, confidence, strategy.evidence, seen)
            course.refused += found is None
            ridge, noise = found or (ridge, noise)
    return course


def largest(tangents: Tangents) -> float:
    """max_i Σ_j |K_ij|, which is at least λ_1."""
    return float(np.abs(tangents.kernel(tangents)).sum(axis=1).max())


def refit(
    learner: Learner, confidence: Confidence, centre: Centre, seen: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[float, float] | None:
    """λ = δσ² and σ² of the largest evidence, with all gradients at the network as it is now.

    Rewards have no noise, so the evidence may grow down to the smallest λ that is searched, 10⁻¹² λ_1: that one is taken then.
    None, and nothing is changed, where nothing has been paid yet, or where noise alone would be the best explanation.
    """
    x, arms, rewards = seen
    values, tangents = learner.look(x, arms)
    kernel = tangents.kernel(tangents)
    if not rewards.any():
        return None
    residual = rewards - learner.prior_mean(values, tangents, centre)
    found = regression.most_evident(kt.eigensystem(kernel), residual[:, None])
    ridge = found.precision * found.noise
    if not found.inside and ridge > kernel.max():  # the upper end of what is searched
        return None
    confidence.renew(tangents, kernel, ridge)
    return ridge, found.noise


def confidence_of(strategy: Strategy, task: Task, width: int, rounds: int) -> Confidence:
    """Nothing has been chosen yet."""
    if strategy.diagonal:
        return Diagonal(strategy.ridge, task.arms, task.x.shape[1], width)
    return Full(strategy.ridge, rounds)


def at_random(task: Task, rounds: int, seed: int) -> list[float]:
    """The rewards of arms that are drawn."""
    arms = np.random.default_rng(seed).integers(0, task.arms, rounds)
    return (arms == task.labels[:rounds]).astype(float).tolist()


def run(name: str, strategy: str, width: int, seed: int, plan: Plan) -> dict[str, Any]:
    """One strategy on one order of the contexts, from one initialisation; ``width`` is of no account where arms are drawn."""
    task, kind = TASKS[name]().shuffled(seed), STRATEGIES[strategy]
    facts = {"kind": "play", "task": name, "strategy": strategy, "width": width, "seed": seed}
    if kind.exploration is None:
        return {**facts, **_paid(at_random(task, plan.rounds, seed))}
    network = ArmNetwork(task.arms, task.x.shape[1], width, seed)
    confidence = confidence_of(kind, task, width, plan.rounds)
    course = play(task, network, confidence, kind, plan, seed)
    quarters = np.array_split(np.array(course.explored, dtype=float), 4)
    return {
        **facts,
        **_paid(course.rewards),
        "explored": [_short(quarter.mean()) for quarter in quarters],
        "gammas": [*map(_short, _at_marks(course.explorations))],
        "ridges": [*map(_short, _at_marks(course.ridges))],
        "refused": course.refused,
        "unseen": _short(unseen(task, network, plan.rounds)),
    }


def unseen(task: Task, learner: Learner, first: int) -> float:
    """The share of the contexts from this one on whose largest output is the right arm's."""
    values = [learner.look(task.x[first:], np.full(len(task.x) - first, arm))[0] for arm in range(task.arms)]
    return float(np.mean(np.argmax(values, axis=0) == task.labels[first:]))


def conditions(name: str, widths: Sequence[int], plan: Plan, pairs: int) -> dict[str, Any]:
    """What the theorem asks for, on the first pairs of contexts and arms in infinite width, and what γ_T is made of.

    With more pairs λ_0 can only fall, and S only rise.

    Returns:
        ``pairs``; ``smallest`` λ_0 = λ_min(Θ_∞); ``norm`` √(2hᵀΘ_∞⁻¹h) of the rewards h, which S is to exceed; ``gammas``, for each
        width what the formula gives at the last round for what Θ_∞ has learned there, and its limit; ``needed``, log₁₀ of the width
        at which the first of its allowances for a finite one is down to 1.
    """
    task = TASKS[name]().shuffled(0)
    contexts, t = pairs // task.arms, plan.rounds
    x = torch.tensor(task.joint(contexts))
    # σ_w² x·x'/d of the formula is to be x·x': the network has no multiplier before its first layer
    system = kt.eigensystem(kt.analytic.relu_ntk(x * (x.shape[1] / 2) ** 0.5, depth=DEPTH).numpy())
    rewards = (np.arange(task.arms) == task.labels[:contexts, None]).astype(float).reshape(-1, 1)
    norm = regression.kernel_regression(rewards.T, system, rewards, ridge=0.0)[0, 0]
    information = 2 * regression.information_gain(system.values, 1.0)
    updates = sum(plan.learns(chosen) for chosen in range(1, t))
    last = [Moment(t, width, information, updates, 1.0, 1.0) for width in widths]
    return {
        "kind": "conditions", "task": name, "arms": task.arms, "pairs": len(x), "smallest": float(system.values[-1]),
        "norm": float(np.sqrt(2 * norm)), "information": information,
        "gammas": [[moment.width, _short(prescribed(moment)), _short(infinite(moment))] for moment in last],
        "needed": needed(t),
    }  # fmt: skip


def needed(rounds: int) -> float:
    """log₁₀ of the width m at which m^{−1/6} √(ln m) L⁴ T^{7/6} is 1."""

    def left(log_width: float) -> float:
        return math.log(DEPTH**4 * rounds ** (7 / 6)) - log_width / 6 + math.log(log_width) / 2

    return float(brentq(left, 10, 1e4)) / math.log(10)


def _paid(rewards: Sequence[float]) -> dict[str, Any]:
    regrets = np.cumsum(1 - np.array(rewards))
    return {"regret": float(regrets[-1]), "regrets": [float(regret) for regret in _at_marks(regrets)]}


def marks(rounds: int) -> list[int]:
    """The rounds at which a course is kept."""
    return [round(mark) for mark in np.linspace(0, rounds, MARKS + 1)[1:].tolist()]


def _at_marks(values: Sequence[float] | np.ndarray) -> list[float]:
    return [float(values[mark - 1]) for mark in marks(len(values))]


def _short(value: float) -> float:
    return float(f"{value:.5g}")
