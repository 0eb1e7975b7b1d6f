"""The measurements as Markdown: medians, spread, memory, errors, ratios to the best peer and the floor."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
from workloads import WORKLOADS

#: Larger errors are another quantity, or wrong; such a row is not compared with.
RIGHT = 1e-4

COLUMNS = (
    "package · method",
    "time",
    "fastest – slowest (repeats)",
    "processor",
    "memory",
    "error",
    "speed-up",
    "remarks",
)

HEAD = """# Benchmarks

Made by `make bench` on {when}: {processor}, {threads} threads, {device}, float32. Every peer computes the
same kernel of the same weights and inputs, each in a fresh process of its own, one at a time.

- **time**: median of the repeats after a warm-up call, from model and inputs to the finished kernel;
  compilation ahead of time is apart. Beside it the fastest and the slowest repeat.
- **processor**: median processor time of a call, all threads together. Beside other jobs it is the fairer
  number; time × threads well above it says that the machine was not idle, and the rows are to be redone.
- **memory**: what the calls added to resident memory at their peak (on an accelerator: the most that was
  allocated).
- **error**: largest difference from a float64 double loop over plain autograd on the first and last samples,
  over the largest entry. Rows above {right:g} are marked and compared with nothing.
- **speed-up**: how many times faster kerneltrack is than this row.
- **floor**: the FLOPs of the cheapest known exact contraction (see `tests/bench/floor.py`) at the rate of a
  large matrix product measured in the same run. The floor counts arithmetic only; no memory traffic.
"""


def milliseconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def mebibytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def is_right(row: dict[str, Any]) -> bool:
    return "failed" not in row and row["error"] < RIGHT


def median(row: dict[str, Any]) -> float:
    return statistics.median(row["times"])


def line(row: dict[str, Any], ours: float | None) -> str:
    name = f"{row['peer']} · {row['method']}"
    if "failed" in row:
        why = row.get("why", "").split("\n")[0].replace("|", "/")[:90]
        return f"| {name} | {row['failed']} | | | | | | {why} |"
    spread = f"{milliseconds(min(row['times']))} – {milliseconds(max(row['times']))} ({len(row['times'])})"
    remarks = [row["note"]] if row.get("note") else []
    if "compile" in row:
        remarks.append(f"compiled in {row['compile']:.1f} s")
    if not is_right(row):
        remarks.append("**wrong**")
    faster = f"{median(row) / ours:.3g}×" if ours and is_right(row) and row["peer"] != "kerneltrack" else ""
    cells = [
        name,
        milliseconds(median(row)),
        spread,
        milliseconds(statistics.median(row["busy"])),
        mebibytes(row["memory"]),
        f"{row['error']:.0e}",
        faster,
    ]
    return f"| {' | '.join(cells)} | {'; '.join(remarks)} |"


def best(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    right = [row for row in rows if is_right(row)]
    return min(right, key=median) if right else None


def section(name: str, rows: list[dict[str, Any]], floor: float, rate: float) -> list[str]:
    workload = WORKLOADS[name]
    mine = best([row for row in rows if row["peer"] == "kerneltrack"])
    others = [row for row in rows if row["peer"] != "kerneltrack"]
    out = [
        f"\n## {name}: {workload.about}; N = {workload.samples}, O = {workload.outputs}, {workload.kind}\n",
        f"| {' | '.join(COLUMNS)} |",
        "|" + " --- |" * len(COLUMNS),
    ]
    order = sorted(rows, key=lambda row: median(row) if "failed" not in row else float("inf"))
    out += [line(row, median(mine) if mine else None) for row in order]
    bound = f"floor {floor / 1e9:.3g} GFLOP at {rate / 1e9:.0f} GFLOP/s: {milliseconds(floor / rate)}"
    if mine:
        bound += f"; kerneltrack takes {median(mine) * rate / floor:.2f}× that"
        rival = best(others)
        if rival:
            bound += (
                f" and is {median(rival) / median(mine):.2f}× as fast as the best peer ({rival['peer']} · "
                f"{rival['method']}), with {mine['memory'] / max(rival['memory'], 1):.2f}× its memory"
            )
    return [*out, f"\n{bound}."]


def write_report(results: dict[str, Any], cache: Path, output: Path) -> None:
    """Write the page from the results so far."""
    pages = [HEAD.format(right=RIGHT, **{k: results[k] for k in ("when", "processor", "threads", "device")})]
    if results["missing"]:
        pages.append(f"Not installed where this was run: {', '.join(results['missing'])}.\n")
    versions = {row["peer"]: row["version"] for row in results["rows"] if "version" in row}
    pages.append("Versions: " + ", ".join(f"{peer} {version}" for peer, version in versions.items()) + ".")
    for name in (name for name in WORKLOADS if name in results["rates"]):
        rate = results["rates"][name]
        rows = [row for row in results["rows"] if row["workload"] == name]
        floor = float(np.load(cache / f"{name}.npz")["floor"])
        pages += section(name, rows, floor, rate)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(pages) + "\n")
