"""A stranger's file is refused with one line that says why, before any of its data are touched.

Oracle: each file of the corpus was made for one refusal. They are opened in a process with limits on memory, so that
reading one of them carelessly ends it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest

from kerneltrack.archive import ArchiveWriter, check, open_archive, printable
from kerneltrack.archive.checking import problems
from kerneltrack.errors import ArchiveError, ArchiveFormatError, UnsafeArchiveError
from tests.archive import corruptions

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}


def python(script, *arguments, timeout=120):
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=timeout, check=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The files, and what opening each of them said; every sixth is shown, too."""
    return opened(tmp_path_factory.mktemp("hostile"), every=6)


def opened(folder, *, every):
    done = python(
        """
        import contextlib, io, json, resource, sys
        from kerneltrack.analysis.cli import main
        from kerneltrack.archive import open_archive
        from kerneltrack.errors import ArchiveError
        from tests.archive import hostile
        refusals = hostile.build(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        for number, (name, refusal) in enumerate({**refusals, "good": ""}.items()):
            path = f"{sys.argv[1]}/{name}.h5"
            try:
                open_archive(path).close()
                found = (refusal, "opened", "")
            except ArchiveError as error:
                found = (refusal, type(error).__name__, str(error))
            code, shown = None, io.StringIO()
            if number % int(sys.argv[2]) == 0:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(shown):
                    code = main(["show", path])
            print(json.dumps([name, *found, code, shown.getvalue()]), flush=True)
        """,
        folder,
        every,
    )
    assert done.returncode == 0, done.stderr
    return folder, {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}


def test_the_corpus_is_large(corpus):
    assert len(corpus[1]) >= 120


def test_every_hostile_file_is_refused_for_its_reason(corpus):
    for name, (refusal, outcome, said, *_) in corpus[1].items():
        if name != "good":
            assert outcome in ("UnsafeArchiveError", "ArchiveFormatError"), (name, outcome, said)
            assert re.search(refusal, said), (name, refusal, said)


def test_the_good_file_is_opened(corpus):
    """Negative control: the guard does not refuse everything."""
    assert corpus[1]["good"][1] == "opened"


def test_every_refusal_is_one_printable_line(corpus):
    for name, (_, _, said, *_) in corpus[1].items():
        assert said == printable(said, limit=10_000), name
        assert len(said) < 2000, name


def test_show_refuses_each_with_one_line_and_exit_code_2(corpus):
    """What a person at a terminal meets. What there is to refuse is told to one and the same function."""
    shown_so(corpus[1])


@pytest.mark.nightly
def test_show_refuses_every_one(tmp_path):
    shown_so(opened(tmp_path, every=1)[1])


def shown_so(outcomes):
    asked = {name: (code, shown) for name, (*_, code, shown) in outcomes.items() if code is not None}
    assert len(asked) > 15
    for name, (code, shown) in asked.items():
        if name != "good":
            assert code == 2, name
            assert shown.startswith("kerneltrack: "), name
            assert shown.endswith("\n"), name
            line = shown.removesuffix("\n")
            assert line == printable(line, limit=10_000), name


def test_without_the_guard_a_stranger_reads_our_files(corpus):
    """Negative control: HDF5 itself hands out another file's bytes through the corpus."""
    with h5py.File(corpus[0] / "external_raw_data.h5") as file:
        assert file["probes/train/eigenvalues"][0].tobytes() == Path("/etc/passwd").read_bytes()[:32]


@pytest.mark.parametrize("name", ["external_link", "a_trillion_rows", "truncated", "text_of_two_gigabytes_deflated"])
def test_check_says_the_same(corpus, name):
    problems = check(corpus[0] / f"{name}.h5")
    assert [problem.severity for problem in problems] == ["problem"]
    assert re.search(corpus[1][name][0], str(problems[0]))


def test_attributes_are_counted_together(tmp_path, make, monkeypatch):
    """Each is small enough; a quarter of a gigabyte of them would be needed, so the limit is lowered for the test."""
    path = tmp_path / "run.h5"
    ArchiveWriter(path, probes=[make.probe]).close()
    with h5py.File(path, "r+") as file:
        for number in range(8):
            file["provenance"].attrs[f"a{number}"] = np.zeros(60_000, "u1")
    open_archive(path).close()
    monkeypatch.setattr("kerneltrack.archive.safety.MAX_AT_ONCE_BYTES", 400_000)
    with pytest.raises(UnsafeArchiveError, match="the attributes are too large: expected at most 400000 bytes in all"):
        open_archive(path)


