"""The arrows of import point down, and reading loads little. Oracles: the syntax trees, and a fresh interpreter.

tests/arrows.txt is the house as it is drawn: each room with the rooms that it may import, lazily or for types alone
included. A new arrow is a change of that table, with its reason in the commit.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiers import later

ROOT = Path(__file__).parent.parent
FOLDERS = {"kerneltrack": "kerneltrack", "callbacks": "kerneltrack.callbacks", "analysis": "kerneltrack.analysis"}
SOURCES = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))]

HEAVY = {"torch", "pytorch_lightning", "lightning", "matplotlib"}
#: What reading with labels takes.
READING = {"numpy", "h5py", "scipy", "xarray", "pandas", "typer", "rich", "h5netcdf"}
#: kerneltrack modules that may be loaded without torch.
TORCH_FREE = (
    "errors.py",
    "formatting.py",
    "from_arrays",
    "linear_algebra.py",
    "conventions",
    "schedule",
    "snapshot.py",
    "__init__.py",
    "spectrum",
    "observables",
    "regression",
    "archive",
    "schema",
    "standard_probes",
)

#: Each room that is a folder, with its children and what each imports of the others.
TABLES = ROOT / "tests" / "arrows.txt"


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


def module_of(path):
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[folder], *rest]).removesuffix(".__init__")


def imported(path):
    """Every name that a file imports, dotted and absolute: a module, or a name in one."""
    package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def arrows(house, paths):
    """Room → rooms that it imports, among the children of the package ``house``."""
    rooms = {module_of(path).removeprefix(house + ".").partition(".")[0] for path in paths if module_of(path) != house}
    found = {room: set() for room in (*rooms, "__init__")}
    for path in paths:
        room = "__init__" if module_of(path) == house else module_of(path).removeprefix(house + ".").partition(".")[0]
        for name in imported(path):
            if name == house or name.startswith(house + "."):
                target = name.removeprefix(house + ".").partition(".")[0]
                found[room].add(target if target in rooms else "__init__")
    return {room: targets - {room} for room, targets in found.items()}


#: Rooms that are folders.
PACKAGES = {module_of(path) for path in SOURCES if path.name == "__init__.py"}


def past_faces(path):
    """Modules that a file imports from inside a room that it does not stand in, past the room's ``__init__``."""
    own = module_of(path).split(".")[: None if path.name == "__init__.py" else -1]
    for name in imported(path):
        target = name.split(".")
        common = next(
            (i for i, (a, b) in enumerate(zip(own, target, strict=False)) if a != b), min(len(own), len(target))
        )
        room, inside = target[: common + 1], target[common + 1 : -1]  # the last part is the name in the module
        if inside and ".".join(room) in PACKAGES:
            yield name


