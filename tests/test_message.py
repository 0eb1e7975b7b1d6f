"""What of a row's message is kept where an archive has no room for all. Oracle: the message read back, and counting by hand."""

import itertools
import re

import pytest

from kerneltrack import open_archive
from kerneltrack.callbacks import NTKTracker
from kerneltrack.conventions.message import message
from tests.callbacks.lightning_runs import Regressor, loader, trainer

ROOM = 256
CLASSES = "the targets are no classes: expected one-hot targets, or one output with two values. Give them."
REASONS = {
    "a": "no snapshot before this one",
    "b": CLASSES,
    "c": CLASSES,
    "d": "the function is zero to rounding, so it has no direction",
    "λ": "defined for one kernel output: got 2",
    "e": CLASSES,
}


def read_back(said):
    """({reason: (names, how many more)}, the facts, how many more reasons) of a message whose names have no space."""
    told, facts, gone = {}, [], 0
    for part in filter(None, said.split("; ")):
        if found := re.fullmatch(r"and (\d+) more reasons?", part):
            gone = int(found[1])
        elif found := re.fullmatch(r"((?:[^ ,:]+(?:, )?)+)(?: and (\d+) more)?: (.+)", part):
            assert found[3] not in told
            told[found[3]] = found[1].split(", "), int(found[2] or 0)
        else:
            facts.append(part)
    return told, facts, gone


def test_what_fits_stands_in_full():
    said = message(["skipped 3", ""], [REASONS], room=1000)
    assert said == (
        f"skipped 3; a: no snapshot before this one; b, c, e: {CLASSES}; d: the function is zero to rounding, so it has no "
        "direction; λ: defined for one kernel output: got 2"
    )


@pytest.mark.parametrize("room", range(20, 260, 3))
def test_every_byte_of_room_gives_whole_words_that_count_up(room):
    """Oracle: counting. Names told and "more" are all of a reason's; reasons told and "more" are all reasons."""
    said = message(["fact"], [REASONS], room=room)
    told, facts, gone = read_back(said)
    assert len(said.encode()) <= max(room, len("fact; and 4 more reasons"))
    assert facts == ["fact"]
    assert len(told) + gone == 4
    for reason, (names, more) in told.items():
        own = [name for name, why in REASONS.items() if why.startswith(reason)]
        assert own[: len(names)] == names, said
        assert len(own) == len(names) + more


@pytest.mark.parametrize("room", [60, 90, 120])
def test_no_reason_is_given_up_for_a_later_one(room):
    """Oracle: of every subset that fits, with one name each, the one that says yes to an earlier reason first."""
    short = {
        "a": ["a"],
        "the targets are no classes": ["b", "c", "e"],
        "bb": ["d"],
        "x" * 40: ["f"],
        "c" * 30: ["g", "h"],
    }
    reasons = {name: why for why, names in short.items() for name in names}

    def told(subset):
        parts = [f"{', '.join(short[w])}: {w}" for w in subset]  # shorter than "and 2 more"
        gone = len(short) - len(subset)
        return "; ".join([*parts, *[f"and {gone} more reason{'s' * (gone != 1)}"] * (gone > 0)])

    subsets = itertools.chain.from_iterable(itertools.combinations(short, n) for n in range(len(short) + 1))
    fitting = [subset for subset in subsets if len(told(subset)) <= room]
    best = max(fitting, key=lambda subset: [why in subset for why in short], default=())
    assert tuple(read_back(message([], [reasons], room=room))[0]) == best


def test_probes_share_reasons_and_a_fact_is_told_once():
    first, second = {"a": "why", "b": "why"}, {"b": "why", "c": "why"}
    assert message(["x", "x", ""], [first, second], room=99) == "x; a, b, c: why"
    assert message(["why"], [first, second], room=12) == "a, b, c: why"
    assert (
        message(["why"], [dict.fromkeys("abc", "why"), {"d": "x" * 20}], room=31) == "a, b, c: why; and 1 more reason"
    )


def test_facts_alone_are_never_left_out():
    long = "could not store steps " + ", ".join(map(str, range(200)))
    assert message([long], [REASONS], room=ROOM).startswith(long)


@pytest.mark.parametrize("eigenpairs", ["all", "leading"])
def test_the_rows_of_a_run_say_which_observables_are_nan(tmp_path, eigenpairs):
    """Every observable at once: reasons of 1,000 to 1,750 bytes a row, which fell off in the middle of a word."""
    path = tmp_path / "run.h5"
    tracker = NTKTracker(
        path, probe=12, schedule=4, observables="all", loss="half_mse", top_k=3, eigenpairs=eigenpairs, log=False
    )
    trainer(tracker, max_steps=5).fit(Regressor(), loader())
    with open_archive(path) as archive:
        said = [row.message for row in archive]
    assert len(said) == 3
    for row in said:
        told, facts, gone = read_back(row)
        assert len(row.encode()) <= ROOM
        assert len(told) >= 2
        assert gone
        assert facts == (["3 of 12 eigenpairs, lapack from the kernel"] if eigenpairs == "leading" else [])
