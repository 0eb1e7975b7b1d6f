"""What surrounds a computation: the cost of one forward pass, and a progress bar."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from kerneltrack.ntk.inputs import Inputs
from kerneltrack.ntk.network import Network


def forward_flops(network: Network, samples: Inputs) -> int:
    """FLOPs of one sample's forward pass, as torch counts them (matrix products, convolutions, attention)."""
    counter = FlopCounterMode(display=False)
    with network.measuring(), torch.no_grad(), counter:
        network.evaluate(network.parameters, samples.rows(0, 1))
    return int(counter.get_total_flops())


@contextlib.contextmanager
def progress_bar(show: bool, total: int) -> Iterator[Callable[[int], None]]:
    """A rich progress bar over pairs of samples, or nothing; gives the function that advances it."""
    if not show:
        yield lambda pairs: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("tangent kernel", total=total)
        yield lambda pairs: bar.advance(task, pairs)
