"""The page on bandits and its figure, written from results.json alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from bandit_claims import NEARLY, Runs, claims, explored, quarters, why_not
from bandit_runs import marks
from claims import table, verdict
from course import Number
from pages import explained, grid
from results import Results
from strategies import BARE, CENTRED, DIAGONAL, EVIDENCE, FAILURE, RANDOM, RELEASED_RIDGE, STRATEGIES

from kerneltrack.analysis.figures.style import OKABE_ITO

#: what was planned
PLANNED = "1,000 rounds, 5 seeds, and 100 updates after each of the first 200 rounds"


def page(results: Results) -> str:
    """README.md."""
    s, runs = results.settings, Runs.of(results)
    plan, rows = s["plan"], list(claims(runs))
    reasons = explained(why_not(runs, {row.key for row in rows if row.holds is False}))
    listed = ", ".join(f"{width:,}" for width in s["widths"])
    looks = ", ".join(map(str, plan["early"]))
    return f"""# Bandits: how much to explore, by the tangent kernel's theory and by the evidence

J. Wenger, F. Dangel and A. Kristiadi, *On the Disconnect Between Theory and Practice of Overparametrized Neural Networks*
(arXiv 2310.00137), say that exploration as the theory of the tangent kernel prescribes it does badly, and that evidence does
better (so reviews of it; the paper's body was not at hand). The theory is that of D. Zhou, L. Li and Q. Gu, *Neural Contextual
Bandits with UCB-based Exploration* (arXiv 1911.04462), whose formula for the exploration γ_t is recalled here, not read
([strategies.py](strategies.py) has it). The regression underneath is [uncertainty](../uncertainty/README.md).

```bash
python docs/studies/bandits/study.py --size {results.size}
```

{verdict(rows)}

## What was run

{len(results.runs) - len(runs.conditions)} plays at size `{results.size}`, of T = {plan["rounds"]} rounds. In each one a context
is shown and one of K arms is chosen; the arm of its class pays 1, every other one 0. Regret is the number of rounds without pay.

- **digits**: scikit-learn's 8 × 8 images, ten arms. **breast_cancer**: its 569 tumours, thirty measurements, two arms.
- Contexts are centred, of norm 1, with a constant in the place of biases. Arm k with context x is e_k ⊗ x, as in the released
  code.
- The network has one hidden layer of ReLU, m = {listed}, in NTK parametrisation, and starts at f = 0 (mirrored units).
  Seeds: {s["seeds"]}, each another initialisation and order of the contexts; the strategies of a seed see the same.
- It learns ½Σ(f − y)² + ½λ‖θ − θ_0‖² by full-batch heavy ball from where it is: {plan["updates"][0]} updates after each of the
  first {plan["often"]} rounds, then {plan["updates"][1]} after every tenth.

All but one strategy choose the arm of the largest f + γs, s² = gᵀ(λI + Σg_ig_iᵀ)⁻¹g over the gradients g_i of what was chosen,
each of its own moment: the full kernel, by a Cholesky factor that grows by rows.

- **theory**: γ_t with every constant 1, λ = 1, probability of failure {FAILURE:g}. **theory, m → ∞**: what infinite width leaves.
- **ν = …**: γ = ν, λ = 1. **greedy**: γ = 0, λ = 1.
- **{EVIDENCE}**: at round {looks} and every {plan["refits"]}th the linearised Laplace approximation at the network as it is,
  prior N(0, I/δ), noise σ²; δ and σ² of the largest evidence. λ = δσ² and γ = σ, so that γs is the posterior's standard
  deviation; both are 1 before. **{CENTRED}**: prior N(θ_0, I/δ). **{BARE}**: λ by evidence, no exploration.
- **diagonal**: the diagonal of λI + Σg_ig_iᵀ alone, λ = {RELEASED_RIDGE:g}, γ = √λ, as the released code has it.
- **random**: an arm is drawn.

A round explores if its arm is not one of the largest f. Planned were {PLANNED}:
here are fewer rounds, fewer seeds, fewer updates that carry momentum, and two early looks at the evidence. What decides each claim
was fixed before the run; that “nearly” is {NEARLY:.0%}, after a pilot of one seed.
Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes of one process.

## What came out

{table(rows)}{reasons}
![Regret over the rounds at the largest width, and explored rounds](bandits.png)

Left and middle: regret at width {runs.widths[-1]:,}, the mean over seeds; grey: drawn arms. Right: shares of explored rounds of
digits by quarters of the play, mean over widths and seeds.

## The theorem's conditions

Recalled, as the formula is. Θ_∞ of {max(run["pairs"] for run in runs.conditions.values())} pairs of contexts and arms, fewer than
are played: with more, λ_0 can only fall and S only rise. γ_T: the formula at the last round, and its limit m → ∞; both multiply
an s of about √2 at the start.

{_conditions(runs)}

## Every strategy

Medians over seeds, with their range. "Unseen": right arms of the largest f on contexts after the last round, in percent. γ and λ
at the end; "refused": looks for the largest evidence that changed nothing, of
{plan["rounds"] // plan["refits"] + len(plan["early"])}.

{_strategies(runs)}

No claim is made of these, medians over seeds by width of the regret less that of “{EVIDENCE}”, points of T:

{_beside(runs)}
"""


def _beside(runs: Runs) -> str:
    rows = [
        [
            name,
            task,
            *(f"{value:.1f}".replace("-", "−") for value in np.median(runs.less(task, name, EVIDENCE), axis=0)),
        ]
        for name in (CENTRED, BARE, DIAGONAL)
        for task in runs.tasks
    ]
    return grid(["strategy", "task", *(f"m = {width:,}" for width in runs.widths)], rows)


def _conditions(runs: Runs) -> str:
    heads, rows = ["task", "condition", "here", "is it met?"], []
    for task, found in runs.conditions.items():
        rows += [
            [task, "Θ_∞ ≥ λ_0 I, λ_0 > 0", f"λ_0 = {found['smallest']:.3g}", _met(found["smallest"] > 0)],
            [task, "‖x‖ = 1, f = 0 at the start", "made so", _met(True)],
            [task, "S ≥ √(2hᵀΘ_∞⁻¹h)", f"S = 1, at least {found['norm']:.3g} needed", _met(found["norm"] <= 1)],
            [task, "λ ≥ max(1, S⁻²)", "λ = 1", _met(True)],
            [
                task,
                "m so large that its allowances are small, m^{−1/6}√(ln m)L⁴T^{7/6} ≤ 1",
                f"from m = 10^{found['needed']:.0f} on",
                _met(np.log10(runs.widths[-1]) >= found["needed"]),
            ],
            *(
                [task, f"γ_T at m = {m:,}", f"{gamma:.2g}, limit {limit:.3g}", "–"]
                for m, gamma, limit in found["gammas"]
            ),
        ]
    return grid(heads, rows)


def _met(met: bool) -> str:
    return "met" if met else "**not met**"


def _strategies(runs: Runs) -> str:
    heads = ["task", "width", "strategy", "regret", "explored", "unseen", "γ", "λ", "refused"]
    return grid(heads, list(_rows(runs)))


def _rows(runs: Runs) -> Iterator[list[str]]:
    numbers: list[Number] = [
        lambda run: 100 * explored(run),
        lambda run: 100 * float(run["unseen"]),
        lambda run: float(run["gammas"][-1]),
        lambda run: float(run["ridges"][-1]),
        lambda run: float(run["refused"]),
    ]
    for task in runs.tasks:
        yield [task, "–", RANDOM, _cell(runs.drawn[task]), *["–"] * 5]
        for column, width in enumerate(runs.widths):
            for name in STRATEGIES:
                if name == RANDOM:
                    continue
                told = [_cell(runs.table(task, name, number)[:, column]) for number in numbers]
                if STRATEGIES[name].evidence is None:
                    told[-1] = "–"
                yield [task, f"{width:,}", name, _cell(runs.table(task, name)[:, column]), *told]


def _cell(values: np.ndarray) -> str:
    median, low, high = (f"{value:.3g}" for value in (np.median(values), values.min(), values.max()))
    return (f"{median} ({low} to {high})" if low != high else median).replace("-", "−")


def figure(results: Results, path: Path) -> None:
    """bandits.png."""
    runs = Runs.of(results)
    drawn, axes = plt.subplots(1, len(runs.tasks) + 1, figsize=(12, 3.8), layout="constrained")
    shown = [name for name in STRATEGIES if name not in (RANDOM, DIAGONAL, CENTRED, BARE)]
    for axis, task in zip(axes, runs.tasks, strict=False):
        for colour, name in zip([*OKABE_ITO, "black"], shown, strict=False):
            found = runs.played.some(task=task, strategy=name, width=runs.widths[-1])
            axis.plot(marks(runs.rounds), np.mean([run["regrets"] for run in found], axis=0), color=colour, label=name)
        axis.plot([0, runs.rounds], [0, runs.rounds * runs.wrong(task)], color="grey", linewidth=0.8, linestyle=":")
        axis.set(title=f"regret, {task}", xlabel="round")
    for colour, name in zip([*OKABE_ITO, "black"], shown, strict=False):
        axes[-1].plot(range(1, 5), quarters(runs, runs.tasks[0], name), ".-", color=colour, label=name)
    axes[-1].axhline(runs.wrong(runs.tasks[0]), color="grey", linewidth=0.8, linestyle=":")
    axes[-1].set(title=f"explored, {runs.tasks[0]}", xlabel="quarter of the rounds", xticks=range(1, 5))
    axes[0].legend(fontsize=7)
    drawn.savefig(path, dpi=100)
    plt.close(drawn)
