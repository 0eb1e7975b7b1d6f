"""No command writes over an archive, in the place of a device, or leaves anything behind when it fails.

Oracles: the bytes of every file before and after, the names in the folder before and after, and the system's own word
on what a path is. Every command that writes is tried with every target.
"""

import dataclasses
import io
import itertools
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest
from matplotlib.figure import Figure

from kerneltrack.analysis.cli import main
from kerneltrack.analysis.output.files import distinct, may_write, whole
from kerneltrack.analysis.output.kinds import TABLE
from kerneltrack.archive import ArchiveWriter
from kerneltrack.errors import OutputError
from tests.tiers import diagonals, later, one_in

WORDS = "--licence CC0-1.0 --author A --contact a@example.org"
#: Every command that writes: its words, and an ending that fits.
WRITERS = {
    "csv": ("export RUN -o OUT", ".csv"),
    "netcdf": ("export RUN --to netcdf -o OUT", ".nc"),
    "report": ("report RUN --control CONTROL -o OUT", ".html"),
    "reports": ("report CONTROL RUN --each -o OUT", ".htm"),
    "plot": ("plot RUN --figure rank -o OUT", ".svg"),
    "runs": ("plot RUN CONTROL --figure runs -o OUT", ".png"),
    "lr-decay": ("lr-decay RUN --control CONTROL -o OUT", ".pdf"),
    "compare": ("compare RUN CONTROL -o OUT", ".svg"),
    "sweep": ("compare RUN CONTROL --against seed -o OUT", ".svg"),
    "publish": (f"publish RUN -o OUT {WORDS}", ".h5"),
    "card": (f"publish RUN -o OUT {WORDS} --card", ".h5"),
    "track": ("track --checkpoints 'RUN' --model m:M --probe RUN -o OUT", ".h5"),
}


#: What the commands cannot do without; a report of no more is drawn in a fraction of the time.
NEEDED = {
    "eigenvalues", "effective_rank", "participation_ratio", "stability_ratio", "probe_loss", "target_coefficients",
    "residual_coefficients", "target_energy", "residual_energy", "trace",
}  # fmt: skip


@pytest.fixture(scope="module")
def light(synthetic, truth, control_truth, tmp_path_factory):
    """As ``archives``, with few numbers."""
    folder = tmp_path_factory.mktemp("light")
    return tuple(
        synthetic.write(folder / f"{name}.h5", few(synthetic.snapshots(given)), synthetic.record(given))
        for name, given in (("run", truth), ("control", control_truth))
    )


def few(rows, more=frozenset()):
    for row in rows:
        kept = {name: value for name, value in row.probes["train"].items() if name in NEEDED | more}
        yield dataclasses.replace(row, probes={"train": kept})


#: A blank figure of each format: what is written where is asked here, and not what is drawn.
BLANK = {}


def blank(figure, target, *, format, **_):
    """``Figure.savefig`` of nothing, in a thousandth of the time."""
    if format not in BLANK:
        drawn = io.BytesIO()
        real_savefig(Figure(figsize=(1, 1)), drawn, format=format)
        BLANK[format] = drawn.getvalue()
    target.write(BLANK[format])


real_savefig = Figure.savefig


@pytest.fixture
def place(light, undrawn, tmp_path, monkeypatch):
    """A folder with run.h5 and control.h5, which is the working directory."""
    folder = tmp_path / "desk"
    folder.mkdir()
    for source, name in zip(light, ("run.h5", "control.h5"), strict=True):
        shutil.copy(source, folder / name)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(Figure, "savefig", blank)
    return folder


def state(folder):
    """Every path below a folder, links and special files as such, with the bytes of each regular file."""
    return {
        os.path.join(home, name): (os.lstat(os.path.join(home, name)).st_mode, contents(os.path.join(home, name)))
        for home, folders, files in os.walk(folder)
        for name in (*folders, *files)
    }


def contents(path):
    if os.path.islink(path):
        return os.readlink(path)
    if not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        return file.read()


def words(command, out):
    text, _ = WRITERS[command]
    filled = {"RUN": "run.h5", "CONTROL": "control.h5", "OUT": str(out), "'RUN'": "run.h5"}
    return [filled.get(word, word) for word in text.split()]


