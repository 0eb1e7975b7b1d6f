"""One sweep over width for two papers on the limits of the NTK, and the deep limit in closed form.

    python docs/studies/width-sweep/study.py --size smoke|desk|full [--out DIR]

trains what is not there yet, and writes the tables of claims, the figures and README.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from claims import command_line  # noqa: E402  # the folder is no package
from depth_claims import Deep, deep  # noqa: E402
from measured import Archives  # noqa: E402
from width_page import figures, page  # noqa: E402
from width_runs import SETTINGS, run  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        widths: of each setting; channels for the CNN.
        seeds: of each width.
        samples: N digits, trained on and measured.
        steps: full-batch updates.
        directions: random points on the sphere, for each seed.
        counts: n, the sizes of the data sets of the closed form.
        depths: at which the deep kernel is compared with its limits.
        device: that trains and measures; "auto" is a GPU where there is one.
    """

    widths: dict[str, tuple[int, ...]]
    seeds: int
    samples: int
    steps: int
    directions: int
    counts: tuple[int, ...]
    depths: tuple[int, ...]
    device: str = "cpu"


def _widths(lazy: tuple[int, ...], other: tuple[int, ...], channels: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {
        name: channels if s.convolutional else lazy if s.parametrisation == "ntk" else other
        for name, s in SETTINGS.items()
    }


SIZES = {
    "smoke": Size(
        widths={"relu-ntk": (16, 64, 256), "relu-mup": (16, 64, 256)},
        seeds=2,
        samples=16,
        steps=48,
        directions=1,
        counts=(50, 100, 200),
        depths=(100, 1000),
    ),
    "desk": Size(
        widths=_widths((32, 64, 128, 256, 512, 1024), (32, 128, 512), (8, 16, 32, 64)),
        seeds=6,
        samples=64,
        steps=320,
        directions=2,
        counts=(125, 250, 500, 1000, 2000),
        depths=(20, 100, 1000, 20_000),
    ),
    "full": Size(
        widths=_widths((32, 64, 128, 256, 512, 1024, 2048, 4096), (32, 128, 512, 2048), (8, 16, 32, 64, 128, 256)),
        seeds=10,
        samples=128,
        steps=2000,
        directions=8,
        counts=(125, 250, 500, 1000, 2000, 4000, 8000),
        depths=(20, 100, 1000, 20_000, 100_000),
        device="auto",
    ),
}


def trained(folder: Path, size: Size) -> Iterator[Path]:
    """The archive of every run, seed by seed, so that an interrupted sweep has every setting."""
    for seed in range(size.seeds):
        for name, widths in size.widths.items():
            for width in widths:
                yield run(
                    folder,
                    SETTINGS[name],
                    width,
                    seed,
                    samples=size.samples,
                    steps=size.steps,
                    directions=size.directions,
                    device=size.device,
                )


def measure(folder: Path, size: Size) -> tuple[Archives, Deep]:
    """Everything the page is written from."""
    return Archives.read(list(trained(folder, size))), deep(size.counts, size.depths)


def main() -> None:
    (name, size, out), _ = command_line(
        argparse.ArgumentParser(description=__doc__.splitlines()[0]), SIZES, "width-sweep"
    )
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    sweep, closed = measure(out, size)
    home = HERE if name == "desk" else out
    figures(sweep, closed, home)
    (home / "README.md").write_text(page(name, size, sweep, closed), encoding="utf-8")
    print(f"wrote {home / 'README.md'}")


if __name__ == "__main__":
    main()
