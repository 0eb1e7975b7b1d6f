"""Every command on every file that is none of ours, and with every option out of its range: an exit code and one line.

Oracles: the exit codes that the command line documents, and the files before and after.
"""

import functools
import os
import shutil
import sys
import types

import h5py
import numpy as np
import pytest
import typer

from kerneltrack import Probe
from kerneltrack.analysis.cli import app, main
from tests.tiers import diagonals

ABOUT = "--licence CC0-1.0 --author A --contact a@example.org"
#: BAD is where the bad file stands; what follows a bar is another place for it.
READERS = {
    "show": "show BAD | show BAD --json",
    "summary": "summary BAD | summary run.h5 --control BAD",
    "check": "check BAD | check run.h5 BAD",
    "plot": "plot BAD --figure rank -o x.svg | plot run.h5 BAD --figure runs -o x.svg | "
    "plot run.h5 --figure stability --control BAD -o x.svg",
    "report": "report BAD -o x.html | report run.h5 --control BAD -o x.html | report run.h5 BAD -o x.html",
    "lr-decay": "lr-decay BAD | lr-decay run.h5 --control BAD | lr-decay BAD -o x.png",
    "forecast": "forecast BAD --rate x0.5 --steps 5 | forecast run.h5 --check --control BAD",
    "compare": "compare run.h5 BAD | compare BAD run.h5 --json | compare run.h5 BAD --against seed",
    "export": "export BAD -o x.csv | export BAD --to netcdf -o x.nc",
    "merge": "merge BAD",
    "publish": f"publish BAD -o x.h5 {ABOUT}",
    "track": "track --checkpoints BAD --model nets:Net --probe probe.npz -o new/x.h5 | "
    "track --checkpoints good.ckpt --model nets:Net --probe BAD -o new/x.h5",
    "plan": "plan --model nets:Net --probe BAD",
}
CASES = {
    f"{name}-{index}": words.strip()
    for name, text in READERS.items()
    for index, words in enumerate(text.split("|"))
}  # fmt: skip
BAD = ["missing", "folder", "empty", "truncated", "text", "another-hdf5"]
BAD += [pytest.param(name, marks=pytest.mark.nightly) for name in ("bytes", "numpy", "pickle", "a-link-to-nothing")]


@pytest.fixture(scope="module")
def desk(archives, tmp_path_factory):
    """A folder with good files, and every bad one by its name."""
    import torch

    folder = tmp_path_factory.mktemp("desk")
    for source, name in zip(archives, ("run.h5", "control.h5"), strict=True):
        shutil.copy(source, folder / name)
    Probe(torch.ones(4, 3), torch.ones(4, 1), name="train").save(folder / "probe.npz")
    torch.save({"state_dict": {}, "global_step": 1, "epoch": 0}, folder / "good.ckpt")
    (folder / "folder").mkdir()
    (folder / "empty").touch()
    (folder / "truncated").write_bytes((folder / "run.h5").read_bytes()[:5000])
    (folder / "text").write_text("not what you think\n" * 40)
    (folder / "bytes").write_bytes(bytes(range(256)) * 8)
    with h5py.File(folder / "another-hdf5", "w") as file:
        file["measurements"] = np.arange(5.0)
    np.save(folder / "numpy", np.arange(3))
    (folder / "numpy.npy").rename(folder / "numpy")
    torch.save({"w": torch.ones(2)}, folder / "pickle")
    (folder / "a-link-to-nothing").symlink_to(folder / "nothing")
    return folder


@pytest.fixture
def there(desk, monkeypatch):
    monkeypatch.chdir(desk)
    return desk


def listing(folder):
    """Every path with the size and time of its last change."""
    paths = [os.path.join(home, name) for home, folders, files in os.walk(folder) for name in (*folders, *files)]
    return {path: (os.lstat(path).st_size, os.lstat(path).st_mtime_ns) for path in paths}


