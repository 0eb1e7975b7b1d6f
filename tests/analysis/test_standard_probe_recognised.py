"""A standard probe in an archive is recognised by its bytes, never by what it is called. Oracle: which probes were written."""

import dataclasses
import json

import numpy as np
import pytest

import kerneltrack as kt
from kerneltrack.analysis import load
from kerneltrack.analysis.cli import main
from kerneltrack.analysis.trajectory import Trajectory
from kerneltrack.errors import AnalysisError
from kerneltrack.snapshot import Snapshot
from kerneltrack.standard_probes import catalogue

DIGITS = catalogue()["digits-256"]


def written(path, probe):
    """An archive of two snapshots on this probe, with one number each."""
    record = dataclasses.replace(probe.record(10), settings={"output": "trace", "loss": "half_mse", "energy_k": [1]})
    with kt.ArchiveWriter(path, probes=[record]) as writer:
        for step in (0, 1):
            writer.append(
                Snapshot(
                    step=step,
                    learning_rates=(0.1,),
                    wall_time=float(step),
                    probes={"probe": {"trace": np.array(1.0 + step)}},
                )
            )
    return str(path)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Archives of two laboratories, each with the digits that it has itself."""
    folder = tmp_path_factory.mktemp("two")
    return [written(folder / f"{name}.h5", kt.Probe.standard("digits-256")) for name in ("here", "there")]


def test_compare_says_that_both_are_on_it(two, capsys):
    assert main(["compare", *two, "--quantity", "trace"]) == 0
    assert "all runs are on the standard probe digits-256" in capsys.readouterr().out
    assert main(["compare", *two, "--quantity", "trace", "--json"]) == 0
    assert "all runs are on the standard probe digits-256" in json.loads(capsys.readouterr().out)["notes"]


def test_show_names_it(two, capsys):
    assert main(["show", two[0]]) == 0
    assert any(line.split() == ["standard", "probe", "digits-256"] for line in capsys.readouterr().out.splitlines())


def like(run, **changes):
    return dataclasses.replace(run, **changes)


def test_a_probe_that_is_only_called_so_is_told(two):
    """The same identity, another pixel: compared, as ever with one identity, and both what differs and the claim are said."""
    run = load(two[0]).only
    other = like(run, fingerprint="sha256:" + "0" * 64)
    notes = Trajectory((run, other)).comparable()
    assert any("called the standard probe digits-256, and its bytes are others" in note for note in notes)
    assert not any("all runs" in note for note in notes)


def test_one_transform_is_comparable_and_two_are_not(two):
    run = load(two[0]).only
    flat = like(run, fingerprint="sha256:" + "1" * 64, identity={**DIGITS.identity, "transform": "Flatten"})
    named_otherwise = like(flat, identity={**DIGITS.identity, "transform": "<lambda>"})
    notes = Trajectory((flat, named_otherwise)).comparable()
    assert [note.partition("went through ")[2] for note in notes] == ["Flatten", "<lambda>"]
    with pytest.raises(AnalysisError, match="fingerprints"):
        Trajectory((run, flat)).comparable()


def test_bytes_are_enough(two):
    """A probe that was put together by hand of the same samples has no identity, and is the standard one."""
    run = like(load(two[0]).only, identity=None)
    assert run.standard_probe == "digits-256"
    assert Trajectory((run, load(two[1]).only)).comparable() == ("all runs are on the standard probe digits-256",)


def test_other_probes_are_not_called_standard(archives):
    run = load(archives[0]).only
    assert run.standard_probe == ""
    assert Trajectory((run, run)).comparable() == ()


def test_a_larger_choice_of_the_same_data_is_more_points_of_it(two):
    """What "more points" means has nothing to do with what the choice is called."""
    run = load(two[0]).only
    more = like(run, fingerprint="sha256:" + "2" * 64, stored_count=512, identity={"dataset": "digits", "indices": [1]})
    assert any("512 points of the data of which" in note for note in Trajectory((run, more)).comparable())
