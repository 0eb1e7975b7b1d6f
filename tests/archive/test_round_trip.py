"""What is appended is what is read. Oracle: the snapshots that were given, kept in memory."""

from __future__ import annotations

import dataclasses
import math
import os

import h5py
import numpy as np
import pytest

from kerneltrack import schema
from kerneltrack.archive import ArchiveWriter, fields, open_archive
from kerneltrack.archive.checking import problems
from kerneltrack.errors import ArchiveError, ArchiveExistsError
from kerneltrack.observables import Observable, catalogue, register
from kerneltrack.snapshot import Provenance


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 40])
def test_reads_what_was_appended_before_and_after_closing(tmp_path, make, count):
    given = [make.snapshot(step) for step in range(count)]
    path = tmp_path / "deep" / "run.h5"
    with ArchiveWriter(path, probes=[make.probe], provenance=Provenance(metadata={"width": 8})) as writer:
        for each in given:
            writer.append(each)
        assert writer.rows == count
        with open_archive(path) as archive:
            assert all(map(make.same, archive, given))
            assert len(archive) == count
    assert not path.with_name("run.h5.parts").exists()
    with open_archive(path) as archive:
        assert archive.steps.tolist() == list(range(count))
        assert all(make.same(archive[i], given[i]) for i in range(-count, count))
        assert all(map(make.same, archive[1:5], given[1:5]))
        assert archive.provenance.metadata == {"width": 8}


def test_the_comparison_sees_one_changed_bit(make):
    """Negative control of the oracle above."""
    value = make.measurements(0)
    value["eigenvalues"][3] = np.nextafter(value["eigenvalues"][3], 9)
    changed = make.snapshot(0, probes={"train": value})
    assert not make.same(changed, make.snapshot(0, probes={"train": make.measurements(0)}))


def test_a_probe_comes_back_with_targets_settings_and_inputs(tmp_path, make):
    inputs = {"image": np.arange(24.0).reshape(12, 2), "mask": np.ones((12, 3), bool), "half": np.ones(12, "f2")}
    probe = dataclasses.replace(
        make.probe,
        name="val",
        inputs=inputs,
        input_shapes={key: (str(value.dtype), value.shape) for key, value in inputs.items()},
        identity={"dataset": "photo", "indices": [3, 1]},
    )
    ArchiveWriter(tmp_path / "run.h5", probes={"train": make.probe, "val": probe}).close()
    with open_archive(tmp_path / "run.h5") as archive:
        found = archive.probes["val"]
        assert list(archive.probes) == ["train", "val"]
        assert (found.settings, found.identity, found.input_shapes) == (
            probe.settings,
            probe.identity,
            probe.input_shapes,
        )
        np.testing.assert_array_equal(found.targets, probe.targets)
        assert {key: value.dtype for key, value in found.inputs.items()} == {
            key: value.dtype for key, value in inputs.items()
        }
        for key, value in inputs.items():
            np.testing.assert_array_equal(found.inputs[key], value)


def test_a_failure_is_a_row_with_its_reason(tmp_path, make):
    failed = make.snapshot(3, status="failed", message="λ is not finite\nat all", probes={}, learning_rates=())
    with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe]) as writer:
        writer.append(failed)
    with open_archive(tmp_path / "run.h5") as archive:
        assert make.same(archive[0], failed)


def test_long_texts_are_cut_between_characters_and_say_so(tmp_path, make):
    """256 bytes: 126 letters of two bytes, and three for the mark."""
    with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe]) as writer:
        writer.append(make.snapshot(0, message="é" * 400))
        writer.append(make.snapshot(1, message="é" * 128))
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive[0].message == "é" * 126 + "…"
        assert archive[1].message == "é" * 128


def test_what_holds_only_nan_was_not_measured(tmp_path, make):
    measured = make.measurements(1) | {"target_coefficients": np.full((12, 2), math.nan)}
    with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe]) as writer:
        writer.append(make.snapshot(1, probes={"train": measured}))
        writer.append(make.snapshot(2, probes={"train": {}}))
    with open_archive(tmp_path / "run.h5") as archive:
        assert set(archive[0].probes["train"]) == {"eigenvalues", "eigenvectors"}
        assert archive[1].probes == {}


