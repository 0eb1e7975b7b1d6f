"""The gallery's pictures, drawn by the calls that stand on its page, and put beside them."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from kerneltrack.analysis.cli import main as kerneltrack

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gallery_page
import gallery_runs


def write(page: Path, demo: Path) -> None:
    """Draw every figure and show it above its call.

    Args:
        page: the staged copy of docs/gallery.md.
        demo: the folder with the demo's archives; the small runs are added to it where they are not there.

    Raises:
        FileNotFoundError: there are no archives of the demo.
        RuntimeError: a call of the page fails.
    """
    for name in ("demo.h5", "control.h5"):
        if not (demo / name).exists():
            raise FileNotFoundError(f"{demo / name} is missing: run `kerneltrack demo --out {demo}`")
    for name in gallery_runs.RUNS:
        gallery_runs.train(demo, name, 200)
    pictures = page.with_name("figures") / "gallery"
    pictures.mkdir(parents=True)
    text = page.read_text(encoding="utf-8")
    for name in gallery_page.names():
        call = gallery_page.call(name)
        _run(call, demo, pictures)
        shown = f"![The figure {name}](figures/gallery/{name}.png)\n\n```sh\n{call}\n```"
        text = text.replace(f"```sh\n{call}\n```", shown)
    page.write_text(text, encoding="utf-8")


def _run(call: str, demo: Path, pictures: Path) -> None:
    """A call of the page, its archives taken from ``demo`` and its picture written to ``pictures``."""
    _, *words = shlex.split(call.replace("out/", f"{demo.resolve()}/"))
    with _inside(pictures), contextlib.redirect_stdout(io.StringIO()):
        code = kerneltrack(words)
    if code:
        raise RuntimeError(f"`{call}` ended with {code}")


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
