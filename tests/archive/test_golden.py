"""Every released version of the format is read for ever. Oracle: what the file said when its version was released."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from kerneltrack import schema
from kerneltrack.archive import check, open_archive
from kerneltrack.errors import ArchiveFormatError
from tests.archive import golden

HERE = Path(__file__).parent
GOLDEN = sorted((HERE / "data").glob("format-*.h5"))


def test_there_is_a_golden_file_of_every_released_version():
    """1.1 grows until a release has it."""
    assert [path.stem for path in GOLDEN] == ["format-1.0"]
    assert schema.FORMAT_VERSION == "1.1"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_it_says_what_it_said(path):
    assert json.loads(json.dumps(golden.said(path))) == json.loads(
        path.with_suffix(".json").read_text(encoding="utf-8")
    )
    assert check(path) == []


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_comparison_sees_a_change(path, tmp_path):
    """Negative control."""
    copy = tmp_path / "copy.h5"
    shutil.copy(path, copy)
    with h5py.File(copy, "r+") as file:
        file["probes/train/targets"][0, 0] = np.nextafter(1.0, 2.0)
    assert golden.said(copy) != golden.said(path)


def test_the_command_still_writes_the_same_rows(tmp_path):
    golden.write(tmp_path / "new.h5")
    new, old = golden.said(tmp_path / "new.h5"), golden.said(GOLDEN[-1])
    for section in ("snapshots", "probes", "provenance", "canonical"):
        assert new[section] == old[section]


def changed(tmp_path, version):
    path = tmp_path / "changed.h5"
    shutil.copy(GOLDEN[-1], path)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = version
        file.attrs["mood"] = "bright"
        file.create_group("future").create_dataset("data", data=np.arange(3))
        extra = file.create_dataset("probes/train/new_quantity", data=np.zeros((5, 2)), chunks=(5, 2), fletcher32=True)
        extra.attrs["dimensions"] = "snapshot future_dimension"
    return path


def test_a_newer_minor_version_is_read_and_what_is_unknown_ignored(tmp_path):
    path = changed(tmp_path, "1.7")
    with open_archive(path) as archive:
        assert archive.steps.tolist() == [0, 1, 2, 3]
        assert archive.to_xarray("train").new_quantity.dims == ("snapshot", "future_dimension")


@pytest.mark.parametrize("version", ["2.0", "10.3"])
def test_a_newer_major_version_is_refused_with_the_reason(tmp_path, version):
    with pytest.raises(ArchiveFormatError, match=rf"newer format.*expected format 1.x, got {version}.*Install a newer"):
        open_archive(changed(tmp_path, version))