def test_a_column_that_is_not_there_is_not_filled_in(tmp_path, make):
    """Thirteen gigabytes that were never written. Oracle: rows still come one at a time."""
    path = tmp_path / "run.h5"
    with ArchiveWriter(path, probes=[make.probe]) as writer:
        for step in range(200):
            writer.append(make.snapshot(step, probes={}))
    with h5py.File(path, "r+") as file:
        data = file.create_dataset("probes/train/eigenvalues", (200, 1 << 23), "f8", chunks=(1, 1 << 23))
        data.attrs["dimensions"] = "snapshot mode"
    with open_archive(path) as archive:
        with pytest.raises(UnsafeArchiveError, match=r"more would be read at once.*got 13421772800 bytes.*fewer rows"):
            archive.column("probes/train/eigenvalues")
        with pytest.raises(UnsafeArchiveError, match="more would be read at once"):
            archive.to_xarray().eigenvalues.load()
        assert archive.column("probes/train/eigenvalues", slice(3, 4)).shape == (1, 1 << 23)
        assert archive[7].step == 7


class TestParts:
    """What lies beside an archive is read only if it is the archive's own."""

    @pytest.fixture
    def path(self, tmp_path, make):
        path = tmp_path / "run.h5"
        with ArchiveWriter(path, probes=[make.probe]) as writer:
            writer.append(make.snapshot(0))
        path.with_name("run.h5.parts").mkdir()
        return path

    def test_a_link_is_not_followed(self, path, tmp_path, make):
        with ArchiveWriter(tmp_path / "other.h5", probes=[make.probe]) as writer:
            writer.append(make.snapshot(1))
        (path.with_name("run.h5.parts") / "000000001-1.h5").symlink_to(tmp_path / "other.h5")
        with pytest.raises(UnsafeArchiveError, match="not a regular file"):
            open_archive(path)

    def test_a_linked_folder_is_not_looked_into(self, path, tmp_path, make):
        folder = path.with_name("run.h5.parts")
        folder.rmdir()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "000000001-1.h5").write_bytes(b"junk")
        folder.symlink_to(tmp_path / "elsewhere")
        assert len(open_archive(path)) == 1
        with pytest.raises(ArchiveError, match="is a link"):
            ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=0)

    @pytest.mark.parametrize("kind", ["pipe", "folder"])
    def test_what_is_no_file_is_refused(self, path, kind):
        part = path.with_name("run.h5.parts") / "000000001-1.h5"
        os.mkfifo(part) if kind == "pipe" else part.mkdir()
        with pytest.raises(UnsafeArchiveError, match="not a regular file"):
            open_archive(path)

    def test_another_archives_part_is_left_alone(self, path, tmp_path, make):
        writer = ArchiveWriter(tmp_path / "other.h5", probes=[make.probe])
        writer.append(make.snapshot(1))
        part = tmp_path / "other.h5.parts" / "000000000-1.h5"
        (path.with_name("run.h5.parts") / "000000001-1.h5").write_bytes(part.read_bytes())
        assert open_archive(path).steps.tolist() == [0]
        writer.close()

    def test_a_part_of_other_sizes_is_padded_within_reason(self, path, make):
        """A stranger gives a part the archive's own identifier and a row of eight gigabytes that is not there."""
        with ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=0) as writer:
            writer.append(make.snapshot(1))
            part = next(path.with_name("run.h5.parts").glob("*-1.h5"))
            data = part.read_bytes()
        folder = path.with_name("run.h5.parts")
        folder.mkdir()
        (folder / part.name).write_bytes(data)
        with h5py.File(folder / part.name, "r+") as file:
            file["snapshot"][0], file["snapshot_id"][0] = 9, 7
            del file["probes/train/eigenvalues"], file["probes/train/target_coefficients"]
            new = file.create_dataset("probes/train/eigenvalues", (1, 1 << 30), "f8", chunks=(1, 1 << 16))
            new.attrs["dimensions"] = "snapshot mode"
        with open_archive(path) as archive, pytest.raises(UnsafeArchiveError, match="more would be read at once"):
            archive.column("probes/train/eigenvalues")

    def test_other_names_are_not_opened(self, path):
        for name in ("x.h5", "1-1.h5", "000000001-1.h5.bak", ".tmp-0", "000000001--1.h5"):
            (path.with_name("run.h5.parts") / name).write_bytes(b"junk")
        assert len(open_archive(path)) == 1


