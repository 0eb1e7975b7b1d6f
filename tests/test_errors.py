"""An error of another process arrives as it was raised. Oracle: every class that there is, by its own attributes and text."""

import pickle

import pytest

from kerneltrack.errors import KerneltrackError, MemoryBudgetError, MissingPackageError, RankError

#: Those that make the clauses of other arguments.
MADE = {
    MemoryBudgetError: lambda: MemoryBudgetError("too small", required_bytes=3, got="2 bytes"),
    RankError: lambda: RankError(2, "ValueError: x"),
    MissingPackageError: lambda: MissingPackageError("dask", "Install it."),
}


def kinds(kind=KerneltrackError):
    yield kind
    for child in kind.__subclasses__():
        yield from kinds(child)


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_an_error_is_pickled_whole(kind):
    full = {"expected": 3, "got": [1, None], "where": "here", "remedy": "Do this."}
    error = MADE.get(kind, lambda: kind("a problem", **full))()
    error.add_note("while reading")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)  # its notes are among them
    assert getattr(again, "name", None) == getattr(error, "name", None)
