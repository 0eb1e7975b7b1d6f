"""merge() and publish(). Oracles: the rows before and after, and the bytes of the copy."""

from __future__ import annotations

import dataclasses

import pytest

from kerneltrack.archive import ArchiveWriter, check, merge, open_archive, publish
from kerneltrack.errors import ArchiveError, ArchiveExistsError
from kerneltrack.snapshot import Provenance

SECRET = "/home/marie/secret-project"
CITED = {"licence": "CC-BY-4.0", "authors": ["Marie Curie", "Emmy Noether"], "contact": "marie@example.org"}


@pytest.fixture
def writer(tmp_path, make):
    provenance = Provenance(run={"run_id": "r"}, private={"host": "lab-7", "command": SECRET})
    with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe], provenance=provenance) as writer:
        for step in range(11):
            writer.append(make.snapshot(step))
        yield writer


def test_a_published_copy_has_everything_but_what_is_private(writer, tmp_path, make):
    """The writer is still open: the copy also has the rows that wait in parts."""
    assert publish(writer.path, tmp_path / "new" / "public.h5", **CITED) == []
    with open_archive(tmp_path / "new" / "public.h5") as public, open_archive(writer.path) as original:
        assert all(map(make.same, public, original))
        assert len(public) == 11
        assert public.provenance.private == {}
        assert public.provenance.run == original.provenance.run
        assert public.attrs["license"] == "CC-BY-4.0"
        assert public.attrs["creator_name"] == "Marie Curie; Emmy Noether"
        assert public.attrs["creator_email"] == "marie@example.org"
        assert original.provenance.private["command"] == SECRET
    data = (tmp_path / "new" / "public.h5").read_bytes()
    assert SECRET.encode() not in data
    assert b"lab-7" not in data
    assert check(tmp_path / "new" / "public.h5") == []
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["public.h5"]


def test_paths_and_names_in_other_texts_are_removed(tmp_path, make):
    """What a user, a probe or a failure happened to say. Oracle: the bytes of the copy, and the rows' own digests."""
    provenance = Provenance(
        run={"run_id": "r", "continued_from": "/scratch/marie/old.h5"},
        metadata={"width": 8, "data": "C:\\Users\\marie\\x", "doi": "https://doi.org/10.1/a/b", "unit": "J/s/m"},
        private={"host": "lab-7", "user": "marie"},
    )
    identity = {"dataset": "photo", "root": "~/data/photos", "by": "marie", "/home/marie/x": [1, None, 2.5, True]}
    probe = dataclasses.replace(make.probe, identity=identity)
    failed = make.snapshot(1, status="failed", message="no such file: '/home/marie/a b/w.pt' on lab-7", probes={})
    with ArchiveWriter(tmp_path / "run.h5", probes=[probe], provenance=provenance) as writer:
        for snapshot in (make.snapshot(0), failed, make.snapshot(2)):
            writer.append(snapshot)
    replaced = publish(tmp_path / "run.h5", tmp_path / "public.h5", **CITED)
    assert replaced == ["provenance/run", "provenance/metadata", "probes/train/identity", "message, row 1"]
    with open_archive(tmp_path / "public.h5") as public:
        assert public[1].message == "no such file: '<removed>' on <removed>"
        assert public.provenance.metadata["doi"] == "https://doi.org/10.1/a/b"
        assert public.provenance.metadata["unit"] == "J/s/m"
        assert public.probes["train"].identity["<removed>"] == [1, None, 2.5, True]
        assert all(make.same(public[i], make.snapshot(i)) for i in (0, 2))
    data = (tmp_path / "public.h5").read_bytes().replace(b"marie@example.org", b"")
    assert not [secret for secret in (b"marie", b"lab-7", b"/home", b"/scratch", b"data/photos") if secret in data]
    assert check(tmp_path / "public.h5") == []


def test_publishing_overwrites_nothing(writer, tmp_path):
    (tmp_path / "public.h5").write_bytes(b"precious")
    with pytest.raises(ArchiveExistsError, match=r"no kerneltrack archive; nothing was touched \(in .*public"):
        publish(writer.path, tmp_path / "public.h5", **CITED)
    assert (tmp_path / "public.h5").read_bytes() == b"precious"
    with pytest.raises(ArchiveError, match="no such archive"):
        publish(tmp_path / "none.h5", tmp_path / "other.h5", **CITED)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"licence": "nonsense"}, "the licence: expected an SPDX identifier, got 'nonsense'"),
        ({"licence": ""}, "the licence"),
        ({"authors": ""}, "the authors"),
        ({"authors": []}, "the authors"),
        ({"authors": ["A", " "]}, "the authors"),
        ({"contact": "notanemail"}, "the contact: expected an e-mail address, got 'notanemail'"),
        ({"contact": "a@b"}, "the contact"),
        ({"contact": "a b@example.org"}, "the contact"),
        ({"contact": "@example.org"}, "the contact"),
    ],
)
def test_what_cites_nothing_is_refused(writer, tmp_path, wrong, said):
    with pytest.raises(ArchiveError, match=said):
        publish(writer.path, tmp_path / "public.h5", **{**CITED, **wrong})
    assert not (tmp_path / "public.h5").exists()


def test_what_cites_is_taken(writer, tmp_path):
    """Negative control: another licence, an expression of two, and a name of one's own."""
    for i, licence in enumerate(("ODbL-1.0", "MIT OR CC-BY-4.0", "LicenseRef-Ours")):
        publish(writer.path, tmp_path / f"{i}.h5", **{**CITED, "licence": licence})


def test_merging_joins_what_a_killed_run_left(writer, make):
    writer._spool.release()  # as if it had been killed: the parts stay
    writer._closed = True
    waiting = len(list(writer.path.with_name("run.h5.parts").iterdir()))
    assert waiting == 3
    assert merge(writer.path) == waiting
    assert not writer.path.with_name("run.h5.parts").exists()
    with open_archive(writer.path) as archive:
        assert all(map(make.same, archive, (make.snapshot(step) for step in range(11))))
    assert merge(writer.path) == 0


def test_merging_leaves_a_living_writer_alone(writer, tmp_path):
    with pytest.raises(ArchiveError, match="another process is writing"):
        merge(writer.path)
    with pytest.raises(ArchiveError, match="no such archive"):
        merge(tmp_path / "none.h5")
