"""Numbers that pages repeat are those of the page where they were measured. Oracle: docs/benchmarks*.md, of `make bench`."""

import re

import pytest

from tests.docs.pages import ROOT

SECONDS = {"ms": 1e-3, "s": 1.0}


def rows(path, head):
    """The cells of the table under a head's first cell."""
    text = (ROOT / path).read_text(encoding="utf-8").partition(f"| {head} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def seconds(text):
    number, unit = text.split()
    return float(number) * SECONDS[unit]


def fastest(section):
    """(our time, the fastest other package, its time) of a section of the benchmark, as texts."""
    found = re.findall(r"^\| (\w+) · [^|]* \| ([\d.]+ m?s) \|", section, re.MULTILINE)
    ours = next(time for package, time in found if package == "kerneltrack")
    others = [(seconds(time), package, time) for package, time in found if package != "kerneltrack"]
    return ours, *min(others)[1:]


COMPARED = rows("docs/comparison.md", "network")


@pytest.mark.parametrize("row", COMPARED, ids=[row[0][:2] for row in COMPARED])
def test_speeds_are_those_of_the_benchmark(row):
    name, ours, other = row
    measured = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    section = measured.partition(f"\n## {name[:2]}: ")[2].partition("\n## ")[0]
    assert (ours, *other.split(", ")) == fastest(section)


def test_every_full_kernel_of_the_benchmark_is_compared():
    """No row is left out because another package was the faster one."""
    heads = re.findall(r"^## (\w+): .*, full$", (ROOT / "docs/benchmarks.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(row[0][:2] for row in COMPARED) == sorted(heads)


def test_costs_in_the_readme_are_those_of_the_overhead_page():
    shown = rows("README.md", "network")
    measured = rows("docs/benchmarks-overhead.md", "training")
    assert len(shown) == len(measured)
    for (_, _, update, snapshot, share), row in zip(shown, measured, strict=True):
        assert row[2] == update
        assert row[3].startswith(f"{snapshot} (")
        assert share in re.sub(r" \(\d+ snapshots\)", "", row[4]).split("; ")
