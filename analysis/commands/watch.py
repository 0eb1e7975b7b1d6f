"""``kerneltrack report --watch``: the page is written anew while runs go on, and once more when they are closed.

Nothing is served and no port is opened: the file is replaced as a whole, and the open page reads itself anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kerneltrack.archive import is_being_written, open_archive

#: Seconds between two looks at the archives, and between two readings of the page.
EVERY = 10


def run_watch(
    archives: Sequence[Path], make: Callable[[int], None], *, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Make the page again whenever an archive has more snapshots, until no process writes any of them.

    Args:
        archives: of the page.
        make: writes the page; its argument is after how many seconds the page reads itself anew, 0 for the last time.
        sleep: waits so many seconds.

    Returns:
        Whether a run went on at the beginning.

    Raises:
        ArchiveError: an archive cannot be read.
    """
    went_on, known = _go_on(archives), [0]
    try:
        while _go_on(archives):
            lengths = [_length(path) for path in archives]
            if min(lengths) and lengths != known:
                make(EVERY)
                known = lengths
            sleep(EVERY)
    except KeyboardInterrupt:
        if known != [0]:
            make(0)  # a page that is left open must not go on reading a file that nobody replaces
        raise
    make(0)
    return went_on


def _go_on(archives: Sequence[Path]) -> bool:
    return any(is_being_written(path) for path in archives)


def _length(path: Path) -> int:
    with open_archive(path) as archive:
        return len(archive)
