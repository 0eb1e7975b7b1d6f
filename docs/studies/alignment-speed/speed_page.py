"""The page on alignment and speed, written from results.json alone."""

from __future__ import annotations

from typing import Any

from claims import table, verdict
from pages import explained, grid
from results import Results
from speed_claims import LATER, RATES, claims, overtaken


def page(results: Results) -> str:
    """README.md."""
    s, rows = results.settings, list(claims(results))
    levels = ", ".join(f"{level:.0%}" for level in s["levels"])
    refuted = any(row.key == LATER and row.holds is False for row in rows)
    reasons = explained([overtaken(results)] if refuted else [])
    return f"""# Does alignment speed learning up?

D. Kopitkov and V. Indelman, *Neural Spectrum Alignment* (arXiv 1910.08720), find that the kernel aligns to the target while a
network trains, and that this makes learning fast. That alignment and speed come together is shown in
[spectrum-alignment](../spectrum-alignment/README.md). Here is the test of the cause: take the kernel that training made, hold it
fixed, go back to the start, and count updates. The paper's body was not at hand: the test is this study's own.

```bash
python docs/studies/alignment-speed/study.py --size {results.size}
```

{verdict(rows)}

## What was run

{s["seeds"]} seeds of the paper's task and network, small: {s["samples"]} points of a portrait, a leaky-ReLU MLP of
{s["depth"]} weight layers and width {s["width"]}, full-batch gradient descent on the mean of ½(f − y)², float64. From the
same f_0, updates are counted until the loss is {levels} of the first one:

- **Θ_0**: the network linearised at its start, r ← (I − ηΘ_0/N) r;
- **Θ_t0**: the same with the kernel after {s["moment"]:,} updates, which has *seen the targets* on these points: a claim
  on the speed of training, none on unseen points;
- **mirrored**: the kernel of the same start after {s["moment"]:,} updates on the mirrored portrait;
- **the network** itself, for at most {s["updates"]:,} updates.

Counts of fixed kernels are exact sums over their modes. Each goes at η = N/λ_1 of its own kernel (the network at that of
Θ_0), half of what is stable, and all once more at the smallest of these rates. Run from commit {results.commit} on
{results.ran_on}, in {results.seconds / 60:.0f} minutes.

## What came out

{table(rows)}{reasons}
Most of the slowness of Θ_0 is its tail: a part of the portrait lies in modes whose eigenvalues are small, and every level
below that part's size waits for them. Alignment moves that part up.

## Updates

{_updates(results)}

A dash: not reached in the updates that were made. "Diverged": the rate, half of what was stable at the start, had become too large.
"""


def _updates(results: Results) -> str:
    levels = results.settings["levels"]
    heads = ["seed", "rate", "loss", "Θ_0", "Θ_t0", "mirrored", "network"]
    rows = []
    for run in results.runs:
        for rate, words in RATES.items():
            kernels = run[f"kernels_{rate}"]
            for i, level in enumerate(levels):
                counts = [f"{kernels[name][i]:,}" for name in ("start", "own", "foreign")]
                cells = [str(run["seed"]), words, f"{level:.0%}", *counts, _network(run[f"network_{rate}"], i)]
                rows.append(cells)
    return grid(heads, rows)


def _network(made: dict[str, Any], level: int) -> str:
    count = made["reached"][level]
    if count is not None:
        return f"{count:,}"
    return (
        f"– (diverged after {made['made']:,})" if made["diverged"] else f"– ({made['loss']:.0%} after {made['made']:,})"
    )
