"""An archive is an ordinary netCDF-4 file. Oracles: other programs, and what this package reads from the same file."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
import xarray

from kerneltrack import schema
from kerneltrack.archive import Archive, ArchiveWriter, open_archive
from kerneltrack.errors import ArchiveError
from kerneltrack.snapshot import Provenance


@pytest.fixture
def path(tmp_path, make):
    path = tmp_path / "run.h5"
    with ArchiveWriter(path, probes=[make.probe], provenance=Provenance(metadata={"width": 8})) as writer:
        for step in range(5):
            writer.append(make.snapshot(step))
    return path


@pytest.fixture(params=["closed", "empty"])
def any_path(request, path, tmp_path, make):
    if request.param == "empty":
        path = tmp_path / "empty.h5"
        ArchiveWriter(path, probes=[make.probe]).close()
    return path


def test_xarray_reads_every_group(any_path):
    root = xarray.open_dataset(any_path, engine="h5netcdf")
    assert set(root.variables) == set(schema.ROOT)
    assert root.step.dims == ("snapshot",)
    probe = xarray.open_dataset(any_path, engine="h5netcdf", group="/probes/train")
    assert probe.energy_k.values.tolist() == [1, 2, 4]
    for name, variable in probe.variables.items():
        if name in schema.MEASUREMENTS:
            assert variable.dims == schema.MEASUREMENTS[name].dims
    assert not [dim for dim in (*root.dims, *probe.dims) if str(dim).startswith("phony")]


def test_xarray_reads_the_same_values(path):
    probe = xarray.open_dataset(path, engine="h5netcdf", group="/probes/train")
    with open_archive(path) as archive:
        ours = archive.to_xarray().load()
    for name in ("eigenvalues", "eigenvectors", "target_coefficients", "kernel", "targets"):
        np.testing.assert_array_equal(probe[name].values, ours[name].values)
        assert probe[name].dims == ours[name].dims
    root = xarray.open_dataset(path, engine="h5netcdf")
    assert [text.decode() for text in root.trigger.values] == ours.trigger.values.tolist()


def test_plain_h5py_reads_it(path, make):
    with h5py.File(path) as file:
        assert file.attrs["format"] == b"kerneltrack"
        assert file["probes/train/eigenvalues"][2].tolist() == make.measurements(2)["eigenvalues"].tolist()
        assert json.loads(file["provenance/metadata"][()].tobytes()) == {"width": 8}
        assert file["trigger"][0].tobytes().rstrip(b"\0").decode() == make.snapshot(0).trigger
        assert [dim.label for dim in file["probes/train/eigenvalues"].dims] == ["", ""]
        assert file["probes/train/eigenvalues"].dims[0][0] == file["snapshot"]


def test_everything_with_chunks_has_a_checksum(path):
    unchecked = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                unchecked.append(name)
                if isinstance(item, h5py.Dataset) and "dimensions" in item.attrs and item.size and not item.fletcher32
                else None
            )
        )
        assert unchecked == []
    assert path.read_bytes()[8] == 3  # the superblock's version: metadata carry checksums from 2 on


def test_the_netcdf_library_reads_it(path, make):
    """netCDF's own C library, in a process of its own: it brings another HDF5 along."""
    script = (
        "import json, sys, netCDF4; file = netCDF4.Dataset(sys.argv[1]); probe = file['probes/train'];"
        "print(json.dumps({'unlimited': file.dimensions['snapshot'].isunlimited(), 'steps': file['step'][:].tolist(),"
        " 'values': probe['eigenvalues'][:].tolist(), 'units': file['wall_time'].units, 'format': file.format,"
        " 'dims': {name: list(each.dimensions) for name, each in probe.variables.items()}}))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["unlimited"]
    assert found["steps"] == [0, 1, 2, 3, 4]
    assert found["format"] == "kerneltrack"  # our attribute; netCDF4 gives attributes precedence over its own property
    assert found["units"] == "s"
    assert found["values"] == [make.measurements(step)["eigenvalues"].tolist() for step in range(5)]
    for name in ("eigenvalues", "eigenvectors", "kernel", "target_coefficients"):
        assert found["dims"][name] == list(schema.MEASUREMENTS[name].dims)


@pytest.mark.skipif(not shutil.which("ncdump"), reason="ncdump is not installed")
def test_ncdump_reads_it(any_path):
    shown = subprocess.run(["ncdump", "-h", str(any_path)], capture_output=True, text=True, check=True).stdout
    assert "snapshot = UNLIMITED" in shown
    assert "double learning_rate(snapshot, param_group) ;" in shown
    assert "group: train {" in shown
    assert "phony" not in shown
    everything = subprocess.run(["ncdump", str(any_path)], capture_output=True, text=True, check=True).stdout
    assert "group: provenance" in everything


@pytest.mark.skipif(not shutil.which("h5dump"), reason="h5dump is not installed")
def test_h5dump_reads_it(any_path):
    shown = subprocess.run(["h5dump", "-H", str(any_path)], capture_output=True, text=True, check=True).stdout
    assert 'DATASET "eigenvalues"' in shown or "empty" in any_path.name
    assert "H5T_IEEE_F64LE" in shown


class TestLabelled:
    """to_xarray() reads what is asked of it, when it is asked."""

    def test_nothing_is_read_before_it_is_asked_for(self, path, monkeypatch):
        with open_archive(path) as archive:
            asked = []
            original = archive.column
            monkeypatch.setattr(
                archive, "column", lambda name, *key: asked.append((name, *key)) or original(name, *key)
            )
            labelled = archive.to_xarray()
            assert not [name for name, *_ in asked if name.startswith("probes/")]
            labelled.eigenvectors.isel(snapshot=2).values  # noqa: B018
            assert [name for name, *_ in asked if name.startswith("probes/")] == ["probes/train/eigenvectors"]
            assert asked[-1][1] == 2

    def test_every_way_to_index(self, path):
        """Oracle: NumPy's indexing of the whole array."""
        with open_archive(path) as archive:
            labelled = archive.to_xarray()
            whole = archive.column("probes/train/eigenvectors")
            vectors = labelled.eigenvectors
            np.testing.assert_array_equal(vectors[1].values, whole[1])
            np.testing.assert_array_equal(vectors[::-2, 3:9, 0, [2, 0]].values, whole[::-2, 3:9, 0][..., [2, 0]])
            np.testing.assert_array_equal(vectors[[4, 0], 5].values, whole[[4, 0], 5])
            np.testing.assert_array_equal(vectors.isel(snapshot=[], vector=1).values, whole[[], ..., 1])
            np.testing.assert_array_equal(
                vectors.isel(snapshot=xarray.DataArray([0, 2], dims="x"), sample=xarray.DataArray([1, 3], dims="x")),
                whole[[0, 2], [1, 3]],
            )

    def test_dask_reads_it_in_pieces(self, path):
        dask_array = pytest.importorskip("dask.array", reason="dask is not installed")
        with open_archive(path) as archive:
            chunked = archive.to_xarray().chunk(snapshot=2)
            assert isinstance(chunked.eigenvalues.data, dask_array.Array)
            found = chunked.eigenvalues.mean("snapshot").compute()
            np.testing.assert_allclose(found, archive.column("probes/train/eigenvalues").mean(0), rtol=1e-15)

    def test_dask_reads_it_in_other_processes(self, path):
        """Oracle: the same mean in this process."""
        pytest.importorskip("dask.array", reason="dask is not installed")
        with open_archive(path) as archive:
            chunked = archive.to_xarray().chunk(snapshot=2)
            found = chunked.eigenvalues.mean("snapshot").compute(scheduler="processes", num_workers=1)
            np.testing.assert_allclose(found, archive.column("probes/train/eigenvalues").mean(0), rtol=1e-15)

    def test_many_archives_are_one_array_that_is_not_loaded(self, tmp_path, make, monkeypatch):
        """Oracle: the mean over archives that are read one by one; before it is asked for, no measurement is read."""
        pytest.importorskip("dask.array", reason="dask is not installed")
        paths = [tmp_path / f"{number}.h5" for number in range(6)]
        for number, path in enumerate(paths):
            with ArchiveWriter(path, probes=[make.probe]) as writer:
                for step in range(3):
                    writer.append(make.snapshot(step, probes={"train": make.measurements(10 * number + step)}))
        archives, asked = [open_archive(path) for path in paths], []
        column = Archive.column
        monkeypatch.setattr(Archive, "column", lambda self, name, *key: asked.append(name) or column(self, name, *key))
        runs = [archive.to_xarray().chunk(snapshot=1) for archive in archives]
        together = xarray.concat([run.eigenvalues for run in runs], dim="run")
        assert not [name for name in asked if name.startswith("probes/")]
        found = together.mean("run").compute()
        assert asked.count("probes/train/eigenvalues") == 18
        expected = np.mean([column(archive, "probes/train/eigenvalues") for archive in archives], axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-14)

    def test_what_it_says_about_itself(self, path, make):
        with open_archive(path) as archive:
            labelled = archive.to_xarray()
            assert labelled.attrs["probe"] == "train"
            assert json.loads(labelled.attrs["settings"]) == make.probe.settings
            assert set(json.loads(labelled.attrs["provenance"])) == {"run", "metadata", "parameters", "private"}
            assert labelled.attrs["archive_id"] == archive.attrs["archive_id"]
            assert labelled.attrs["path"] == str(path)
            assert labelled.eigenvalues.attrs["units"] == "1"
            assert labelled.inputs.shape == (12, 5)
            assert {"step", "epoch", "wall_time", "snapshot_seconds", "energy_k"} <= set(labelled.coords)

    @pytest.mark.parametrize(
        "inputs",
        [
            {"x": np.ones((12, 2), "f2"), "mask": np.ones(12, bool), "x_axis_1": np.zeros(12)},
            {"": np.zeros((12, 3), "u1")},
            None,
        ],
        ids=["several", "bytes", "none"],
    )
    def test_it_can_be_written_to_netcdf(self, tmp_path, make, inputs):
        """Oracle: what xarray reads of the file. Inputs of kinds that netCDF lacks, and texts of any letters."""
        settings = {**make.probe.settings, "layers": ["λ", ""]}
        probe = replace(make.probe, inputs=inputs, input_shapes={}, settings=settings)
        with ArchiveWriter(tmp_path / "run.h5", probes=[probe]) as writer:
            writer.append(make.snapshot(0))
            writer.append(make.snapshot(1, message="λ\n", status="failed", probes={}))
        with open_archive(tmp_path / "run.h5") as archive:
            labelled = archive.to_xarray()
            labelled.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
            with xarray.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as found:
                xarray.testing.assert_identical(found.load(), labelled.load())
                assert json.loads(found.attrs["settings"]) == settings
                assert json.loads(found.attrs["provenance"]) == json.loads(labelled.attrs["provenance"])

    def test_netcdfs_own_library_writes_it_too(self, path):
        """The engine that xarray takes where nobody names one; in a process of its own, for it brings another HDF5."""
        script = (
            "import sys, kerneltrack, xarray; data = kerneltrack.open_archive(sys.argv[1]).to_xarray();"
            "data.to_netcdf(sys.argv[2]); xarray.testing.assert_equal(xarray.open_dataset(sys.argv[2]), data.load())"
        )
        target = str(path.with_suffix(".nc"))
        done = subprocess.run([sys.executable, "-c", script, str(path), target], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")

    def test_which_probe(self, path, tmp_path, make):
        import dataclasses

        other = dataclasses.replace(make.probe, name="val")
        ArchiveWriter(tmp_path / "two.h5", probes=[make.probe, other]).close()
        with open_archive(tmp_path / "two.h5") as archive:
            with pytest.raises(OSError, match="several probes: expected one of train, val"):
                archive.to_xarray()
            with pytest.raises(OSError, match="no probe 'test'"):
                archive.to_xarray("test")
            assert archive.to_xarray("val").attrs["probe"] == "val"


class TestPickled:
    """An archive that was pickled is opened again as it was. Oracle: the archive that was not."""

    def test_what_was_appended_since_is_left_out(self, tmp_path, make):
        path = tmp_path / "run.h5"
        with ArchiveWriter(path, probes=[make.probe]) as writer:
            for step in range(4):
                writer.append(make.snapshot(step))
            archive = open_archive(path)
            pickled = pickle.dumps(archive)
            writer.append(make.snapshot(4))
        with ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=1) as writer:
            writer.append(make.snapshot(2))
        assert open_archive(path).steps.tolist() == [0, 1, 2]
        copy = pickle.loads(pickled)
        assert copy.steps.tolist() == archive.steps.tolist() == [0, 1, 2, 3]
        assert all(map(make.same, copy, archive))
        assert [s.number for s in copy.segments] == [0]
        assert pickle.loads(pickle.dumps(copy)).steps.tolist() == [0, 1, 2, 3]

    @pytest.mark.parametrize("all_segments", [True, False])
    def test_the_rows_are_those_that_were_asked_for(self, path, make, all_segments):
        with ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=2) as writer:
            writer.append(make.snapshot(3))
        archive = open_archive(path, all_segments=all_segments)
        copy = pickle.loads(pickle.dumps(archive))
        assert copy.steps.tolist() == ([0, 1, 2, 3, 4, 3] if all_segments else [0, 1, 2, 3])
        assert all(map(make.same, copy, archive))

    def test_another_archive_at_its_place_is_refused(self, path, make):
        pickled = pickle.dumps(open_archive(path))
        with ArchiveWriter(path, probes=[make.probe], if_exists="replace") as writer:
            for step in range(5):
                writer.append(make.snapshot(step))
        with pytest.raises(ArchiveError, match="no longer the archive that was opened"):
            pickle.loads(pickled)

    def test_a_closed_one_cannot_be(self, path):
        archive = open_archive(path)
        archive.close()
        with pytest.raises(ArchiveError, match="is closed"):
            pickle.dumps(archive)
