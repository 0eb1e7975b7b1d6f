"""The page of observables in the documentation is the catalogue's."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs" / "observables_page.py"
PAGE = SCRIPT.with_name("observables.md")


def checked(script):
    # In a process of its own: another test's registered observable must not appear.
    return subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)


def test_the_page_is_up_to_date():
    assert checked(SCRIPT).returncode == 0, "run: python docs/observables_page.py"


def test_a_page_that_is_not_is_told(tmp_path):
    """Negative control: one row less."""
    script = tmp_path / SCRIPT.name
    script.write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    lines = PAGE.read_text(encoding="utf-8").splitlines(keepends=True)
    row = next(i for i, line in enumerate(lines) if "`trace`" in line)
    (tmp_path / PAGE.name).write_text("".join(lines[:row] + lines[row + 1 :]), encoding="utf-8")
    done = checked(script)
    assert done.returncode == 1
    assert "not what the catalogue says" in done.stderr


def test_every_row_has_as_many_cells_as_the_head():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert len(rows) > 90
    assert {line.replace("\\|", "").count("|") for line in rows} == {9}
