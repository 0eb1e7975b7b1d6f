"""A progress bar over pairs of samples."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(show: bool | float, total: int) -> Iterator[Callable[[int], None]]:
    """A rich progress bar over pairs of samples, or nothing; gives the function that advances it.

    Args:
        show: True for a bar, False for none; a number of seconds for a bar on a terminal's standard error that appears
            once the computation has taken so long, and is gone when it ends.
        total: pairs of samples.
    """
    if show is False:
        yield lambda pairs: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    patience = 0.0 if show is True else show
    console = Console(stderr=show is not True)
    if show is not True and not console.is_terminal:
        yield lambda pairs: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, transient=show is not True)
    task, began = bar.add_task("tangent kernel", total=total), time.perf_counter()

    def advance(pairs: int) -> None:
        bar.advance(task, pairs)
        if time.perf_counter() - began >= patience:
            bar.start()

    with contextlib.ExitStack() as stack:
        if not patience:
            bar.start()
        stack.callback(lambda: bar.stop() if bar.live.is_started else None)
        yield advance
