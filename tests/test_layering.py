"""The arrows of import point down, and reading loads little. Oracles: the syntax trees, and a fresh interpreter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [p for folder in ("kerneltrack", "callbacks", "analysis") for p in sorted((ROOT / folder).rglob("*.py"))]

HEAVY = {"torch", "pytorch_lightning", "lightning", "matplotlib"}
#: kerneltrack modules that may be loaded without torch.
TORCH_FREE = ("errors.py", "schedule.py", "snapshot.py", "spectrum.py", "__init__.py", "observables", "archive")


def imports(path, *, lazy):
    """Top-level packages that a file imports; with ``lazy`` also those inside functions and ``if TYPE_CHECKING``."""
    found = set()
    tree = ast.parse(path.read_text())

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.level == 0:
                found.add(child.module)
            hidden = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            )
            if lazy or not hidden:
                visit(child)

    visit(tree)
    return found


def beginning_with(modules, *prefixes):
    return {m for m in modules if any(m == p or m.startswith(p + ".") for p in prefixes)}


def test_there_are_sources():
    assert len(SOURCES) > 20


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "kerneltrack")], ids=lambda p: p.name)
def test_the_core_never_looks_up(path):
    up = beginning_with(
        imports(path, lazy=True),
        "kerneltrack.callbacks",
        "kerneltrack.analysis",
        "pytorch_lightning",
        "lightning",
        "matplotlib",
        "typer",
    )
    assert not up


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "callbacks")], ids=lambda p: p.name)
def test_callbacks_do_not_know_the_analysis(path):
    assert not beginning_with(imports(path, lazy=True), "kerneltrack.analysis", "matplotlib")


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "analysis")], ids=lambda p: p.name)
def test_the_analysis_calls_callbacks_only_for_the_demo_and_for_checkpoints(path):
    if path.name not in ("demo.py", "track.py"):
        assert not beginning_with(imports(path, lazy=True), "kerneltrack.callbacks", "pytorch_lightning", "lightning")


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if p.parent.name == "kerneltrack" and p.name in TORCH_FREE]
    + [p for p in SOURCES if p.parent.name in TORCH_FREE],
    ids=lambda p: f"{p.parent.name}/{p.name}",
)
def test_what_reads_archives_knows_no_torch(path):
    assert not beginning_with(imports(path, lazy=path.parent.name != "kerneltrack"), "torch")


def test_the_scanner_sees_an_upward_import(tmp_path):
    """Negative control: a file that looks up, hidden in a function, is found."""
    path = tmp_path / "bad.py"
    path.write_text("def f():\n    from kerneltrack.analysis import load\n    import torch\n")
    assert beginning_with(imports(path, lazy=True), "kerneltrack.analysis") == {"kerneltrack.analysis"}
    assert imports(path, lazy=False) == set()


def loaded_after(statement):
    code = f"import sys\n{statement}\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "statement",
    ["import kerneltrack", "from kerneltrack import open_archive, ArchiveWriter, observables, schedule, eigensystem"],
)
def test_reading_loads_neither_torch_nor_lightning_nor_matplotlib(statement):
    assert not loaded_after(statement) & HEAVY


def test_the_probe_for_heavy_modules_sees_torch():
    """Negative control."""
    assert "torch" in loaded_after("from kerneltrack import Probe")
