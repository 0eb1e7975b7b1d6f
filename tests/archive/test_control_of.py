"""What the archive of a control says of its run. Oracles: h5py's own attributes, and the rows that were given."""

import shutil

import h5py
import pytest

from kerneltrack.analysis import load
from kerneltrack.archive import ArchiveWriter, check, open_archive, publish, says
from kerneltrack.archive.spool import ArchiveWarning, Spool
from kerneltrack.errors import ArchiveError, ArchiveFormatError
from kerneltrack.snapshot import ControlOf

SAID = ("control_of", "placebo_of", "fork_step", "batches")


def said(path):
    with h5py.File(path) as file:
        found = {name: file.attrs[name] for name in SAID if name in file.attrs}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


@pytest.mark.parametrize("rows", [0, 1, 9])
@pytest.mark.parametrize("placebo", [False, True])
def test_it_is_written_at_once_and_the_batches_at_the_end(tmp_path, make, rows, placebo):
    """Unverified until it is closed, also as a kill would leave it; then as it was told, whether parts wait or not."""
    of, path = "placebo_of" if placebo else "control_of", tmp_path / "control.h5"
    given = [make.snapshot(step) for step in range(5, 5 + rows)]
    with ArchiveWriter(
        path, probes=[make.probe], control=ControlOf(archive_id="x", fork_step=5, placebo=placebo)
    ) as writer:
        for row in given:
            writer.append(row)
        writer.tell_batches("same_batches")
        assert said(path) == {of: "x", "fork_step": 5, "batches": "unverified"}
        shutil.copytree(tmp_path, tmp_path.parent / "killed", dirs_exist_ok=True)
    assert said(path) == {of: "x", "fork_step": 5, "batches": "same_batches"}
    assert said(tmp_path.parent / "killed" / "control.h5")["batches"] == "unverified"
    assert check(path) == []
    with open_archive(path) as archive:
        assert len(archive) == rows
        assert all(map(make.same, archive, given))
        assert archive.attrs["batches"] == "same_batches"


def test_a_full_disk_leaves_it_unverified(tmp_path, make, monkeypatch):
    """Nothing is lost, and nothing is claimed."""
    writer = ArchiveWriter(tmp_path / "c.h5", probes=[make.probe], control=ControlOf(archive_id="x", fork_step=5))
    writer.append(make.snapshot(5))
    writer.tell_batches("same_batches")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spool, "join_now", full)
    with pytest.warns(ArchiveWarning, match="cannot be joined now"):
        writer.close()
    with open_archive(tmp_path / "c.h5") as archive:
        assert archive.attrs["batches"] == "unverified"
        assert len(archive) == 1


def test_only_a_control_tells_of_batches(tmp_path, make):
    with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe]) as writer:
        assert said(writer.path) == {}
        with pytest.raises(ArchiveError, match="only a control's archive tells of batches"):
            writer.tell_batches("same_batches")


def test_a_published_copy_is_still_a_control(tmp_path, make):
    with ArchiveWriter(
        tmp_path / "c.h5", probes=[make.probe], control=ControlOf(archive_id="x", fork_step=5)
    ) as writer:
        writer.append(make.snapshot(5))
        writer.tell_batches("other_batches")
    cited = {"licence": "CC-BY-4.0", "authors": ["Marie Curie"], "contact": "marie@example.org"}
    publish(tmp_path / "c.h5", tmp_path / "public.h5", **cited)
    assert said(tmp_path / "public.h5") == said(tmp_path / "c.h5")


def test_a_stranger_s_words_are_none_of_ours(tmp_path, make):
    """A word that this reader does not know is that of other batches; an attribute of another type is refused by name."""
    with ArchiveWriter(
        tmp_path / "c.h5", probes=[make.probe], control=ControlOf(archive_id="x", fork_step=5)
    ) as writer:
        writer.append(make.snapshot(5))
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        file.attrs["batches"] = "<script>"
    run = load(tmp_path / "c.h5").only
    assert (run.control_of, run.fork_step, run.other_batches) == ("x", 5, "other_batches")
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        file.attrs["fork_step"] = "<b>five</b>"
    (problem,) = check(tmp_path / "c.h5")
    assert "/@fork_step is not a integer" in problem.text
    with pytest.raises(ArchiveFormatError, match="fork_step is not a integer"):
        load(tmp_path / "c.h5")


def test_a_file_is_asked_without_being_opened_as_an_archive(tmp_path, make, monkeypatch):
    """Oracle: h5py's own attribute. What is no archive, no file, a link, damaged or too large says nothing."""
    path = tmp_path / "control.h5"
    ArchiveWriter(path, probes=[make.probe], control=ControlOf(archive_id="x", fork_step=5)).close()
    assert [says(path, name) for name in (*SAID, "mine")] == ["x", "", "5", "unverified", ""]
    (tmp_path / "text.h5").write_text("control_of x")
    (tmp_path / "link.h5").symlink_to(path)
    (tmp_path / "damaged.h5").write_bytes(path.read_bytes()[:2000])
    (tmp_path / "folder.h5").mkdir()
    for name in ("text", "link", "damaged", "folder", "none"):
        assert says(tmp_path / f"{name}.h5", "control_of") == ""
    monkeypatch.setattr("kerneltrack.archive.safety.MAX_ATTRIBUTE_BYTES", 0)
    assert says(path, "control_of") == ""