def other_name(kind, ending):
    """Another name for run.h5, or a file that is an archive too, made in the working directory."""
    if kind in ("itself", "control"):
        return "run.h5" if kind == "itself" else "control.h5"
    if kind == "dotted":
        return "../desk/run.h5"
    if kind == "absolute":
        return os.path.abspath("run.h5")
    name = f"other{ending}"
    if kind == "link":
        os.symlink("run.h5", name)
    elif kind == "link to a link":
        os.symlink("run.h5", "first")
        os.symlink("first", name)
    elif kind == "hard link":
        os.link("run.h5", name)
    elif kind == "linked folder":
        os.symlink(".", "here")
        return "here/run.h5"
    elif kind == "another archive":
        shutil.copy("run.h5", name)
    elif kind == "a damaged archive":
        with open("run.h5", "rb") as source, open(name, "wb") as target:
            target.write(source.read()[:3000])
    elif kind == "an archive behind a user block":
        with open("run.h5", "rb") as source, open(name, "wb") as target:
            target.write(b"#!" + bytes(510) + source.read())
    return name


NAMES = [
    "itself", "control", "dotted", "absolute", "link", "link to a link", "hard link", "linked folder", "another archive",
    "a damaged archive", "an archive behind a user block",
]  # fmt: skip


@pytest.mark.parametrize(("command", "kind"), diagonals(3, WRITERS, NAMES))
def test_an_archive_is_never_written_over(place, capsys, command, kind):
    target = other_name(kind, WRITERS[command][1])
    before = state(place)
    refused(command, target, capsys)
    assert state(place) == before


def refused(command, target, capsys):
    """Exit code 2 and one line that names the user's path."""
    assert main(words(command, target)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("kerneltrack: ")
    assert captured.err.count("\n") == 1
    assert str(target) in captured.err
    assert ".tmp" not in captured.err


@pytest.mark.parametrize("command", WRITERS)
def test_an_archives_parts_are_never_written_over(place, synthetic, truth, capsys, command):
    """While a run writes: the part itself, a new file beside it, the folder, and a file below the lock's folder."""
    with ArchiveWriter(place / "live.h5", probes=[synthetic.record(truth)]) as writer:
        for row in list(synthetic.snapshots(truth))[:2]:
            writer.append(row)
        folder, ending = place / "live.h5.parts", WRITERS[command][1]
        part = min(folder.glob("*.h5"))
        os.link(part, place / f"part{ending}")
        before = state(place)
        for target in (
            part,
            place / f"part{ending}",
            folder / f"x{ending}",
            folder,
            folder / "writer.lock" / f"x{ending}",
        ):
            refused(command, target.relative_to(place), capsys)
        assert state(place) == before


#: What is written from front to back, and what those bytes begin with; the others need a file.
STREAMS = {
    "csv": b"step,", "report": b"<!doctype html>", "plot": b"<?xml", "runs": b"\x89PNG", "lr-decay": b"%PDF-", "compare": b"<?xml",
    "sweep": b"<?xml",
}  # fmt: skip


def special(ending):
    os.mkfifo(f"pipe{ending}")
    os.symlink(f"pipe{ending}", f"link{ending}")
    os.symlink("/dev/full", f"full{ending}")
    os.symlink("/dev/null", f"null{ending}")
    os.mkdir(f"folder{ending}")


@pytest.mark.parametrize("command", WRITERS)
def test_what_is_no_file_stays_what_it_is(place, capsys, command):
    """A folder and a socket are refused by every command, a pipe and a device by those that need a file."""
    ending = WRITERS[command][1]
    special(ending)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"socket{ending}")
        before = state(place)
        for target in (f"folder{ending}", f"socket{ending}", ".", "..", "run.h5/x" + ending, "run.h5/new/x" + ending):
            refused(command, target, capsys)
        if command not in STREAMS:
            for target in (
                f"pipe{ending}",
                f"link{ending}",
                f"null{ending}",
                "/dev/full",
                "/dev/null",
                "/dev/stdout",
                "-",
            ):
                refused(command, target, capsys)
        assert state(place) == before
    assert not os.path.exists("-")


#: A table, a page, and a drawing of each format; the other drawings are written by the same function.
DIFFERENT = [
    command if command in ("csv", "report", "runs", "lr-decay", "sweep") else later(command) for command in STREAMS
]


