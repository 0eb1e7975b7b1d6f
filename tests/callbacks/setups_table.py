"""``make setups``: run every set-up through its claims, in every loop, and write what came out into docs/setups.md."""

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
LOOPS_HEAD = """
## Other loops

The same core tracks other loops than Lightning's: [a plain loop](how-to/any-loop.md), [Lightning Fabric](how-to/fabric.md) and
[Hugging Face's Trainer](how-to/hugging-face.md). Each set-up is trained there with and without the tracker, and its archive is
compared, byte for byte but for clocks, identifiers and the provenance, with that of another loop which makes the same updates.

What the tracker takes is processor time inside its own methods, on one thread: an MLP of {parameters:,} parameters in batches of
64, 64 points, default observables, medians of {updates} updates of which {measured} are measured.

"""
LOOPS = {
    "Lightning's Trainer": "the reference",
    "a plain loop": "Lightning's",
    "Lightning Fabric": "Lightning's",
    "Hugging Face's Trainer": "a plain loop's",
}
FOOT = """
FSDP1, DeepSpeed and tensor parallelism are refused before the first batch. Forks for control runs (`keep_forks`) are kept of
Lightning's Trainer and of loops of one's own, in one process; several processes and Hugging Face's Trainer refuse them. Both
import roots and LightningCLI with every argument are tested in `tests/callbacks/test_roots.py`, each guard's
necessity in `tests/callbacks/test_guards.py`.
"""


class Outcomes:
    """A pytest plugin that keeps (set-up, column) → whether all of its tests passed."""

    def __init__(self):
        self.cells, self.found = {}, {}

    def pytest_collection_modifyitems(self, items):
        from tests.callbacks.test_ranks import LABELS

        items[:] = [
            item for item in items if {"column", "loop"} & vars(getattr(item, "function", None) or object).keys()
        ]
        for item in items:
            test, given = item.function, item.callspec.params
            column = test.column if hasattr(test, "column") else test.loop(given)
            self.cells[item.nodeid] = LABELS.get(given["name"], given["name"]), column

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


def loops(found, seconds):
    """The table of other loops: how many set-ups were tried in each, how many of them hold, and what the tracker takes."""
    lines = [
        "| loop | set-ups with the same bits, with and without | the archive is | an update | an update that is measured |",
        "| --- | :---: | --- | ---: | ---: |",
    ]
    for loop, archive in LOOPS.items():
        column = COLUMNS[0] if archive == "the reference" else loop
        outcomes = [passed for (_, claim), passed in found.items() if claim == column]
        idle, busy = seconds[loop]
        held = f"{'✓' if outcomes and all(outcomes) else '✗'} {sum(outcomes)} of {len(outcomes)}"
        lines.append(f"| {loop} | {held} | {archive} | {1e6 * idle:.0f} µs | {1e3 * busy:.0f} ms |")
    names = {loop: [name for name, claim in found if claim == loop] for loop in LOOPS}
    listed = [f"- **{loop}**: {'; '.join(dict.fromkeys(tried))}." for loop, tried in names.items() if tried]
    return "\n".join([*lines, "", "What was tried beside Lightning's Trainer:", "", *listed, ""])


def main():
    outcomes = Outcomes()
    tracking = HERE.parent / "tracking"
    files = [HERE / "test_setups.py", HERE / "test_ranks.py", HERE / "test_hugging_face.py", tracking / "test_loops.py"]
    pytest.main(["-q", "--show-capture=no", "-p", "no:cacheprovider", *map(str, files)], plugins=[outcomes])
    from tests.callbacks import adapter_overhead  # after pytest, which rewrites what it imports

    parameters = sum(p.numel() for p in adapter_overhead.network().parameters())
    head = LOOPS_HEAD.format(
        parameters=parameters, updates=adapter_overhead.UPDATES, measured=len(adapter_overhead.MEASURED)
    )
    page = HEAD + table(outcomes.found) + FOOT + head + loops(outcomes.found, adapter_overhead.medians())
    PAGE.write_text(page, encoding="utf-8")
    return int(not all(outcomes.found.values()))


if __name__ == "__main__":
    sys.exit(main())