def test_an_array_without_entries_is_not_stored(tmp_path, make):
    """NTKTracker(top_k=0) measures eigenvectors, none of them."""
    measured = {**make.measurements(0), "eigenvectors": np.ones((12, 1, 0), np.float32)}
    with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe]) as writer:
        writer.append(make.snapshot(0, probes={"train": measured}))
    del measured["eigenvectors"]
    with open_archive(tmp_path / "run.h5") as archive:
        assert make.same(archive[0], make.snapshot(0, probes={"train": measured}))


def test_the_number_of_parameter_groups_may_grow(tmp_path, make):
    with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe]) as writer:
        for step, rates in enumerate([(0.1,), (), (0.1, 0.2, 0.3)]):
            writer.append(make.snapshot(step, learning_rates=rates))
    with open_archive(tmp_path / "run.h5") as archive:
        assert [snapshot.learning_rates for snapshot in archive] == [(0.1,), (), (0.1, 0.2, 0.3)]


SIZES = {"sample": 6, "sample_2": 6, "output": 3, "output_2": 3, "kernel_output": 3, "kernel_output_2": 3, "mode": 18}
SIZES |= {"vector": 4, "vector_2": 4, "other_vector": 5, "coefficient": 1, "energy_k": 4, "layer": 2}


def everything(seed, sizes, observables=()):
    """One array of every dataset of the schema, and of each observable."""
    draw = np.random.default_rng(seed)
    every = [*schema.MEASUREMENT_FIELDS, *map(fields.observable_field, observables)]
    drawn = {
        field.name: draw.normal(size=tuple(sizes[dim] for dim in field.dims[1:])).astype(field.dtypes[-1])
        for field in every
    }
    return drawn | {"eigenvalues": -np.sort(-drawn["eigenvalues"])}


def test_everything_that_can_be_measured_has_its_place(tmp_path, make):
    """Every dataset of the schema and every observable of the catalogue, on two probes of other sizes at once."""
    sizes = {"train": SIZES, "val": {dim: size + 1 for dim, size in SIZES.items()}}
    probes = [
        dataclasses.replace(make.probe, name=name, count=size["sample"], targets=None, inputs=None, settings={})
        for name, size in sizes.items()
    ]
    known = list(catalogue().values())
    given = [
        make.snapshot(step, probes={name: everything(step, size, known) for name, size in sizes.items()})
        for step in range(3)
    ]
    with ArchiveWriter(tmp_path / "run.h5", probes=probes) as writer:
        for snapshot in given:
            writer.append(snapshot)
    assert not list(problems(tmp_path / "run.h5"))
    with open_archive(tmp_path / "run.h5") as archive:
        assert all(map(make.same, archive, given))
        labelled = archive.to_xarray("val")
        for entry in known:
            stored = labelled[entry.name]
            assert stored.dims == ("snapshot", *entry.dims)
            assert stored.attrs["formula"] == entry.formula
            assert stored.attrs["units"] == entry.units


def test_a_users_observable_lands_under_its_own_name(tmp_path, make, monkeypatch):
    """Classes by classes, with formula and unit. Oracle: the file itself, read with h5py."""
    monkeypatch.setattr("kerneltrack.observables.registry._REGISTERED", dict(catalogue()))
    mine = Observable(
        "class_blocks",
        "Σ_{n∈c, m∈d} Θ[n, m]",
        "rad",
        "mine",
        frozenset(),
        lambda state: 0.0,
        ("output", "output_2"),
        reading="Higher: more alike. Typical: any. Beside it: nothing.",
    )
    register(mine)
    value = np.arange(4.0).reshape(2, 2)
    with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe]) as writer:
        writer.append(make.snapshot(0, probes={"train": {"class_blocks": value}}))
    monkeypatch.undo()  # whoever reads it has not registered it
    with h5py.File(tmp_path / "run.h5") as file:
        stored = file["probes/train/class_blocks"]
        assert {name: stored.attrs[name].decode() for name in ("formula", "units", "source", "reading")} == {
            "formula": mine.formula,
            "units": "rad",
            "source": "mine",
            "reading": mine.reading,
        }
        assert stored[0].tolist() == value.tolist()
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive[0].probes["train"]["class_blocks"].tolist() == value.tolist()
        assert archive.to_xarray().class_blocks.attrs["units"] == "rad"
        assert archive.to_xarray().class_blocks.attrs["reading"] == mine.reading
    assert not list(problems(tmp_path / "run.h5"))


