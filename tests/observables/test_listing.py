"""The page of observables in the documentation, and the notation's table of needs, are the catalogue's."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "observables_page.py"
PAGE = SCRIPT.with_name("observables.md")


def checked(script):
    # In a process of its own: another test's registered observable must not appear.
    return subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)


def test_the_pages_are_up_to_date():
    assert checked(SCRIPT).returncode == 0, "run: python docs/observables_page.py"


@pytest.mark.parametrize(("page", "row"), [("observables.md", "`trace`"), ("notation.md", "| `spectrum` |")])
def test_a_page_that_is_not_is_told(tmp_path, page, row):
    """Negative control: one row less."""
    script = tmp_path / SCRIPT.name
    for name in (SCRIPT.name, "observables.md", "notation.md"):
        shutil.copy(SCRIPT.with_name(name), tmp_path / name)
    lines = (tmp_path / page).read_text(encoding="utf-8").splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if row in line)
    (tmp_path / page).write_text("".join(lines[:at] + lines[at + 1 :]), encoding="utf-8")
    done = checked(script)
    assert done.returncode == 1
    assert done.stderr == f"not what the catalogue says: {page}\n"


def test_every_row_has_as_many_cells_as_the_head():
    for part, bars in zip(PAGE.read_text(encoding="utf-8").split("## How each is read"), (9, 3), strict=True):
        rows = [line for line in part.splitlines() if line.startswith("|")]
        assert len(rows) > 90
        assert {line.replace("\\|", "").count("|") for line in rows} == {bars}