def answered(capfd, words):
    """The exit code; there is one line of error, and nothing else."""
    code = main(words)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("kerneltrack: ")
    assert said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.err
    return code, said.err


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize(("case", "bad"), diagonals(3, CASES, BAD))
def test_a_file_that_is_none_of_ours(there, capfd, case, bad):
    before, words = listing(there), CASES[case].replace("BAD", bad).split()
    if words[0] == "check" and bad not in ("missing", "folder", "a-link-to-nothing"):
        assert main(words) == 1  # that is what it is asked: lines of problems, and exit code 1
        said = capfd.readouterr()
        assert all(bad in line for line in said.out.splitlines())
        assert (said.out.count("\n") > 0, said.err) == (True, "")
    else:
        code, text = answered(capfd, words)
        assert code == 2, text
        assert bad in text or "nothing" in text  # the file is named, of a link what it leads to
    assert listing(there) == before


FILLED = {
    "show": "show run.h5",
    "summary": "summary run.h5",
    "check": "check run.h5",
    "plot": "plot run.h5 --figure rank -o x.svg",
    "report": "report run.h5 -o x.html",
    "lr-decay": "lr-decay run.h5 -o x.svg",
    "forecast": "forecast run.h5 --rate x0.5 --steps 5",
    "compare": "compare run.h5 control.h5",
    "export": "export run.h5 -o x.csv",
    "merge": "merge run.h5",
    "publish": f"publish run.h5 -o x.h5 {ABOUT}",
    "demo": "demo --out new",
    "track": "track --checkpoints good.ckpt --model nets:Net --probe probe.npz -o new/x.h5",
    "plan": "plan --model nets:Net --probe probe.npz",
}
#: Names of nothing, of no class, of what builds no module, of what needs arguments, and of a module that is there already.
#: What names no function.
FUNCTIONS = ["", ":", "nets", "nets:", ":Net", "nets:nothing", "no_such_module:net", "nets:net"]
MODELS = [
    "nonsense", "", ":", "nets:", ":Net", "nets:Nobody", "no.such:Net", "os:path", "a:b:c", "os:getcwd", "math:pi",
    "math:sqrt", "builtins:dict", "nets:net", "nets:part", "torch.nn:Linear",
]  # fmt: skip
#: Options, the values that are refused, and the exit code: 1 where the archives do not hold what was asked of them.
VALUES = {
    ("plot", "--figure"): (2, ["nonsense", "", "../rank"]),
    ("plot", "-o"): (2, ["x.bmp", "x", "folder", "", "run.h5", "text/x.svg"]),
    ("plot", "--style"): (2, ["loud", ""]),
    ("plot", "--x"): (2, ["cubic", ""]),
    ("plot", "--format"): (2, ["bmp"]),
    ("plot", "--control"): (2, ["run.h5", ""]),
    ("plot", "--probe"): (1, ["nobody", ""]),
    ("report", "-o"): (2, ["x.pdf", "folder", "", "run.h5", "."]),
    ("report", "--control"): (2, ["run.h5", ""]),
    ("report", "--probe"): (1, ["nobody"]),
    ("report", "--group"): (2, ["seed", ""]),
    ("summary", "--control"): (2, ["run.h5", ""]),
    ("summary", "--probe"): (1, ["nobody"]),
    ("lr-decay", "-o"): (2, ["x.html", "folder", ""]),
    ("lr-decay", "--control"): (2, ["run.h5", ""]),
    ("lr-decay", "--probe"): (1, ["nobody"]),
    ("lr-decay", "--style"): (2, ["loud"]),
    ("forecast", "--rate"): (2, ["x", "", "-1", "nan", "x0"]),
    ("forecast", "--steps"): (2, ["0", "-1", "x", "", "1000001"]),
    ("forecast", "--at"): (1, ["4", "999999"]),
    ("forecast", "--control"): (2, ["run.h5", ""]),
    ("forecast", "--probe"): (1, ["nobody"]),
    ("compare", "--by"): (2, ["time", ""]),
    ("compare", "--quantity"): (1, ["nonsense", "", "eigenvalue_0", "eigenvalue_x", "target_energy_-1"]),
    ("compare", "--group"): (1, ["nonsense", "run.nonsense", ""]),
    ("compare", "--against"): (1, ["nonsense", ""]),
    ("compare", "--at"): (2, ["1", "x", "1.5", "nan"]),
    ("compare", "--probe"): (1, ["nobody"]),
    ("compare", "-o"): (2, ["x.html", "folder", ""]),
    ("compare", "--style"): (2, ["loud"]),
    ("compare", "--format"): (2, ["bmp"]),
    ("lr-decay", "--format"): (2, ["bmp"]),
    ("track", "--probe"): (2, ["none.npz", "", "folder"]),
    ("plan", "--probe"): (2, ["none.npz", "", "folder"]),
    ("export", "--to"): (2, ["xls", ""]),
    ("export", "-o"): (2, ["x.nc", "folder", "", "run.h5"]),
    ("export", "--probe"): (1, ["nobody"]),
    ("publish", "--licence"): (2, ["mine", ""]),
    ("publish", "--author"): (2, ["", " "]),
    ("publish", "--contact"): (2, ["nobody", "", "a@", "@b"]),
    ("publish", "-o"): (2, ["run.h5", "folder", "", "x.txt"]),
    ("demo", "--out"): (2, ["text", "run.h5", "text/deeper"]),
    ("track", "--checkpoints"): (2, ["none-*.ckpt", "", "["]),
    ("track", "--model"): (2, MODELS),
    ("track", "-o"): (2, ["x.png", "run.h5", "-", "folder", ""]),
    ("track", "--loss"): (2, ["rmse", ""]),
    ("track", "--reduction"): (2, ["max", ""]),
    ("track", "--gauge"): (2, ["max", ""]),
    ("track", "--eigenpairs"): (2, ["some", ""]),
    ("track", "--top-k"): (2, ["0", "-1", "x", "1.5", ""]),
    ("track", "--memory-budget"): (2, ["much", "", "-1", "0", "2 parsecs", "nan"]),
    ("track", "--factory"): (2, [*FUNCTIONS, "nets:Net"]),  # beside --model
    ("track", "--forward"): (2, FUNCTIONS),
    ("track", "--params"): (2, ["nonsense", "", "layers.[", "map"]),
    ("track", "--weights"): (2, ["old", ""]),
    ("track", "--shard"): (2, ["", "1", "0/2", "3/2", "1/0", "x/y", "-1/2"]),
    ("track", "--workers"): (2, ["0", "-1", "x", "1.5", ""]),
    ("track", "--cluster"): (2, ["", "nonsense://x"]),
    ("merge", "-o"): (2, ["x.png", "folder", "", "run.h5", "-"]),
    ("plan", "--factory"): (2, [*FUNCTIONS, "nets:Net"]),
    ("plan", "--forward"): (2, FUNCTIONS),
    ("plan", "--params"): (2, ["nonsense", "", "map"]),
    ("plan", "--model"): (2, MODELS),
    ("plan", "--loss"): (2, ["rmse"]),
    ("plan", "--reduction"): (2, ["max"]),
    ("plan", "--gauge"): (2, ["max"]),
    ("plan", "--eigenpairs"): (2, ["some"]),
    ("plan", "--top-k"): (2, ["0", "-1", "x"]),
    ("plan", "--memory-budget"): (2, ["much", "", "-1", "0", "2 parsecs", "nan"]),
}  # fmt: skip


@pytest.fixture
def nets(monkeypatch):
    """A module with a model, under the name that the commands are given."""
    import pytorch_lightning as pl
    import torch

    class Net(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.map = torch.nn.Linear(3, 1)

        def forward(self, x):
            return self.map(x)

    monkeypatch.setitem(sys.modules, "nets", types.SimpleNamespace(Net=Net, net=Net(), part=functools.partial(Net, 3)))


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize(("command", "option"), VALUES, ids="".join)
def test_a_value_that_cannot_be(there, capfd, command, option):
    expected, values = VALUES[command, option]
    before = listing(there)
    for value in values:
        words = FILLED[command].split()
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
        code, text = answered(capfd, words)
        assert code == expected, (value, text)
        assert listing(there) == before, value


def test_every_option_with_a_value_is_among_them():
    """A new option is tried too. Flags have no value; -o has two names."""
    commands = typer.main.get_command(app).commands
    options = {
        (name, option.opts[-1] if option.name == "output" else option.opts[0])
        for name, command in commands.items()
        for option in command.params
        if option.param_type_name == "option" and not option.is_flag
    }
    assert options == set(VALUES)
    assert set(READERS) == set(commands) - {"demo"}
    assert set(FILLED) == set(commands)