@pytest.mark.parametrize("command", DIFFERENT)
def test_a_pipe_and_a_device_are_written_into(place, capfd, command):
    """Oracles: what the other end of the pipe reads, and the system's word on a full device; both stay what they are."""
    ending = WRITERS[command][1]
    special(ending)
    before = state(place)
    assert main(words(command, f"null{ending}")) == 0
    capfd.readouterr()
    refused(command, f"full{ending}", capfd)
    target, seen = f"link{ending}", []
    reader = threading.Thread(target=lambda: seen.append(contents_of_pipe(f"pipe{ending}")))
    reader.start()
    assert main(words(command, target)) == 0
    reader.join()
    assert capfd.readouterr().out == f"wrote {target}\n"
    assert state(place) == before
    assert main(words(command, f"file{ending}")) == 0
    assert seen[0].startswith(STREAMS[command])
    assert same_picture(seen[0], contents(f"file{ending}"))


def contents_of_pipe(path):
    with open(path, "rb") as file:
        return file.read()


def same_picture(one, other):
    """Equal, but for the names that Matplotlib draws for the parts of an SVG, and the report's moment."""
    return len(one) == len(other) if one.startswith((b"<?xml", b"<!doctype")) else one == other


STANDARD_OUTPUT = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]


@pytest.mark.parametrize(("command", "name"), one_in(3, itertools.product(STREAMS, STANDARD_OUTPUT)))
def test_standard_output_is_a_file_like_another(place, capfdbinary, command, name):
    """Oracle: the file that the same command writes. Nothing else is printed, and no file of that name is made."""
    kind = [] if command in ("csv", "report") else ["--format", WRITERS[command][1][1:]]
    before = state(place)
    assert main([*words(command, name), *kind]) == 0
    said = capfdbinary.readouterr()
    assert said.err == b""
    assert said.out.startswith(STREAMS[command])
    assert state(place) == before
    assert main(words(command, f"file{WRITERS[command][1]}")) == 0
    capfdbinary.readouterr()
    assert same_picture(said.out, contents(f"file{WRITERS[command][1]}"))


def test_a_figure_on_a_stream_is_a_png_unless_it_is_said(place, capfdbinary):
    assert main(words("plot", "-")) == 0
    assert capfdbinary.readouterr().out.startswith(b"\x89PNG")


@pytest.mark.parametrize("command", STREAMS)
def test_an_archive_behind_standard_output_is_left_alone(place, command):
    """``>> run.h5``. Oracle: its bytes."""
    before = state(place)
    with open("run.h5", "ab") as file:
        code, said = in_a_child(words(command, "-"), file.fileno())
    assert code == 2, said
    assert "is an archive; nothing was touched" in said
    assert state(place) == before


def in_a_child(argv, stdout=None, *, limit=None):
    """(exit code, what it said) of a command in a forked child.

    ``stdout`` is the descriptor that is its standard output, else that is read with its complaints; ``limit`` is how many
    bytes a file of its may have.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.dup2(writing if stdout is None else stdout, 1)
            os.dup2(writing, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            if limit is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            code = main(argv)
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, encoding="utf-8") as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


@pytest.mark.parametrize("command", STREAMS)
def test_a_reader_of_standard_output_that_goes_early(place, command):
    """As ``| head -c 1``: the command ends as it would have."""
    reading, writing = os.pipe()
    os.close(reading)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    assert in_a_child(words(command, "-"), writing) == (0, "")
    os.close(writing)


def test_several_pages_have_names(place, capsys):
    before = state(place)
    refused("reports", "-", capsys)
    assert state(place) == before


@pytest.mark.parametrize("command", [name for name in WRITERS if name != "track"])
def test_folders_that_are_missing_are_made(place, capsys, command):
    ending = WRITERS[command][1]
    assert main(words(command, f"a/b/x{ending}")) == 0, capsys.readouterr().err
    beside = ["CITATION.cff", "README.md", "SHA256SUMS"] if command == "card" else []
    assert sorted(name for name in os.listdir("a/b") if not name.endswith(ending)) == beside
    capsys.readouterr()


@pytest.mark.parametrize(
    ("command", "ending"),
    diagonals(3, WRITERS, ["", ".h5", ".png", ".html", ".csv", ".nc", ".txt", ".svg.bak", ".csv.gz"]),
)
def test_another_ending_is_refused(place, capsys, command, ending):
    """Negative control: an ending that fits, in capitals too, is written."""
    before = state(place)
    fits = {
        "csv": [".csv"],
        "netcdf": [".nc"],
        "report": [".html"],
        "reports": [".html"],
        "publish": [".h5"],
        "card": [".h5"],
        "track": [".h5"],
    }.get(command, [".png"])
    if ending not in fits:
        refused(command, f"new{ending}", capsys)
        assert state(place) == before
    elif command != "track":
        assert main(words(command, f"new{ending.upper()}")) == 0
        assert len(set(state(place)) - set(before)) == {"reports": 2, "card": 4}.get(command, 1)
    capsys.readouterr()


def test_what_is_no_archive_is_replaced(place, capsys):
    """Negative control: yesterday's file, HDF5 of another kind, and through a link, which stays a link."""
    os.makedirs("elsewhere.parts")  # a folder of that name alone is nobody's
    os.symlink("elsewhere.parts/table.csv", "link.csv")
    for _ in range(2):
        for command, target in (
            ("csv", "link.csv"),
            ("netcdf", "all.nc"),
            ("plot", "rank.svg"),
            ("report", "page.html"),
        ):
            assert main(words(command, target)) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert os.readlink("link.csv") == "elsewhere.parts/table.csv"
    assert contents("elsewhere.parts/table.csv").startswith(b"step,")
    assert contents("all.nc").startswith(b"\x89HDF")


