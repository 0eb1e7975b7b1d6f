"""A resumed run continues its archive. Oracle: the rule, applied by hand and by the in-memory twin."""

from __future__ import annotations

import dataclasses
import time

import h5py
import numpy as np
import pytest
import xarray
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kerneltrack import schema
from kerneltrack.archive import ArchiveWriter, check, joining, open_archive, rows
from kerneltrack.archive.canonical import is_canonical
from kerneltrack.archive.header import Segment
from kerneltrack.errors import ArchiveError, ArchiveExistsError
from kerneltrack.observables import registry
from kerneltrack.snapshot import Provenance
from tests.archive.in_memory import MemoryArchive


def write(path, make, steps):
    with ArchiveWriter(path, probes=[make.probe], provenance=make.run) as writer:
        for step in steps:
            writer.append(make.snapshot(step))


def resume(path, make, start, steps, loss=7.0):
    with ArchiveWriter.resume(path, probes=[make.probe], provenance=make.run, resumed_from_step=start) as writer:
        for step in steps:
            writer.append(make.snapshot(step, training_loss=loss))


def steps_of(path, **options):
    with open_archive(path, **options) as archive:
        return archive.steps.tolist()


def test_what_lies_after_the_checkpoint_is_superseded(tmp_path, make):
    path = tmp_path / "run.h5"
    write(path, make, range(6))
    resume(path, make, 3, [3, 4])
    with open_archive(path) as archive:
        assert archive.steps.tolist() == [0, 1, 2, 3, 4]
        assert [snapshot.training_loss == 7.0 for snapshot in archive] == [False, False, False, True, True]
        assert [segment.resumed_from_step for segment in archive.segments] == [-1, 3]
        assert archive.to_xarray().segment.values.tolist() == [0, 0, 0, 1, 1]
    assert steps_of(path, all_segments=True) == [0, 1, 2, 3, 4, 5, 3, 4]


def test_a_row_at_the_checkpoint_stays_if_it_was_not_measured_again(tmp_path, make):
    path = tmp_path / "run.h5"
    write(path, make, range(6))
    resume(path, make, 3, [4])
    with open_archive(path) as archive:
        assert archive.steps.tolist() == [0, 1, 2, 3, 4]
        assert archive[3].training_loss != 7.0


def test_a_resume_from_further_back_supersedes_both_branches(tmp_path, make):
    path = tmp_path / "run.h5"
    write(path, make, range(6))
    resume(path, make, 4, [5, 6])
    resume(path, make, 1, [2])
    assert steps_of(path) == [0, 1, 2]
    assert len(steps_of(path, all_segments=True)) == 9


def test_the_superseded_rows_are_gone_from_the_view_before_the_first_new_one(tmp_path, make):
    path = tmp_path / "run.h5"
    write(path, make, range(6))
    writer = ArchiveWriter.resume(path, probes=[make.probe], provenance=make.run, resumed_from_step=3)
    assert steps_of(path) == [0, 1, 2, 3]
    writer.close()
    assert steps_of(path) == [0, 1, 2, 3]


def test_what_a_killed_run_left_is_taken_in(tmp_path, make):
    """The first writer is abandoned without closing, as a kill leaves it; only its lock is removed by hand."""
    path = tmp_path / "run.h5"
    writer = ArchiveWriter(path, probes=[make.probe], provenance=make.run)
    for step in range(11):
        writer.append(make.snapshot(step))
    (path.with_name("run.h5.parts") / ".tmp-00000000000000000000000000000000").write_bytes(b"half a file")
    writer._spool.release()
    resume(path, make, 10, [11])
    assert steps_of(path) == list(range(12))
    assert not path.with_name("run.h5.parts").exists()


def test_resumes_that_are_killed_before_their_first_row_are_remembered(tmp_path, make, monkeypatch):
    """Both announce themselves under one name, and neither comes to join. Oracle: the segments' numbers."""
    path = tmp_path / "run.h5"
    write(path, make, range(3))
    monkeypatch.setattr("kerneltrack.archive.spool.Spool.join_all", lambda *_: None)
    for start in (2, 1):
        writer = ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=start)
        writer._spool.release()
    monkeypatch.undo()
    resume(path, make, 1, [2])
    with open_archive(path) as archive:
        assert [(s.number, s.resumed_from_step) for s in archive.segments] == [(0, -1), (1, 2), (2, 1), (3, 1)]
    assert check(path) == []


