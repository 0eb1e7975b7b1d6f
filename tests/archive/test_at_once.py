"""Archives whose rows are joined in memory. Oracle: the writer's own archive of the same rows, bit for bit."""

import dataclasses

from kerneltrack.archive import ArchiveWriter, check, open_archive
from kerneltrack.snapshot import ControlOf, Provenance, Snapshot
from tests.archive import at_once
from tests.archive.golden import probes, snapshot
from tests.archive.same import differences

#: Two probes of which one is not in every row, a kernel in the first, further groups of parameters, a failed row.
ROWS = [*map(snapshot, range(12)), Snapshot(step=12, status="failed", message="λ_1 is not finite")]
GIVEN = Provenance(run={"run_id": "r"}, metadata={"width": 3})


def test_it_is_the_archive_that_the_writer_makes(tmp_path):
    with ArchiveWriter(tmp_path / "a.h5", probes=probes(), provenance=GIVEN) as writer:
        for row in ROWS:
            writer.append(row)
    at_once.write(tmp_path / "b.h5", ROWS, *probes(), provenance=GIVEN)
    assert differences(tmp_path / "a.h5", tmp_path / "b.h5") == []
    assert list(check(tmp_path / "b.h5")) == []  # the hash of each row, too, which differences leaves out
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".h5"] == []


def test_a_control_says_what_it_is(tmp_path):
    said = ControlOf(archive_id="x" * 36, fork_step=1, batches="same_batches")
    with ArchiveWriter(tmp_path / "a.h5", probes=probes(), control=said) as writer:
        writer.append(snapshot(1))
        writer.tell_batches("same_batches")
    at_once.write(tmp_path / "b.h5", [snapshot(1)], *probes(), control=said)
    assert differences(tmp_path / "a.h5", tmp_path / "b.h5") == []
    with open_archive(tmp_path / "b.h5") as archive:
        assert archive.attrs["batches"] == "same_batches"


def test_no_row_is_an_empty_archive_and_another_row_another_one(tmp_path):
    """The second is the negative control of both tests above."""
    ArchiveWriter(tmp_path / "a.h5", probes=probes()).close()
    at_once.write(tmp_path / "b.h5", [], *probes())
    assert differences(tmp_path / "a.h5", tmp_path / "b.h5") == []
    for name, loss in (("c", 0.5), ("d", 0.25)):
        at_once.write(tmp_path / f"{name}.h5", [dataclasses.replace(snapshot(1), training_loss=loss)], *probes())
    assert differences(tmp_path / "c.h5", tmp_path / "d.h5")