def test_nothing_is_imported_past_a_rooms_face():
    found = {str(path): sorted(past_faces(path)) for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == {}


def test_an_import_past_a_face_is_found(tmp_path, monkeypatch):
    """Negative control: the same name from the face is none, from a file of the room it is one."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "callbacks" / "one.py"
    path.parent.mkdir()
    path.write_text("from kerneltrack.archive import check\nfrom kerneltrack.errors import KernelError\n")
    assert list(past_faces(path)) == []
    path.write_text("def f():\n    from kerneltrack.archive.checking import check\n")
    assert list(past_faces(path)) == ["kerneltrack.archive.checking.check"]


def tables():
    """Room → child → what it imports of the other children, as tests/arrows.txt says."""
    found = {}
    for line in TABLES.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            found[line.strip("[]")] = table = {}
        elif line:
            child, _, targets = line.partition(" → ")
            table[child.rstrip(" →")] = set(targets.split())
    return found


@pytest.mark.parametrize("room", sorted(PACKAGES))
def test_the_arrows_are_those_of_the_table(room):
    paths = [path for path in SOURCES if module_of(path) == room or module_of(path).startswith(room + ".")]
    assert arrows(room, paths) == tables()[room]


def floors(table):
    """How long the longest path down from each child is; RecursionError where the table has a circle."""

    def floor(child):
        return 1 + max((floor(below) for below in table[child]), default=0)

    return {child: floor(child) for child in table}


#: The whole house (what tracks any loop is a floor of its own, between measurement and callbacks; so is regression, between
#: spectrum and observables), the engine, the analysis (what is forecast stands on what is derived, and effects score it), and what
#: tracks a loop: controls stand on the tracker of a loop, which stands on the run that every adapter has. Deeper rooms are small.
FLOORS = {"kerneltrack": 10, "kerneltrack.tracking": 10, "kerneltrack.ntk": 8, "kerneltrack.analysis": 9}


@pytest.mark.parametrize("room", sorted(PACKAGES))
def test_no_table_has_a_circle_or_too_many_floors(room):
    assert max(floors(tables()[room]).values()) <= FLOORS.get(room, 9)


def test_the_root_holds_little():
    assert len(list((ROOT / "kerneltrack").glob("*.py"))) <= 8


def test_a_turned_arrow_is_found(tmp_path, monkeypatch):
    """Negative control: one lazy import upward changes the arrows, and a circle has no floors."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "kerneltrack" / "errors.py"
    path.parent.mkdir()
    path.write_text("def f():\n    from kerneltrack.archive import check\n")
    (tmp_path / "kerneltrack" / "archive.py").write_text("")
    assert arrows("kerneltrack", sorted(path.parent.glob("*.py")))["errors"] == {"archive"}
    with pytest.raises(RecursionError):
        floors({"errors": {"archive"}, "archive": {"errors"}})


def test_there_are_sources():
    assert len(SOURCES) > 20


UPWARD = ("kerneltrack.callbacks", "kerneltrack.analysis", "pytorch_lightning", "lightning", "matplotlib", "typer")
#: What a file below each folder never imports, and the files that may.
NEVER = {
    "kerneltrack": (UPWARD, ()),
    "callbacks": (("kerneltrack.analysis", "matplotlib"), ()),
    "analysis": (("kerneltrack.callbacks", "pytorch_lightning", "lightning"), ("demo.py", "track.py")),
}


@pytest.mark.parametrize("folder", NEVER)
def test_no_folder_looks_up(folder):
    """The analysis calls callbacks for the demo and for checkpoints only."""
    names, free = NEVER[folder]
    paths = [path for path in SOURCES if path.is_relative_to(ROOT / folder) and path.name not in free]
    found = {str(path): beginning_with(imports(path, lazy=True), *names) for path in paths}
    assert {path: up for path, up in found.items() if up} == {}


def test_what_reads_archives_knows_no_torch():
    own = [path for path in SOURCES if path.parent.name == "kerneltrack" and path.name in TORCH_FREE]
    rooms = [path for path in SOURCES if path.parent.name in TORCH_FREE]
    assert len(own) > 3
    assert len(rooms) > 40
    found = {str(p): beginning_with(imports(p, lazy=p.parent.name != "kerneltrack"), "torch") for p in [*own, *rooms]}
    assert {path: names for path, names in found.items() if names} == {}


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


#: What an import, or a first use, may load of the packages that take time. docs/platforms.md states the times.
LOADED = {
    "import kerneltrack": set(),
    "import kerneltrack.analysis": set(),
    "from kerneltrack import open_archive, ArchiveWriter; open_archive(ARCHIVE)[0]": {"numpy", "h5py"},
    "from kerneltrack.archive import check, merge, publish; check(ARCHIVE)": {"numpy", "h5py"},
    "from kerneltrack import observables, schedule, eigensystem": {"numpy", "h5py", "scipy"},
    "from kerneltrack import open_archive; open_archive(ARCHIVE).to_xarray(probe='train')": READING - {"typer", "rich"},
    "from kerneltrack.analysis.cli import main; main(['--help'])": {"numpy", "h5py", "typer"},
    "from kerneltrack.analysis.cli import main; main(['check', ARCHIVE])": {"numpy", "h5py", "typer", "rich"},
    "from kerneltrack.analysis.cli import main; main(['show', ARCHIVE])": READING,
    "from kerneltrack.analysis.cli import main; main(['summary', ARCHIVE])": READING,
}


#: What loads no more than another statement here does.
NIGHTLY = {"import kerneltrack", "from kerneltrack.analysis.cli import main; main(['summary', ARCHIVE])"}


@pytest.mark.parametrize("statement", [later(s) if s in NIGHTLY else s for s in LOADED])
def test_what_reading_loads(statement):
    """No torch, no Lightning, no Matplotlib; xarray, pandas and SciPy only where they are used."""
    archive = ROOT / "tests" / "archive" / "data" / "format-1.0.h5"
    loaded = loaded_after(statement.replace("ARCHIVE", repr(str(archive))))
    assert loaded & (HEAVY | READING | {"PIL"}) <= LOADED[statement]
    if "numpy" in LOADED[statement]:
        assert "numpy" in loaded  # negative control: the probe sees what is there


def test_a_kernel_does_not_load_torchs_compiler():
    """It takes a second and 40 MB, and only a module that is compiled needs it. Nor does a first call load SymPy, for half a
    second. Oracle: the modules of a fresh process.

    Negative control, of what reading loads too: the probe sees torch itself.
    """
    model = "import torch, kerneltrack as kt; m = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.LayerNorm(1))"
    first = "kt.empirical_ntk(m, torch.ones(2, 2)); 'sympy' in sys.modules and sys.modules.update(algebra=None)"
    audited = (
        "kt.empirical_ntk(m, torch.ones(2, 2)); 'torch._dynamo' in sys.modules and sys.modules.update(compiler=None)"
    )
    loaded = loaded_after(f"{model}; {first}; {audited}")
    assert "torch" in loaded
    assert not loaded & {"algebra", "compiler"}