def test_one_snapshot_is_read_without_the_others(tmp_path, make, monkeypatch):
    """Oracle: the bytes that are asked of the file; the one snapshot's kernel is 1.28 MB of 12.8 MB."""
    from kerneltrack.archive.durable import Stream

    probe = dataclasses.replace(make.probe, count=400, targets=None, inputs=None, input_shapes={})
    kernel = np.random.default_rng(0).normal(size=(400, 400, 1, 1))
    with ArchiveWriter(tmp_path / "run.h5", probes=[probe]) as writer:
        for step in range(10):
            writer.append(make.snapshot(step, probes={"train": {"kernel": kernel + step}}))
    read = []
    original = Stream.readinto
    monkeypatch.setattr(Stream, "readinto", lambda self, buffer: read.append(len(buffer)) or original(self, buffer))
    with open_archive(tmp_path / "run.h5") as archive:
        assert sum(read) < 200_000
        np.testing.assert_array_equal(archive[4].probes["train"]["kernel"], kernel + 4)
        assert sum(read) < kernel.nbytes + 400_000
        assert sum(read) >= kernel.nbytes


class TestRefusals:
    """Each leaves the archive as it was, and the next append works."""

    @pytest.fixture
    def writer(self, tmp_path, make):
        with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe]) as writer:
            writer.append(make.snapshot(0))
            yield writer

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("eigenvalues", np.ones(5), r"another number of 'mode'.*expected 12, got 5"),
            ("eigenvectors", np.ones((12, 1)), "wrong number of dimensions"),
            ("outputs", np.ones((11, 2)), r"another number of 'sample'"),
            ("outputs", np.ones((12, 3)), r"another number of 'output'"),
            ("eigenvalues", np.array(["a"] * 12), "does not hold real numbers"),
            ("eigenvalues", np.ones(12, complex), "does not hold real numbers"),
            ("kernel", np.ones((12, 12, 1, 1)), "changed its dtype.*expected f4, got f8"),
            ("moon_phase", np.ones(1), "nothing called 'moon_phase'.*Register an Observable named 'moon_phase'"),
        ],
    )
    def test_a_value_that_does_not_fit(self, writer, make, name, value, message):
        with pytest.raises(ArchiveError, match=message):
            writer.append(make.snapshot(1, probes={"train": {name: value}}))
        self.still_works(writer, make)

    def test_an_unknown_probe(self, writer, make):
        with pytest.raises(ArchiveError, match=r"a probe that the archive does not have.*expected train, got 'test'"):
            writer.append(make.snapshot(1, probes={"test": {"eigenvalues": np.ones(12)}}))
        self.still_works(writer, make)

    @staticmethod
    def still_works(writer, make):
        writer.append(make.snapshot(1))
        with open_archive(writer.path) as archive:
            assert archive.steps.tolist() == [0, 1]

    def test_a_closed_writer(self, writer, make):
        writer.close()
        writer.close()
        with pytest.raises(ArchiveError, match="the archive is closed"):
            writer.append(make.snapshot(1))

    def test_a_closed_archive(self, writer):
        archive = open_archive(writer.path)
        archive.close()
        with pytest.raises(ArchiveError, match="the archive is closed"):
            archive.steps  # noqa: B018

    @pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a b", "x" * 65])
    def test_a_probe_name_that_cannot_be_a_group(self, tmp_path, make, name):
        with pytest.raises(ArchiveError, match="cannot have that name"):
            ArchiveWriter(tmp_path / "x.h5", probes=[dataclasses.replace(make.probe, name=name)])
        assert not (tmp_path / "x.h5").exists()

    @pytest.mark.parametrize("empty", [{"count": 0}, {"targets": np.ones((12, 0))}])
    def test_a_probe_that_holds_nothing(self, tmp_path, make, empty):
        with pytest.raises(ArchiveError, match="a probe holds nothing"):
            ArchiveWriter(tmp_path / "run.h5", probes=[dataclasses.replace(make.probe, **empty)])
        assert list(tmp_path.iterdir()) == []

    def test_two_probes_of_one_name(self, tmp_path, make):
        with pytest.raises(ArchiveError, match="two probes have the same name"):
            ArchiveWriter(tmp_path / "x.h5", probes=[make.probe, make.probe])

    def test_provenance_that_is_not_json(self, tmp_path, make):
        with pytest.raises(ArchiveError, match=r"cannot be stored as JSON.*got object \(in metadata.x\)"):
            ArchiveWriter(tmp_path / "x.h5", probes=[make.probe], provenance=Provenance(metadata={"x": object()}))
        assert not list(tmp_path.iterdir())

    def test_an_index_out_of_range(self, writer):
        with open_archive(writer.path) as archive, pytest.raises(IndexError, match="snapshot 1 of an archive of 1"):
            archive[1]