def with_a_full_disk(argv, limit):
    """(exit code, what it said) of a command in a forked child whose files may have ``limit`` bytes.

    Its libraries are loaded before, for Python writes files when it imports.
    """
    import h5netcdf  # noqa: F401
    import matplotlib.backends.backend_pdf
    import matplotlib.backends.backend_svg  # noqa: F401

    from kerneltrack.analysis.commands import export  # noqa: F401
    from kerneltrack.analysis.comparison import sweep  # noqa: F401
    from kerneltrack.analysis.figures import files, gallery  # noqa: F401
    from kerneltrack.analysis.lr_decay import runs  # noqa: F401
    from kerneltrack.analysis.report import page  # noqa: F401

    return in_a_child(argv, limit=limit)


IN_A_PROCESS = """
import resource, signal, sys
import h5netcdf
from kerneltrack.analysis.cli import main
from kerneltrack.analysis.commands import export
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.exit(main({argv!r}))
"""


def in_a_process_of_its_own(argv, limit):
    """The same in a new interpreter: HDF5's library, forked with the files of other tests open, may crash on a full disk."""
    code = IN_A_PROCESS.format(argv=argv, limit=limit)
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("command", "limit"),
    [
        ("csv", 300),
        pytest.param("netcdf", 0, marks=pytest.mark.nightly),
        ("netcdf", 300),
        pytest.param("netcdf", 20_000, marks=pytest.mark.nightly),
        ("report", 300),
        ("plot", 300),
        ("runs", 300),
        ("lr-decay", 300),
        ("publish", 300),
        ("card", 300),
    ],
)
def test_nothing_is_left_when_the_disk_is_full(place, command, limit):
    """The system's limit on a file's size stands for the full disk: a write fails in the middle of a file."""
    target = f"made/for/new{WRITERS[command][1]}"  # the folders go too
    before = state(place)
    run = in_a_process_of_its_own if command == "netcdf" else with_a_full_disk
    code, said = run(words(command, target), limit)
    assert code == 2, said
    assert said.startswith("kerneltrack: ")
    assert said.count("\n") == 1
    assert ".tmp" not in said
    assert state(place) == before


def half_written(path, failure):
    with whole(path, TABLE) as partial:
        partial.write_text("half")
        raise failure


def test_nothing_is_left_when_the_writing_itself_fails(tmp_path):
    """Whatever ends the block, an interrupt too, leaves the folder and the earlier file as they were."""
    (tmp_path / "x.csv").write_text("earlier")
    for failure in (ValueError, KeyboardInterrupt, OSError, RuntimeError):
        with pytest.raises(failure):
            half_written(tmp_path / "x.csv", failure)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x.csv": "earlier"}


AT_THE_LAST_MOMENT = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores it
from kerneltrack.analysis.cli import main
done = pathlib.Path.replace
def replace(self, target):
    print("ready", flush=True)
    time.sleep(60)
    return done(self, target)