def test_what_a_file_says_cannot_move_the_cursor(tmp_path, make):
    """Texts come back as they were given; whoever prints them calls printable."""
    evil = "\x1b[2J\x07 \u202e\u2066 <b>& \r\n\x9b31m"
    with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe]) as writer:
        writer.append(make.snapshot(0, message=evil, trigger=evil))
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive[0].message == evil
        shown = printable(archive[0].message)
    assert shown == r"\x1b[2J\x07 \u202e\u2066 <b>& \r\n\x9b31m"
    assert printable("λ — naïve 漢字 🙂") == "λ — naïve 漢字 🙂"
    assert printable("x" * 1000) == "x" * 499 + "…"


def test_problems_are_found_in_values(tmp_path, make):
    """Each rule of the contents, broken in a file of the right form."""
    spoils = {
        "step, row 1: a negative step": ("step", 1, -5),
        "status, row 0: not one of 0, 1": ("status", 0, 9),
        "trigger, row 2: not UTF-8": ("trigger", 2, np.frombuffer(b"\xff".ljust(128, b"\0"), "S1")),
        "probes/train/eigenvalues, row 1: eigenvalues are not descending": (
            "probes/train/eigenvalues",
            1,
            np.arange(12.0),
        ),
        "/snapshot does not count": ("snapshot", 1, 7),
        "/segment names a segment": ("segment", 2, 4),
        "/step goes back within segment 0": ("step", 0, 2),
    }
    for number, (message, (name, row, value)) in enumerate(spoils.items()):
        path = tmp_path / f"{number}.h5"
        with ArchiveWriter(path, probes=[make.probe]) as writer:
            for step in range(3):
                writer.append(make.snapshot(step))
        if number == 0:
            assert check(path) == []
        with h5py.File(path, "r+") as file:
            file[name][row] = value
        found = [str(problem) for problem in check(path)]
        assert any(message in problem for problem in found), message
        assert any("is not what was written" in problem for problem in found), message


def test_each_code_and_each_count_has_its_rule(tmp_path, make):
    """The rules that the test above leaves out, one broken at a time. Oracle: the archive before it was spoilt."""
    not_utf8 = np.frombuffer(b"\xff".ljust(256, b"\0"), "S1")
    spoils = {
        "window, row 0: not one of 0, 1": lambda file: file["window"].__setitem__(0, 7),
        "update_applied, row 1: not one of -1, 0, 1": lambda file: file["update_applied"].__setitem__(1, 5),
        "message, row 2: not UTF-8": lambda file: file["message"].__setitem__(2, not_utf8),
        "/segment goes back": lambda file: file["segment"].__setitem__(0, 1),
        "/segments/number does not count": lambda file: file["segments/number"].__setitem__(0, 3),
        "/@run_id and the run_id of /provenance/run differ": lambda file: file.attrs.__setitem__("run_id", "another"),
    }
    path = tmp_path / "run.h5"
    with ArchiveWriter(path, probes=[make.probe]) as writer:
        for step in range(3):
            writer.append(make.snapshot(step))
    assert list(problems(path)) == []
    data = path.read_bytes()
    for message, spoil in spoils.items():
        path.write_bytes(data)
        with h5py.File(path, "r+") as file:
            spoil(file)
        assert any(message in str(problem) for problem in problems(path)), message


def test_a_crash_of_the_library_is_a_problem(tmp_path, make, monkeypatch):
    """The child is killed as a segmentation fault would kill it. Oracle: the signal's number."""
    path = tmp_path / "run.h5"
    ArchiveWriter(path, probes=[make.probe]).close()
    monkeypatch.setattr("kerneltrack.archive.checking._CHILD", "import os; os.kill(os.getpid(), 11)")
    assert ["crashed on the file (signal 11)" in str(problem) for problem in check(path)] == [True]
    monkeypatch.setattr("kerneltrack.archive.checking._CHILD", "import time; time.sleep(60)")
    assert ["took too long" in str(problem) for problem in check(path, seconds=0.02)] == [True]
    monkeypatch.setattr(
        "kerneltrack.archive.checking.problems", lambda path: pytest.fail("examined in the parent's process")
    )
    spin = (
        "import sys; from kerneltrack.archive import checking\nchecking.problems = lambda path: iter(int, 1)\n"
        "checking.asdict = lambda problem: {}\nchecking.MAX_PROBLEMS = 10**12\n"
        "checking._examine(sys.argv[2], int(sys.argv[3]), 1)"
    )
    monkeypatch.setattr("kerneltrack.archive.checking._CHILD", spin)
    assert ["took too long" in str(problem) for problem in check(path)] == [True]
    monkeypatch.setattr("kerneltrack.archive.checking._CHILD", "raise MemoryError('no room')")
    assert ["could not be examined: MemoryError: no room" in str(problem) for problem in check(path)] == [True]