def test_refuses_another_run(tmp_path, make):
    path = tmp_path / "run.h5"
    write(path, make, range(2))
    before = path.read_bytes()
    other = Provenance(run={"run_id": "another"})
    with pytest.raises(ArchiveExistsError, match="another run: expected run another, got run r"):
        ArchiveWriter.resume(path, probes=[make.probe], provenance=other, resumed_from_step=1)
    changed = dataclasses.replace(make.probe, fingerprint="sha256:11")
    with pytest.raises(ArchiveError, match=r"other probes.*sha256:00.*sha256:11"):
        ArchiveWriter.resume(path, probes=[changed], provenance=make.run, resumed_from_step=1)
    with pytest.raises(ArchiveError, match="no archive to resume"):
        ArchiveWriter.resume(tmp_path / "x.h5", probes=[], resumed_from_step=1)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.h5"]


def test_sizes_are_bound_across_a_resume(tmp_path, make):
    path = tmp_path / "run.h5"
    write(path, make, range(2))
    with (
        ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=1) as writer,
        pytest.raises(ArchiveError, match="another number of 'mode'"),
    ):
        writer.append(make.snapshot(2, probes={"train": {"eigenvalues": np.ones(4)}}))


def test_a_resume_under_other_versions_says_so(tmp_path, make):
    path = tmp_path / "run.h5"
    first = {"run_id": "r", "created": "1", "versions": {"torch": "2.12", "numpy": "2.0"}, "device": "cpu", "seed": 3}
    second = first | {"created": "2", "versions": {"torch": "2.13", "numpy": "2.0"}, "device": "x" * 5000}
    with ArchiveWriter(path, probes=[make.probe], provenance=Provenance(run=first)) as writer:
        writer.append(make.snapshot(0))
    ArchiveWriter.resume(path, probes=[make.probe], provenance=Provenance(run=second), resumed_from_step=0).close()
    with open_archive(path) as archive:
        _, event = archive.attrs["history"].splitlines()
        assert archive.provenance.run == first
    assert 'segment 1 resumed from step 0; versions.torch "2.13", was "2.12"; device "xxx' in event
    assert "numpy" not in event
    assert "created" not in event
    assert len(event) < 1100


def test_the_history_stays_within_an_attribute():
    """Its first line and its newest ones are kept. Oracle: 64 KiB, HDF5's own bound."""
    lines = [f"{number} " + "é" * 500 for number in range(200)]
    kept = joining.history(lines).splitlines()
    assert kept[0] == lines[0]
    assert kept[1:] == lines[-len(kept) + 1 :]
    assert 58_000 < len("\n".join(kept).encode()) <= 60_000
    assert joining.history(lines[:3]).splitlines() == lines[:3]
    assert joining.history([]) == ""


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(-2, 6)), max_size=12),
    starts=st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 6)), min_size=1, max_size=5),
)
def test_the_canonical_view_is_the_rule_of_the_format(rows, starts):
    """Oracle: the rule as docs/format.md states it, row by row."""
    segments = [Segment(number, start, 0.0) for number, start in dict(starts).items()]

    def superseded(s, t):
        return any(
            r.number > s and (t > r.resumed_from_step or (t == r.resumed_from_step and (r.number, t) in rows))
            for r in segments
        )

    segment, step = (np.array([row[axis] for row in rows], np.int64) for axis in (0, 1))
    assert is_canonical(segment, step, segments).tolist() == [not superseded(s, t) for s, t in rows]


def test_many_restarts_and_rows_are_quick():
    """A stranger's file may have a hundred thousand of each: not one look at every row for each restart."""
    count = 100_000
    segments = [Segment(number, number, 0.0) for number in range(count)]
    started = time.process_time()
    kept = is_canonical(np.arange(count), np.arange(count), segments)
    assert kept.all()
    assert time.process_time() - started < 5  # a hundred thousand passes over the rows take minutes


PRESENT = st.lists(st.sampled_from(["eigenvalues", "eigenvectors", "target_coefficients", "kernel"]), unique=True)
ACTION = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 30), PRESENT),
    st.tuples(st.just("many"), st.integers(0, 30), st.integers(2, 12)),
    st.tuples(st.just("resume"), st.integers(0, 30)),
    st.tuples(st.just("reread")),
)


@pytest.mark.parametrize("examples", [3, pytest.param(30, marks=pytest.mark.nightly)])
def test_the_file_is_its_twin_in_memory(tmp_path_factory, make, examples):
    """Any sequence of appends and resumes. Oracle: MemoryArchive, which knows neither rows, nor parts, nor HDF5."""
    given_actions = given(st.lists(ACTION, max_size=6))(lambda actions: twins_agree(tmp_path_factory, make, actions))
    settings(max_examples=examples, phases=[Phase.explicit, Phase.generate], deadline=None, database=None)(
        given_actions
    )()


