"""The page on fine-tuning, written from results.json alone."""

from __future__ import annotations

from collections.abc import Callable

from claims import spread, table, verdict
from pages import explained, grid
from results import Results
from tune_claims import Part, Runs, anchored, claims, why_not

HEADS = (
    "network", "start", "what is trained", "η, of 2N/λ₁", "updates", "loss", "unseen right: start → end, by the kernel",
    "error of f_lin at θ_T", "… of descent by the kernel", "‖ΔΘ‖/‖Θ‖", "S", "moves most",
)  # fmt: skip


def page(results: Results) -> str:
    """README.md."""
    s, runs = results.settings, Runs.of(results)
    rows = list(claims(runs))
    reasons = explained(why_not(runs, {row.key for row in rows if row.holds is False}))
    return f"""# Fine-tuning: in the kernel regime?

S. Malladi et al., *A Kernel-Based View of Language Model Fine-Tuning* (arXiv 2210.05643), ask whether a pre-trained network,
while it is tuned, stays what its tangent kernel at the start of tuning says. The paper's body was not at hand, so what is
recalled of it decides nothing here. Networks and sizes are this study's own and tiny: each is pre-trained inside the script,
nothing is fetched.

```bash
python docs/studies/fine-tuning/study.py --size {results.size}
python docs/studies/fine-tuning/study.py --checkpoint FOLDER --data FILE.npz --rank 4
```

The second line asks the same of a causal language model **of yours**, a folder that transformers' `save_pretrained` wrote; the
file holds `tokens` (N, T), `labels` (N,) of 0 and 1, `unseen` (M, T), `truth` (M,), and `words`, the numbers of the two tokens
whose logits stand for the labels 1 and 0. It prints the numbers of the last table.

{verdict(rows)}

## What was run

{sum(len(run["parts"]) for run in results.runs)} tunings at size `{results.size}`, seeds of each network: {s["seeds"]}
([tune_models.py](tune_models.py)):

- **images**: an MLP of two hidden layers of {s["widths"]["images"]} learns of scikit-learn's digits from 0 to 4 which are odd,
  and is tuned to say it of 5 to 9.
{_words(s)}
One output, y = ±1, {s["train"]} points to tune on, {s["test"]} unseen. Full-batch descent on the mean of ½(f − y)² at
{" and ".join(f"{share:g}" for share in s["shares"])} of 2N/λ₁ of the kernel at the start of tuning, until the mean of (f − y)² is
{s["level"]:g}, so that those which get there are compared at one training loss; at most {s["longest"]:,} updates, and
"loss" in the last table says who did not. **full**: everything is trained;
**head**: the last layer; **rank r**: low-rank adapters f ← f + BAx beside every matrix but the head (Hu et al. 2021, arXiv
2106.09685), B = 0 and A ~ N(0, 1/r) at the start, all else frozen. **scratch**: the same network before it was pre-trained.
Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes of one process.

## What came out

{table(rows)}{reasons}
## Every tuning

Medians over seeds. "Error of f_lin at θ_T": ‖f_lin(θ_T) − f_T‖²/‖f_T − f_0‖² on unseen points, f_lin the network linearised at the
start of tuning. "Descent by the kernel": the same with what as many updates do in a network whose kernel stays that of the start;
it is also what "by the kernel" is right about. ‖ΔΘ‖/‖Θ‖ and S = 1 − cosine of the kernel on the training points, from the start of
tuning to its end. "Moves most": of the layers that are trained, that whose own kernel changes most, in the first seed.

{_medians(runs)}
"""


def _words(settings: dict[str, dict[str, int]]) -> str:
    if "words" not in settings["widths"]:
        return ""
    width = settings["widths"]["words"]
    return f"""- **words**: a GPT-2 of two blocks and width {width} learns a made-up language. Its texts have a mood that weights
  their words; texts of one domain end with a verdict, those of the other do not. It is tuned to give one of these: the output
  is the difference of the logits of the two verdicts. **other words**: of two words that mean nothing of it.
"""


def _medians(runs: Runs) -> str:
    rows = []
    for kind in runs.kinds:
        for start, way in runs.ways:
            for share in runs.shares:
                found = runs.parts(start, way, kind=kind, share=share)
                if found:
                    rows.append([kind, start, way, f"{share:g}", *_cells(found)])
    return grid(HEADS, rows)


def _cells(found: list[Part]) -> list[str]:
    def middle(number: Callable[[Part], float]) -> str:
        return spread([number(part) for part in found]).split(" ")[0]

    before, after, told = (middle(lambda part, at=at: 100 * part["right"][at]) for at in range(3))
    layers = found[0]["layers"]
    return [
        middle(lambda part: part["updates"]),
        middle(lambda part: part["loss"]),
        f"{before} → {after}, {told} %",
        middle(anchored),
        middle(lambda part: part["foretold"]),
        middle(lambda part: part["change"]),
        middle(lambda part: part["distance"]),
        max(layers, key=lambda name: layers[name]) if found[0]["change"] > 0 else "–",
    ]
