"""``make setups``: run every set-up through its claims and write what came out into docs/setups.md."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # run by path, a file's own folder comes first, not the root

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "setups.md"
COLUMNS = (
    "transparent",
    "transparent, also when a measurement raises",
    "measured equal to the reference",
    "resumed equal to uninterrupted",
)
HEAD = """# Set-ups

Every set-up of a Trainer that is tested, and what came out. `make setups` runs the tests and writes this page; a cell is ✓
only where its test passed in that run.

- **transparent**: the same seed with and without the tracker ends in bit-equal weights, buffers, optimizer state, gradients,
  generators (Python, NumPy, torch, the loader's own), train/eval flags and logged losses, and so it is before and after
  every batch; **also when a measurement raises** in the middle, with `on_error="warn"`.
- **measured**: the stored kernel equals plain autograd's of the network as a spy callback copied it at that step.
- **resumed**: every number in the archive of a run resumed from a checkpoint in mid-epoch equals, bit for bit, that of the
  run that was not interrupted. Without dropout and shuffling, whose generators Lightning's checkpoints do not hold, and with a
  loader that goes on in mid-epoch.

"""
FOOT = """
FSDP1, DeepSpeed and tensor parallelism are refused before the first batch. Both import roots and LightningCLI with every
argument are tested in `tests/callbacks/test_roots.py`, each guard's necessity in `tests/callbacks/test_guards.py`.
"""


class Outcomes:
    """A pytest plugin that keeps (set-up, column) → whether all of its tests passed."""

    def __init__(self):
        self.cells, self.found = {}, {}

    def pytest_collection_modifyitems(self, items):
        from tests.callbacks.test_ranks import LABELS

        items[:] = [item for item in items if hasattr(getattr(item, "function", None), "column")]
        for item in items:
            name = item.callspec.params["name"]
            self.cells[item.nodeid] = LABELS.get(name, name), item.function.column

    def pytest_runtest_logreport(self, report):
        cell = self.cells.get(report.nodeid)
        if cell is not None and (report.when == "call" or report.failed):
            self.found[cell] = self.found.get(cell, True) and report.passed


def rows():
    """The set-ups in the page's order, each with the reason why a column is not claimed of it."""
    from tests.callbacks.setups import SETUPS
    from tests.callbacks.test_ranks import LABELS

    for name, setup in SETUPS.items():
        yield name, {COLUMNS[2]: setup.unmeasured, COLUMNS[3]: setup.unresumed}
    for name in dict.fromkeys(LABELS.values()):
        yield name, {COLUMNS[1]: "" if name.startswith("DDP") else "the same code as under DDP"}


def table(found):
    notes, lines = [], ["| set-up | " + " | ".join(COLUMNS) + " |", "| --- |" + " :---: |" * len(COLUMNS)]
    for name, reasons in rows():
        cells = []
        for column in COLUMNS:
            reason = reasons.get(column, "")
            if reason:
                notes += [reason] if reason not in notes else []
                cells.append(f"— ({notes.index(reason) + 1})")
            else:
                cells.append({True: "✓", False: "✗", None: "not run"}[found.get((name, column))])
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    remarks = [f"{number}. {reason}." for number, reason in enumerate(notes, 1)]
    return "\n".join([*lines, "", "Not claimed, because:", "", *remarks, ""])


def main():
    outcomes = Outcomes()
    files = [str(HERE / "test_setups.py"), str(HERE / "test_ranks.py")]
    pytest.main(["-q", "--show-capture=no", "-p", "no:cacheprovider", *files], plugins=[outcomes])
    PAGE.write_text(HEAD + table(outcomes.found) + FOOT)
    return int(not all(outcomes.found.values()))


if __name__ == "__main__":
    sys.exit(main())
