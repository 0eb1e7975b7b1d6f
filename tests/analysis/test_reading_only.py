"""Reading and analysis work where torch and Lightning are missing, and what needs them says what to install.

A child process refuses those imports as an environment without the packages does; `make release-check` runs the same
script in such an environment. Oracles: the exit codes, the same numbers in this process, and the words that pip takes.
"""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import typer

import kerneltrack as kt
from kerneltrack.analysis.cli import app
from kerneltrack.archive import open_archive
from tests.analysis import reading_only
from tests.analysis.test_outputs import few


@pytest.fixture(scope="module")
def lives(synthetic, truth, control_truth, tmp_path_factory):
    """What came of everything in a process without torch; the archives have few numbers, so that drawing is quick."""
    folder = tmp_path_factory.mktemp("reading")
    paths = [
        str(synthetic.write(folder / f"{name}.h5", few(synthetic.snapshots(given)), synthetic.record(given)))
        for name, given in (("run", truth), ("control", control_truth))
    ]
    command = [sys.executable, "-m", "tests.analysis.reading_only", *paths, str(folder / "out"), "--block"]
    (folder / "out").mkdir()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return paths, list(map(json.loads, done.stdout.splitlines()))


def said_by(lives, key):
    return next(line[key] for line in lives[1] if key in line)


def test_every_command_is_tried():
    """A new command is put on one of the two lists. Oracle: the command line's own list."""
    tried = {words.split()[0] for words in (*reading_only.OFFLINE.values(), *reading_only.NEEDS_TORCH.values())}
    assert set(typer.main.get_command(app).commands) == tried


def test_every_offline_command_works(lives):
    offline = {words.split()[0] for words in reading_only.OFFLINE.values()}
    assert [line for line in lives[1] if line.get("command") in offline and (line["code"] or line["stderr"])] == []
    assert said_by(lives, "loaded") == []


def test_reading_in_python_gives_the_same(lives):
    found = said_by(lives, "python")
    with open_archive(lives[0][0]) as archive:
        assert found["steps"] == archive.steps.tolist()
        assert found["rows"] == len(archive)
    assert found["changes"] == 1
    assert found["observables"] > 50
    np.testing.assert_allclose(found["eigenvalues"], [2.0, 1.0], rtol=1e-15)


def test_what_trains_says_what_to_install(lives):
    """One line on standard error, exit code 2; the first package that is missed differs."""
    for name in reading_only.NEEDS_TORCH:
        line = next(line for line in lives[1] if line.get("command") == name)
        assert line["code"] == 2
        assert line["stderr"].count("\n") == 1
        assert line["stderr"].startswith("kerneltrack: this needs ")
        assert "`pip install kerneltrack` brings it" in line["stderr"]


def test_what_measures_says_what_to_install(lives):
    """As an ImportError, which programs that try an import expect."""
    for one in said_by(lives, "refused"):
        assert one["type"] == "MissingPackageError", one
        assert "torch" in one["said"]
        assert "`pip install kerneltrack` brings it" in one["said"]


def test_the_child_sees_what_is_not_blocked():
    """Negative control: without the block the same names are there."""
    assert reading_only.refused("kerneltrack.probe:Probe") == {
        "name": "kerneltrack.probe:Probe",
        "type": "",
        "said": "",
    }


@pytest.mark.parametrize(
    ("module", "package"), [("PIL", "pillow"), ("h5netcdf.core", "h5netcdf"), ("jinja2", "jinja2")]
)
def test_another_package_is_called_as_pip_calls_it(monkeypatch, capsys, module, package):
    """Any other requirement that is missing is one line too, by its own name."""
    from kerneltrack.analysis import invocation
    from kerneltrack.analysis.cli import main

    def missing(*_, **__):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(invocation, "commands_of", missing)
    assert main(["show", "x.h5"]) == 2
    said = capsys.readouterr().err
    assert f"this needs {package}, which is not installed. `pip install {package}` brings it." in said


def test_a_tracker_without_lightning_says_what_to_install(monkeypatch):
    """torch alone is there: a callback that derives from nothing would be passed over by every Trainer."""
    from kerneltrack.callbacks import import_roots
    from kerneltrack.errors import MissingPackageError

    monkeypatch.setattr(import_roots, "sys", SimpleNamespace(modules={}))
    monkeypatch.setattr(import_roots.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"needs pytorch-lightning.*`pip install kerneltrack`"):
        import_roots.callback_bases()


@pytest.mark.parametrize(("module", "said"), [("torch._C", "torch"), ("lightning.pytorch", "pytorch-lightning")])
def test_a_name_that_comes_later_says_it_too(monkeypatch, module, said):
    """Every name of the root goes through one door, whatever its own module imports first."""
    monkeypatch.setitem(kt._HOME, "Later", "kerneltrack.later")

    def missing(name):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(kt.importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=rf"this needs {said}, .*`pip install kerneltrack`"):
        _ = kt.Later


def test_an_import_that_fails_for_another_reason_stays_what_it_is(monkeypatch):
    """Negative control: a module of the user's, or a defect of ours."""
    monkeypatch.setitem(kt._HOME, "Later", "kerneltrack.later")
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'kerneltrack.later'$"):
        _ = kt.Later