def twins_agree(tmp_path_factory, make, actions):
    path = tmp_path_factory.mktemp("twin") / "run.h5"
    twins = [MemoryArchive(probes=[make.probe], provenance=make.run, all_segments=every) for every in (False, True)]
    writer = ArchiveWriter(path, probes=[make.probe], provenance=make.run)
    seed = 0
    for action, *details in actions:
        if action == "resume":
            writer.close()
            writer = ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=details[0])
            for twin in twins:
                twin.resume(resumed_from_step=details[0])
        elif action == "reread":
            agree(path, twins, make)
        else:
            count = details[1] if action == "many" else 1
            for step in range(details[0], details[0] + count):
                seed += 1
                measured = make.measurements(seed, kernel=True)
                if action == "append":
                    measured = {name: value for name, value in measured.items() if name in details[1]}
                given = make.snapshot(step, probes={"train": measured})
                writer.append(given)
                for twin in twins:
                    twin.append(given)
    agree(path, twins, make)
    writer.close()
    agree(path, twins, make)


def agree(path, twins, make):
    for every, twin in zip((False, True), twins, strict=True):
        with open_archive(path, all_segments=every) as archive:
            assert archive.steps.tolist() == twin.steps.tolist()
            assert all(map(make.same, archive, twin))
            xarray.testing.assert_equal(archive.to_xarray().load(), twin.to_xarray())


def measured(path, make):
    with ArchiveWriter(path, probes=[make.probe], provenance=make.run) as writer:
        writer.append(make.snapshot(0, probes={make.probe.name: {"trace": np.float64(1)}}))


def test_a_run_is_not_resumed_across_two_definitions(tmp_path, make, monkeypatch):
    """Oracle: the attribute in the file. A column of the first definition, then a catalogue with the second."""
    path = tmp_path / "run.h5"
    measured(path, make)
    name = "trace"
    with open_archive(path) as archive:
        assert archive.to_xarray(make.probe.name)[name].attrs["definition"] == 1
    entry = dataclasses.replace(registry.catalogue()[name], definition=2)
    monkeypatch.setitem(registry._REGISTERED, name, entry)
    before = path.read_bytes()
    with pytest.raises(
        ArchiveError, match=f"'{name}' follows another definition: expected definition 1, got definition 2"
    ):
        resume(path, make, 0, [2])
    assert path.read_bytes() == before
    monkeypatch.undo()
    resume(path, make, 0, [2])
    assert steps_of(path) == [0, 2]


def test_a_column_of_format_1_0_follows_the_first_definition(tmp_path, make):
    path = tmp_path / "run.h5"
    measured(path, make)
    with h5py.File(path, "r+") as file:
        del file[f"probes/{make.probe.name}/trace"].attrs["definition"]
    with open_archive(path) as archive:
        assert archive.columns[f"probes/{make.probe.name}/trace"].field.definition == 1


def test_an_archive_of_before_groups_had_a_lag_goes_on(tmp_path, make, monkeypatch):
    """Its rows are as they were, digests and all, and later ones have the column. Oracle: a writer without the field."""
    whole, encode = schema.ROOT, rows.encode

    def without(snapshot, **place):
        with monkeypatch.context() as patch:
            patch.setattr(schema, "ROOT", whole)
            row = encode(snapshot, **place)
        del row["lag"]
        digest = rows.digest({path: value for path, (_, value) in row.items()})
        return row | {"content_sha256": (row["content_sha256"][0], digest)}

    path = tmp_path / "run.h5"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "ROOT", {name: field for name, field in whole.items() if name != "lag"})
        patch.setattr(rows, "encode", without)
        with ArchiveWriter(path, probes=[make.probe], provenance=make.run) as writer:
            for step in (0, 5, 6):
                writer.append(make.snapshot(step, window=int(step == 6)))
    with h5py.File(path) as file:
        assert "lag" not in file
    assert check(path) == []
    with ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=6) as writer:
        writer.append(make.snapshot(10))
        writer.append(make.snapshot(11, window=1, lag=1))
    assert check(path) == []
    with open_archive(path) as archive:
        assert [(row.step, row.window, row.lag) for row in archive] == [
            (0, 0, 0),
            (5, 0, 0),
            (6, 1, 0),
            (10, 0, 0),
            (11, 1, 1),
        ]
        np.testing.assert_array_equal(archive.to_xarray().lag, [np.nan] * 4 + [1])
