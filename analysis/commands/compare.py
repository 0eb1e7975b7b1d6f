"""``kerneltrack compare``: runs side by side at common positions, or swept over a number of their metadata."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..comparison import compare, defaults, group_tables, sweep, sweep_table, tables
from ..output import print_json, print_tables
from ..trajectory import load

if TYPE_CHECKING:
    from ..figures import Format
    from ..trajectory import Trajectory


def run_compare(
    archives: Sequence[Path],
    *,
    by: Literal["step", "epoch", "samples", "flow_time", "loss"],
    quantities: Sequence[str],
    group: str | None,
    probe: str | None,
    output: Path | None,
    style: str,
    kind: Format | None,
    as_json: bool,
) -> None:
    """Align runs and draw, print or tabulate them.

    Raises:
        AnalysisError: the runs are not comparable, or do not hold what is asked for.
        OutputError: nothing may be written at ``output``.
    """
    found = compare(_checked(archives, probe, output, kind), by=by, quantities=quantities)
    if output is not None:
        from ..figures import save_runs

        save_runs(found, output, style, group=group, kind=kind)
    elif as_json:
        print_json(found.to_dict())
    else:
        print_tables(tables(found) if group is None else group_tables(found, group))


def run_sweep(
    archives: Sequence[Path],
    against: str,
    *,
    quantities: Sequence[str],
    at: int | None,
    probe: str | None,
    output: Path | None,
    style: str,
    kind: Format | None,
    as_json: bool,
) -> None:
    """Values over the number ``against`` of the metadata, with slopes: drawn, printed or tabulated. Errors as above."""
    runs = _checked(archives, probe, output, kind)
    found = sweep(runs, against, list(quantities) or defaults(runs), at=at)
    if output is not None:
        from ..figures import save_sweep

        save_sweep(found, output, style, kind=kind)
    elif as_json:
        print_json([one.to_dict() for one in found])
    else:
        print_tables([sweep_table(found)])


def _checked(archives: Sequence[Path], probe: str | None, output: Path | None, kind: Format | None) -> Trajectory:
    """The runs, once it is known that the figure can be written."""
    if output is not None:
        from ..figures import format_of

        format_of(output, kind)
    return load(archives, probe=probe)
