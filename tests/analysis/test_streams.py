"""Whatever standard output is, a command ends with its own exit code and without a traceback.

Oracles: the text that the same command prints as UTF-8, encoded by Python with replacements; the exit code that it has
with a reader that reads all. Each in a process of its own, whose streams are real.
"""

import functools
import os
import subprocess
import sys

import pytest

RUN = [sys.executable, "-c", "import sys; from kerneltrack.analysis.cli import main; sys.exit(main(sys.argv[1:]))"]
ENCODINGS = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "cp437": {"PYTHONIOENCODING": "cp437"},
    "the C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
COMMANDS = {
    "show": "show RUN", "summary": "summary RUN --control CONTROL", "check": "check RUN",
    "lr-decay": "lr-decay RUN --control CONTROL", "compare": "compare RUN CONTROL",
    "list": "plot --list", "sweep": "compare RUN CONTROL --against seed", "help": "lr-decay --help",
    "report": "report RUN -o λ\udcff.html", "error": "show λ-absent\udcff.h5",
}  # fmt: skip


def environment(changes=()):
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHONIO", "PYTHONUTF8"))
    }
    return {**kept, **dict(changes or {"PYTHONIOENCODING": "utf-8"})}


def words(command, archives):
    filled = {"RUN": str(archives[0]), "CONTROL": str(archives[1])}
    return [*RUN, *(filled.get(word, word) for word in COMMANDS[command].split())]


def run(command, archives, folder, changes=()):
    return subprocess.run(
        words(command, archives), capture_output=True, check=False, env=environment(changes), cwd=folder
    )


@pytest.fixture(scope="module")
def as_utf8(archives, tmp_path_factory):
    """What a command does where every letter can be printed; run once for each."""
    return functools.cache(lambda command: run(command, archives, tmp_path_factory.mktemp("utf-8")))


#: An encoding by name and one by locale, and every kind of what is printed: a table, a complaint.
QUICK = [("show", "the C locale"), ("error", "ascii")]
LATER = [
    *(("show", name) for name in ENCODINGS),
    *((name, "ascii") for name in COMMANDS),
    ("lr-decay", "latin-1"),
    ("report", "the C locale"),
]


@pytest.mark.parametrize(
    ("command", "encoding"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.nightly) for case in LATER if case not in QUICK)],
)
def test_letters_that_the_encoding_lacks_are_replaced(archives, tmp_path, as_utf8, command, encoding):
    truth = as_utf8(command)
    found = run(command, archives, tmp_path, ENCODINGS[encoding])
    assert b"Traceback" not in found.stderr
    assert found.returncode == truth.returncode == (2 if command == "error" else 0)
    codec = ENCODINGS[encoding].get("PYTHONIOENCODING", "ascii")
    if command in ("show", "check", "lr-decay", "compare", "list"):
        assert found.stdout == truth.stdout.decode().encode(codec, "replace")


@pytest.mark.parametrize(
    ("command", "code", "buffered"),
    [
        ("show", 0, "1"),
        ("damaged", 1, ""),
        pytest.param("show", 0, "", marks=pytest.mark.nightly),
        pytest.param("help", 0, "1", marks=pytest.mark.nightly),
        pytest.param("list", 0, "", marks=pytest.mark.nightly),
        pytest.param("list", 0, "1", marks=pytest.mark.nightly),
        pytest.param("check", 0, "", marks=pytest.mark.nightly),
        pytest.param("check", 0, "1", marks=pytest.mark.nightly),
        pytest.param("damaged", 1, "1", marks=pytest.mark.nightly),
        pytest.param("help", 0, "", marks=pytest.mark.nightly),
    ],
)
def test_a_reader_that_goes_early_changes_nothing(archives, tmp_path, command, code, buffered):
    """The pipe's reading end is closed before the first line; also where Python does not buffer."""
    (tmp_path / "damaged.h5").write_bytes(archives[0].read_bytes()[:3000])
    given = words("check", (tmp_path / "damaged.h5", "")) if command == "damaged" else words(command, archives)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        given, stdout=writing, stderr=subprocess.PIPE, check=False, env={**environment(), "PYTHONUNBUFFERED": buffered}
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == code


def test_a_full_disk_is_told(archives):
    """Negative control: only a reader that went is passed over. Oracle: the system's word."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            words("show", archives), stdout=full, stderr=subprocess.PIPE, check=False, env=environment()
        )
    assert done.returncode == 2
    assert done.stderr.startswith(b"kerneltrack: ")
    assert b"No space left on device" in done.stderr
    assert done.stderr.count(b"\n") == 1
