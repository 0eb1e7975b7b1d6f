"""The progress bar: at once where it is asked for, late or never where it would be in the way."""

import functools
import io
import itertools

import pytest
import rich.console

from kerneltrack.ntk import progress


@pytest.mark.parametrize(
    ("show", "terminal", "slow", "shown"),
    [
        (True, True, False, True),
        (False, True, True, False),
        (5.0, True, False, False),
        (5.0, True, True, True),
        (5.0, False, True, False),
    ],
)
def test_a_bar_for_those_who_wait_in_front_of_a_terminal(monkeypatch, show, terminal, slow, shown):
    """Oracle: what stands on the console, which is a text here, and a clock that jumps over the patience."""
    text, clock = io.StringIO(), itertools.chain([0.0], itertools.repeat(6.0 if slow else 1.0))
    console = functools.partial(rich.console.Console, file=text, force_terminal=terminal)
    monkeypatch.setattr(rich.console, "Console", lambda **_: console())
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    with progress.progress_bar(show, 4) as advance:
        for _ in range(4):
            advance(1)
    assert ("tangent kernel" in text.getvalue()) == shown
    assert bool(text.getvalue()) == shown
