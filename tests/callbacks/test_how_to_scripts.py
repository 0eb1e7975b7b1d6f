"""The how-to pages on training run as written, each in a folder of its own. Oracle: the archives that they leave."""

import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from kerneltrack import open_archive
from kerneltrack.analysis import cli

PAGES = Path(__file__).parents[2] / "docs" / "how-to"


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (PAGES / f"{page}.md").read_text(encoding="utf-8"), flags=re.DOTALL)


def shell(command, folder):
    """Run as a reader would, with this environment's python and kerneltrack first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def as_program(words, folder, monkeypatch):
    """A program run in this process, as ``python words``: another interpreter would load torch and Lightning anew.

    Warnings are what they are there: no errors. Modules of the folder are gone afterwards.
    """
    before = set(sys.modules)
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setattr(sys, "argv", words)
        runpy.run_path(words[0], run_name="__main__")
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__).parent == folder:
            del sys.modules[name]


#: Registered before anything else, so it runs after all other exit handlers: whether there is still a process group.
GROUP_AT_EXIT = """
import atexit
import os
from pathlib import Path

import torch.distributed

RANK = os.environ.get("LOCAL_RANK", "0")
atexit.register(lambda: Path(f"group.{RANK}").write_text(str(torch.distributed.is_initialized())))
"""


def test_several_processes_with_one(tmp_path, monkeypatch):
    """The page's program as written but for the number of processes: its imports, names, arguments and steps."""
    program, _ = blocks("several-processes", "python")
    assert program.count('devices=2,\n        strategy="ddp"') == 1
    (tmp_path / "train.py").write_text(program.replace("devices=2", "devices=1").replace('"ddp"', '"auto"'))
    as_program(["train.py"], tmp_path, monkeypatch)
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 10, 20]
        assert archive.provenance.metadata == {"seed": 3}


@pytest.mark.nightly
def test_several_processes(tmp_path):
    program, _ = blocks("several-processes", "python")
    (tmp_path / "train.py").write_text(GROUP_AT_EXIT + program)
    (command,) = blocks("several-processes", "sh")
    assert "run.h5" in shell(command, tmp_path)
    # A group that outlives the interpreter aborts the process now and then: gloo's threads may still hold tensors.
    # Of rank zero only: it does not wait for the other process.
    assert (tmp_path / "group.0").read_text() == "False"
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 10, 20]
        assert archive.provenance.run["world_size"] == 2
        assert archive.provenance.metadata == {"seed": 3}


def test_resume(tmp_path, monkeypatch):
    """The page's own assertions are the claims; a negative control turns one of them around."""
    first, second = blocks("resume", "python")
    (tmp_path / "resume.py").write_text(first + second)
    as_program(["resume.py"], tmp_path, monkeypatch)
    wrong = second.replace("[0, 2, 4, 6, 8]", "[0, 2, 4, 5, 6, 8]")
    assert wrong != second
    (tmp_path / "wrong.py").write_text("from kerneltrack import open_archive\n" + wrong)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError) as raised:
        runpy.run_path("wrong.py")
    failed = (tmp_path / "wrong.py").read_text().splitlines()[raised.traceback[-1].lineno]
    assert "assert archive.steps" in failed


def test_lightning_cli(tmp_path, monkeypatch):
    probe, nets, main = blocks("lightning-cli", "python")
    for name, text in {"probe.py": probe, "nets.py": nets, "main.py": main}.items():
        (tmp_path / name).write_text(text)
    (config,) = blocks("lightning-cli", "yaml")
    (tmp_path / "config.yaml").write_text(config)
    (command,) = blocks("lightning-cli", "sh")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("probe.py")
    trains, shows = command.strip().splitlines()
    assert (trains, shows) == ("python main.py fit --config config.yaml", "kerneltrack show run.h5")
    as_program(trains.split()[1:], tmp_path, monkeypatch)
    assert cli.main(shows.split()[1:]) == 0
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 3, 6]
        assert list(archive.probes) == ["fixed"]
        assert archive.provenance.metadata == {"lr": 0.2}


def test_the_page_of_set_ups_lists_them_all_and_every_claim_held():
    """docs/setups.md is written by `make setups`; a set-up that was added since is missing there."""
    from tests.callbacks import setups_table
    from tests.tracking import plain_loop

    text, _, others = (PAGES.parent / "setups.md").read_text(encoding="utf-8").partition("\n## Other loops")
    listed = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| ")]
    assert listed[2:] == [name for name, _ in setups_table.rows()]
    assert "✗" not in text.partition("\n| ")[2]
    assert "not run" not in text
    lines = [line for line in others.splitlines() if line.startswith("| ")][2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == list(setups_table.LOOPS)
    assert all(re.search(r"✓ (\d+) of \1 ", line) for line in lines)
    assert [name for name in plain_loop.NAMES if name not in others] == []
