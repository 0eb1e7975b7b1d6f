"""Write docs/gallery.md, every figure with the call that draws it: ``python docs/gallery_page.py``. ``--check`` compares.

The page has no pictures of its own, so that the repository holds none that go stale. The site draws them while it is built, by
these very calls (docs/site/gallery_pictures.py).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

from kerneltrack.analysis.figures import registered
from kerneltrack.analysis.figures.registry import FigureSpec

PAGE = Path(__file__).with_name("gallery.md")

#: The archives that a figure is drawn of here, and what its call says besides, where that is not the demo alone.
ARCHIVES: Mapping[str, str] = {
    "overview": "out/demo.h5 --control out/control.h5",
    "stability": "out/demo.h5 --control out/control.h5",
    "rank": "out/demo.h5 --control out/control.h5",
    "lr-decay": "out/demo.h5 --control out/control.h5",
    "loss": "out/demo.h5 --control out/control.h5",
    "eigenfunction-lines": "out/line.h5",
    "eigenfunction-samples": "out/classes.h5",
    "lr-trend": "out/classes.h5",
    "freeze-here": "out/classes.h5 --probe new",
    "activations": "out/classes.h5",
    "ledger": "out/classes.h5",
    "ledger-modes": "out/classes.h5",
    "sharpness": "out/classes.h5",
    "weighted-spectrum": "out/filters.h5",
    "angular-velocity": "out/classes.h5",
    "oscillation": "out/edge.h5",
    "edge-swing": "out/balance.h5",
    "lazy-rich": "out/classes.h5",
    "class-blocks": "out/classes.h5",
    "feature-atlas": "out/classes.h5",
    "class-levels": "out/classes.h5",
    "estimates": "out/leading.h5",
    "calibration": "out/squares.h5 --probe new",
    "influence": "out/squares.h5",
    "learning-curves": "out/squares.h5 --probe new",
    "task-shift": "out/tasks.h5 --probe old",
    "runs": "out/demo.h5 out/control.h5",
}

_HEAD = """# Gallery

Every figure that `kerneltrack plot` draws, with the call that draws it. `-o` takes PNG, PDF or SVG by its ending; `--style slide`
and `--style dark` change the look; `kerneltrack plot --list` prints the names. A report (`kerneltrack report`) holds all of those
that its archive has the numbers for.

The archives come from two commands:

```sh
kerneltrack demo --out out
python docs/gallery_runs.py --out out
```

The first writes `out/demo.h5` and `out/control.h5`, in three minutes on two cores. The second is a script of the repository
([gallery_runs.py](gallery_runs.py)); it needs scikit-learn, and writes `out/classes.h5`,
`out/filters.h5`, `out/line.h5`, `out/leading.h5`, `out/squares.h5`, `out/tasks.h5`, `out/edge.h5` and
`out/balance.h5` in a minute and a quarter on one core.

This page is generated: `python docs/gallery_page.py`. The site that `make docs` builds shows the pictures too. To draw a figure
of your own, see [add a figure](how-to/add-a-figure.md).
"""

_TITLES = {
    "summary": "At a glance",
    "alignment": "Alignment: eigenfunctions, target and output",
    "spectrum": "Spectrum",
    "learning rate": "Learning rate",
    "motion": "Motion: how far, how fast, and what was learned",
}

_RUNS = """
## Several runs

### `runs`

**Several runs side by side.** The main numbers of each run over training. Below six runs single lines are drawn; from six on
`compare -o` draws mean and spread by group ([comparing runs](how-to/command-line.md#comparing-runs)).
"""


def call(name: str) -> str:
    """What a user types to draw a figure."""
    archives, _, options = ARCHIVES.get(name, "out/demo.h5").partition(" --")
    return f"kerneltrack plot {archives} {f'--{options} ' if options else ''}--figure {name} -o {name}.png"


def names() -> list[str]:
    """Every figure of the page."""
    return [*registered(), "runs"]


def markdown(figures: Mapping[str, FigureSpec]) -> str:
    """The whole page."""
    text = _HEAD
    for section, group in groupby(
        sorted(figures.values(), key=lambda f: list(_TITLES).index(f.section)), lambda f: f.section
    ):
        text += f"\n## {_TITLES[section]}\n" + "".join(map(_entry, group))
    return text + _RUNS + _call("runs")


def _entry(spec: FigureSpec) -> str:
    moves = "\nIt moves: `-o` with the ending .gif shows every moment.\n" if spec.film else ""
    needs = f"\nThe archive must hold {', '.join(f'`{need}`' for need in spec.needs)}.\n" if spec.needs else ""
    return f"\n### `{spec.name}`\n\n**{spec.title}.** {spec.caption}\n{moves}{needs}{_call(spec.name)}"


def _call(name: str) -> str:
    return f"\n```sh\n{call(name)}\n```\n"


def main() -> int:
    text = markdown(registered())
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print("docs/gallery.md is not what the figures say", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
