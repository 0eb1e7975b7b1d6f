"""The page on own, frozen and foreign kernels, written from results.json alone."""

from __future__ import annotations

import numpy as np
from claims import table, verdict
from contrast_claims import OF, claims, why_not
from contrast_runs import KERNELS
from pages import explained, grid
from results import Results


def page(results: Results) -> str:
    """README.md."""
    s, rows = results.settings, list(claims(results))
    reasons = explained(why_not(results, row.key) for row in rows if row.key in OF and row.holds is False)
    moments = ", ".join(f"{t:,}" for t in s["moments"])
    return f"""# Own, frozen and foreign kernels

D. Kopitkov and V. Indelman, *Neural Spectrum Alignment* (arXiv 1910.08720), say that the output lies almost completely in the
top eigenfunctions of the tangent kernel. [spectrum-alignment](../spectrum-alignment/README.md) finds it so with 400 of 1,000
modes, which has little power: so many modes hold most of anything smooth. Here k is small, and the question is whether it must
be *this* kernel. The paper's body was not at hand: the contrast is this study's own.

```bash
python docs/studies/alignment-contrast/study.py --size {results.size}
```

{verdict(rows)}

## What was run

{s["seeds"]} seeds of the paper's task and network, small: {s["samples"]:,} points of a portrait, a leaky-ReLU MLP of
{s["depth"]} weight layers and width {s["width"]}, full-batch gradient descent on the mean of ½(f − y)² at δ = {s["rate"]:g},
float64; and from the same start the portrait mirrored, at the same points. Both runs of a seed are looked at after
{moments} updates, as means of the pair (t, t + 1): at the edge of stability a single state shows
one phase of an oscillation. An energy E(φ, k) is taken in the modes of

- **own**: Θ_t of the same run;
- **frozen**: Θ_0, which both runs start from;
- **foreign**: Θ_t of the run on the other picture.

Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes.

## What came out

{table(rows)}{reasons}
## Energies over training

Medians over seeds and both pictures.

{_energies(results)}
"""


def _energies(results: Results) -> str:
    heads = ["of", "update", "k", *KERNELS]
    rows = []
    for of, words in (("output", "E(f_t, k)"), ("target", "E(y, k)")):
        for place, t in enumerate(results.settings["moments"]):
            pairs = [pair for run in results.runs for pair in run["moments"][place][of]]
            for i, k in enumerate(results.settings["k"]):
                cells = [f"{np.median([pair[name][i] for pair in pairs]):.3f}" for name in KERNELS]
                rows.append([words, f"{t:,}", str(k), *cells])
    return grid(heads, rows)