def test_the_limits_of_a_batch_system_are_kept(tmp_path, make):
    """Tighter limits than the examination's own stand; nobody may raise them. Oracle: a good archive is in order."""
    path = tmp_path / "run.h5"
    ArchiveWriter(path, probes=[make.probe]).close()
    done = python(
        """
        import resource, sys
        from kerneltrack.archive import check
        for kind, limit in ((resource.RLIMIT_AS, 3 << 30), (resource.RLIMIT_CPU, 40)):
            resource.setrlimit(kind, (limit, limit))
        print(check(sys.argv[1]))
        """,
        path,
    )
    assert done.stdout == "[]\n", done


def test_damage_that_no_checksum_sees_is_found(tmp_path, make):
    """Fletcher's sum takes 0xffff for 0x0000. Oracle: HDF5 reads the damaged -1 as 0 without a word."""
    path = tmp_path / "run.h5"
    with ArchiveWriter(path, probes=[make.probe]) as writer:
        for step in range(4):
            writer.append(make.snapshot(step, samples_seen=-1))
    with h5py.File(path) as file:
        where = file["samples_seen"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    assert data[where : where + 8] == b"\xff" * 8
    data[where : where + 8] = bytes(8)
    path.write_bytes(data)
    with h5py.File(path) as file:
        assert file["samples_seen"][:].tolist() == [0, -1, -1, -1]
    with open_archive(path) as archive, pytest.raises(ArchiveFormatError, match="is not what was written"):
        archive[0]
    assert ["is not what was written" in str(problem) for problem in check(path)] == [True]
    with open_archive(path) as archive:
        assert [str(error) for error in archive.faults()] == one_by_one(archive)


def one_by_one(archive):
    """What reading each snapshot by itself raises: the oracle of reading many at once."""
    found = []
    for position in range(len(archive)):
        try:
            archive[position]
        except ArchiveError as error:
            found.append(str(error))
    return found


def test_rows_read_at_once_are_the_rows_read_singly(tmp_path, make):
    """Also where a block holds a row in chunks of its own that was never written, and where a checksum is broken."""
    path = tmp_path / "run.h5"
    with ArchiveWriter(path, probes=[make.probe]) as writer:
        for step in range(4):
            writer.append(make.snapshot(step))
    with open_archive(path) as archive:
        (piece,) = archive._pieces
        for places in (range(4), range(1, 3)):
            for block, place in zip(piece.block(places), places, strict=True):
                single = piece.row(place)
                assert list(block) == list(single)
                assert [v.tobytes() for v in block.values()] == [v.tobytes() for v in single.values()]
                assert [v.dtype for v in block.values()] == [v.dtype for v in single.values()]
        assert list(archive.faults()) == []
    with h5py.File(path) as file:
        where = file["step"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with open_archive(path, all_segments=True) as archive:
        assert [str(error) for error in archive.faults()] == one_by_one(archive) != []


def test_a_flipped_bit_in_the_data_is_found(tmp_path, make):
    path = tmp_path / "run.h5"
    with ArchiveWriter(path, probes=[make.probe]) as writer:
        writer.append(make.snapshot(3))
    data = bytearray(path.read_bytes())
    where = data.find(make.measurements(3)["eigenvalues"].tobytes())
    data[where + 5] ^= 4
    path.write_bytes(data)
    assert "eigenvalues cannot be read from row 0" in str(check(path)[0])
    with open_archive(path) as archive, pytest.raises(ArchiveFormatError, match="damaged"):
        archive[0]


def test_data_without_a_checksum_is_found(tmp_path):
    """What ``h5repack -f NONE`` leaves: it opens, and is no archive any more. Oracle: a file written without the filter."""
    corruptions.write_unprotected(tmp_path / "bare.h5")
    corruptions.write(tmp_path / "good.h5")
    assert check(tmp_path / "good.h5") == []
    (problem,) = check(tmp_path / "bare.h5")
    assert re.fullmatch(r"/\S+ and \d+ others with chunks have no checksum \(fletcher32\): .*", problem.text)
    assert len(open_archive(tmp_path / "bare.h5")) == 10