pathlib.Path.replace = replace
sys.exit(main({argv!r}))
"""


@pytest.mark.parametrize("command", [later("csv"), later("publish"), "card"])
def test_an_interrupt_leaves_nothing_behind(place, command):
    """A real SIGINT, in a process of its own, when all is written but not in its place: 130, one line, as it was before."""
    before = state(place)
    code = AT_THE_LAST_MOMENT.format(argv=words(command, f"made/for/new{WRITERS[command][1]}"))
    child = subprocess.Popen(
        [sys.executable, "-B", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    assert state(place) != before
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (130, "kerneltrack: interrupted; what was not finished is removed\n")
    assert state(place) == before


def test_a_run_that_begins_meanwhile_keeps_its_archive(place):
    def overtaken():
        with whole("new.csv", TABLE):
            shutil.copy("run.h5", "new.csv")

    with pytest.raises(OutputError, match="is an archive"):
        overtaken()
    assert contents("new.csv") == contents("run.h5")
    assert sorted(os.listdir()) == ["control.h5", "new.csv", "run.h5"]


def test_a_name_of_the_greatest_length_is_written(tmp_path):
    name = "x" * 251 + ".csv"
    with whole(tmp_path / name, TABLE) as partial:
        partial.write_text("")
    assert os.listdir(tmp_path) == [name]


def test_a_folder_without_rights_is_told_by_its_name(place, capfd):
    """Oracle: the system's word for it. As somebody for whom rights count: root is another user here."""
    place.chmod(0o555)
    for folder in (place.parent, place.parent.parent):
        folder.chmod(0o755)
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            with whole(place / "x.csv", TABLE):
                pass
        except PermissionError as error:
            os._exit(0 if error.filename == str(place / "x.csv") else 3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("name", ["demo.h5", "control.h5", "demo.html", "folder", "link"])
def test_the_demo_replaces_nothing_but_a_demo(place, capsys, name, force):
    """Oracle: the bytes of an archive that is somebody's own; refused before anything is trained."""
    os.mkdir("out")
    if name == "folder":
        os.mkdir("out/demo.html")
    elif name == "link":
        os.symlink("../run.h5", "out/demo.h5")
    else:
        shutil.copy("run.h5", f"out/{name}")
    before = state(place)
    assert main(["demo", "--out", "out", *force]) == 2
    said = capsys.readouterr().err
    assert "not an earlier demo" in said
    assert said.count("\n") == 1
    assert state(place) == before


@pytest.mark.usefixtures("undrawn")
def test_reports_of_one_name_are_two_files(light, tmp_path, capsys):
    """Oracle: each page names the archive's last step, which differs."""
    for folder, source in zip("abc", (*light, light[0]), strict=True):
        (tmp_path / folder).mkdir()
        shutil.copy(source, tmp_path / folder / ("run.h5" if folder != "c" else "run-2.h5"))
    sources = [str(tmp_path / name) for name in ("a/run.h5", "b/run.h5", "c/run-2.h5")]
    assert main(["report", *sources, "--each", "-o", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().out.splitlines()
    pages = [tmp_path / f"page-{name}.html" for name in ("run", "run-3", "run-2")]
    assert said == [f"wrote {page}" for page in pages]
    counts = [page.read_text(encoding="utf-8").count(">13<") for page in pages]  # 13 snapshots, 6 of the control
    assert counts[0] == counts[2] > counts[1] == 0


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a-2", "a-3"]),
        (["a", "a-2", "a", "a-2"], ["a", "a-2", "a-3", "a-2-2"]),
        (["Run", "run"], ["Run", "run-2"]),
        (["ä", "a\u0308"], ["ä", "a\u0308-2"]),
        ([], []),
    ],
)
def test_names_are_distinct_on_any_file_system(names, expected):
    assert distinct(names) == expected


def test_a_figure_of_runs_of_one_name_draws_each(archives, tmp_path):
    """Oracle: as many labels as runs, though one is called what another is numbered."""
    from kerneltrack.analysis.comparison.comparison import compare
    from kerneltrack.analysis.trajectory import load

    paths = []
    for folder, name in (("a", "run"), ("b", "run"), ("c", "run (2)")):
        (tmp_path / folder).mkdir()
        paths.append(shutil.copy(archives[0], tmp_path / folder / f"{name}.h5"))
    found = compare(load(paths))
    assert len(set(found.runs)) == len(found.groups) == 3


def test_may_write_says_which_file_a_link_leads_to(tmp_path):
    (tmp_path / "link.csv").symlink_to("new.csv")
    assert may_write(tmp_path / "link.csv", TABLE) == tmp_path / "new.csv"
