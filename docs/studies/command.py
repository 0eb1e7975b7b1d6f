"""The command of a study whose runs can be shared between processes: ``--size``, ``--out`` and ``--share``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from claims import command_line
from results import Results, publish

Size = TypeVar("Size", contravariant=True)


class Measure(Protocol[Size]):
    """Makes the runs of a share (i, n) that are not in the folder yet."""

    def __call__(self, name: str, size: Size, folder: Path, share: Sequence[int] = (0, 1)) -> Results: ...


def run(
    what: str, study: str, sizes: Mapping[str, Size], measure: Measure[Size], home: Path,
    page: Callable[[Results], str], **pictures: Callable[[Results, Path], object],
) -> None:  # fmt: skip
    """What a study's script does: measure, then publish beside the script at desk size, else in the folder of the runs.

    Args:
        what: the study, in a sentence.
        study: its name.
        sizes: by name.
        measure: the runs.
        home: the study's folder.
        page: its page.
        pictures: of the page, by the name of the file.
    """
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--share", help="I/N: every N-th run, from the I-th, and no page")
    (name, size, out), words = command_line(parser, sizes, study)
    if words.share:
        measure(name, size, out, [int(part) for part in words.share.split("/")])
        return
    publish(measure(name, size, out), home if name == "desk" else out, page, **pictures)
