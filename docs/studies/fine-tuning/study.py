"""Fine-tuning: is it in the kernel regime? In full, the head alone, by low-rank adapters; against training from scratch.

    python docs/studies/fine-tuning/study.py --size smoke|desk|full [--out DIR] [--share I/N]
    python docs/studies/fine-tuning/study.py --checkpoint FOLDER --data FILE.npz [--rank R] [--updates K]

The first trains what is not there yet, and writes results.json and README.md from it; with a share only every N-th of the runs
is made, from the I-th, and no page. The second asks the same of a causal language model of yours, a folder that
transformers' save_pretrained wrote, and prints the numbers; tune_models.own_data says what the file holds.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from claims import command_line  # noqa: E402  # the folder is no package
from results import Results, collect, publish, share_of  # noqa: E402
from tune_models import WordDifference, own_data, tuned  # noqa: E402
from tune_page import page  # noqa: E402
from tune_runs import Descent, follow, run  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        seeds: of each network.
        widths: of the MLP ("images") and the language model ("words").
        updates: of the pre-training of each.
        train: points to tune on.
        test: unseen ones.
        ranks: of adapters.
        shares: η as shares of 2N/λ_1 at the start of tuning.
        level: of the training loss, at which tuning ends.
        longest: updates of tuning at most.
    """

    seeds: int
    widths: dict[str, int]
    updates: dict[str, int]
    train: int
    test: int
    ranks: tuple[int, ...] = (1, 4, 16)
    shares: tuple[float, ...] = field(default=(0.05, 0.5))
    level: float = 0.1
    longest: int = 500


SIZES = {
    "smoke": Size(1, {"images": 64}, {"images": 150}, train=24, test=60, ranks=(1, 16), shares=(0.5,), longest=300),
    "desk": Size(3, {"images": 128, "words": 32}, {"images": 300, "words": 300}, train=32, test=200),
    "full": Size(
        6, {"images": 1024, "words": 256}, {"images": 300, "words": 2_000}, train=256, test=300, longest=20_000
    ),
}


def measure(name: str, size: Size, folder: Path, share: Sequence[int] = (0, 1)) -> Results:
    """Every run of this share, seed by seed, so that an interrupted study has every network."""

    def one(kind: str, rate: float, seed: int) -> dict[str, Any]:
        return run(
            kind, rate, seed, width=size.widths[kind], updates=size.updates[kind], train=size.train, test=size.test,
            ranks=size.ranks, level=size.level, longest=size.longest,
        )  # fmt: skip

    runs: dict[str, Callable[[], dict[str, Any]]] = {
        f"{kind}-{rate:g}-seed-{seed}": partial(one, kind, rate, seed)
        for seed in range(size.seeds)
        for rate in size.shares
        for kind in size.widths
    }
    return collect("fine-tuning", name, size, share_of(runs, share), folder)


def own(checkpoint: Path, data: Path, rank: int, updates: int) -> dict[str, dict[str, Any]]:
    """A user's model, tuned in full and by adapters, at a quarter of the stable rate; nothing is fetched."""
    from transformers import AutoModelForCausalLM

    points, words = own_data(data)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True, attn_implementation="eager").eval()
    descent = Descent(share=0.25, level=0.1, updates=updates)
    ways = ("full", f"rank {rank}")
    return {way: follow(tuned(WordDifference(copy.deepcopy(model), *words), way), points, descent) for way in ways}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", help="I/N: every N-th run, from the I-th, and no page")
    parser.add_argument("--checkpoint", type=Path, help="a folder with a causal language model of your own")
    parser.add_argument("--data", type=Path, help="an .npz with its points")
    parser.add_argument("--rank", type=int, default=4, help="of the adapters of --checkpoint")
    parser.add_argument("--updates", type=int, default=200, help="of --checkpoint, at most")
    (name, size, out), words = command_line(parser, SIZES, "fine-tuning")
    if words.checkpoint:
        print(json.dumps(own(words.checkpoint, words.data, words.rank, words.updates), indent=1))
        return
    if words.share:
        measure(name, size, out, [int(part) for part in words.share.split("/")])
        return
    publish(measure(name, size, out), HERE if name == "desk" else out, page)


if __name__ == "__main__":
    main()