def test_refuses_to_overwrite(tmp_path, make):
    path = tmp_path / "run.h5"
    path.write_bytes(b"precious")
    for if_exists in ("raise", "replace"):
        with pytest.raises(ArchiveExistsError, match="is no kerneltrack archive; nothing was touched"):
            ArchiveWriter(path, probes=[make.probe], if_exists=if_exists)
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["run.h5"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("an archive", "there is an archive already"),
        ("damaged", "there is an archive already"),
        ("parts", "parts of an archive are there already"),
        ("folder", "a folder is there"),
        ("pipe", "a device, pipe or socket is there"),
        ("text", "is no kerneltrack archive"),
        ("a network's weights", "is no kerneltrack archive"),
        ("empty", "is no kerneltrack archive"),
        ("a part", "in the folder of an archive's parts"),
    ],
)
def test_what_is_in_the_way_is_called_what_it_is(tmp_path, make, kind, said):
    """Oracles: the bytes before and after, and that only an archive, or an empty file, gives way to a new one."""
    path = tmp_path / "run.h5"
    if kind in ("an archive", "damaged", "a part"):
        ArchiveWriter(path, probes=[make.probe]).close()
        path.write_bytes(path.read_bytes()[: 3000 if kind == "damaged" else None])
        path = tmp_path / "run.h5.parts" / "000000000-1.h5" if kind == "a part" else path
    elif kind == "parts":
        (tmp_path / "run.h5.parts").mkdir()
        (tmp_path / "run.h5.parts" / "000000000-1.h5").write_bytes(b"part")
    elif kind in ("folder", "pipe"):
        path.mkdir() if kind == "folder" else os.mkfifo(path)
    elif kind == "a network's weights":
        with h5py.File(path, "w") as file:
            file["kernel"] = np.ones(3)
    else:
        path.write_bytes(b"text" * (kind == "text"))
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(ArchiveExistsError, match=said):
        ArchiveWriter(path, probes=[make.probe])
    assert (path.read_bytes() if path.is_file() else b"") == before
    if kind in ("an archive", "damaged", "parts", "empty"):
        ArchiveWriter(path, probes=[make.probe], if_exists="replace").close()
        assert len(open_archive(path)) == 0
    else:
        with pytest.raises(ArchiveExistsError, match=said):
            ArchiveWriter(path, probes=[make.probe], if_exists="replace")
        assert (path.read_bytes() if path.is_file() else b"") == before


def test_replacing_keeps_the_old_file_until_the_new_one_is_there(tmp_path, make, monkeypatch):
    path = tmp_path / "run.h5"
    ArchiveWriter(path, probes=[make.probe], provenance=Provenance(run={"run_id": "old"})).close()
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(ArchiveError, match=r"cannot be created.*No space left"):
            ArchiveWriter(path, probes=[make.probe], if_exists="replace")
    assert path.read_bytes() == before
    with ArchiveWriter(path, probes=[make.probe], if_exists="replace") as writer:
        writer.append(make.snapshot(5))
    with open_archive(path) as archive:
        assert archive.steps.tolist() == [5]
        assert archive.attrs["run_id"] != "old"


def test_a_link_to_an_archive_stays_a_link(tmp_path, make):
    (tmp_path / "scratch").mkdir()
    link = tmp_path / "run.h5"
    link.symlink_to(tmp_path / "scratch" / "run.h5")
    with ArchiveWriter(link, probes=[make.probe]) as writer:
        writer.append(make.snapshot(0))
        assert (tmp_path / "scratch" / "run.h5.parts").is_dir()
    assert link.is_symlink()
    with open_archive(link) as archive:
        assert len(archive) == 1
