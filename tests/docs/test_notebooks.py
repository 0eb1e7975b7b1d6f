"""The notebooks run from top to bottom. Oracle: the assertions in them, and the archives that they leave, by `check`.

Their cells are executed as plain Python, with the value of a last expression shown as a notebook would show it: a test then needs
no Jupyter. What a notebook adds (magics, rich output of other packages) they do not use.
"""

import ast
import json

import pytest

from kerneltrack.archive import check
from tests.docs.running import DOCS

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def cells(path):
    """The sources of the code cells."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def shown(source, names):
    """Run a cell; what a notebook would show of its last expression: a picture, a table, or its repr; None without one."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is None:
        return None
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    made = next(
        (getattr(value, name) for name in ("_repr_png_", "_repr_html_") if hasattr(value, name)), lambda: repr(value)
    )
    return made()


def test_both_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["first-look", "several-runs"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)


def test_first_look(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "first-look"}
    found = [shown(source, names) for source in cells(DOCS / "notebooks" / "first-look.ipynb")]
    assert not list(check(tmp_path / "first-look.h5"))
    _, archive, selected, table, tree, run, *pictures, _ = found
    assert "<caption" in archive
    assert "0 to 40" in archive
    assert "24 points, output full, loss half_mse" in archive
    assert selected.endswith(", 30)")
    assert names["table"].index.tolist() == [0, 10, 20, 30, 40]
    with names["archive"] as reopened:
        assert names["table"]["trace"].tolist() == reopened.column("probes/probe/trace").tolist()
    assert "probe" in tree
    assert "stability_ratio" in table
    assert "stability_ratio at the end" in run
    assert [picture[:8] for picture in pictures] == [b"\x89PNG\r\n\x1a\n"] * 2


def test_several_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "several-runs"}
    found = [shown(source, names) for source in cells(DOCS / "notebooks" / "several-runs.ipynb")]
    assert not [problem for path in tmp_path.glob("*.h5") for problem in check(path)]
    assert "<caption" in found[1]
    assert ">width<" in found[1]
    assert ">512<" in found[1]
