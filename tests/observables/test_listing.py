"""The page of observables in the documentation is the catalogue's."""

import subprocess
import sys
from pathlib import Path

from kerneltrack.observables import catalogue
from kerneltrack.observables.listing import markdown

PAGE = Path(__file__).parents[2] / "docs" / "observables.md"


def test_the_page_is_up_to_date():
    # In a process of its own: another test's registered observable must not appear.
    command = [sys.executable, "-m", "kerneltrack.observables"]
    written = subprocess.run(command, capture_output=True, check=True, env={"PYTHONIOENCODING": "utf-8"})
    assert PAGE.read_text(encoding="utf-8") == written.stdout.decode(), (
        "run: python -m kerneltrack.observables > docs/observables.md"
    )


def test_every_row_has_as_many_cells_as_the_head():
    rows = [line for line in markdown(catalogue()).splitlines() if line.startswith("|")]
    cells = [line.replace("\\|", "").count("|") for line in rows]
    assert len(rows) == len(catalogue()) + 2  # its head has two lines
    assert set(cells) == {9}
