"""Which studies are due. Oracle: three made-up studies in a repository of their own, whose every change is known."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "studies"))

import due
import results
import summary

SCRIPT = '''"""A study."""
import json, os, sys
from pathlib import Path
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from fine_page import page
from results import write
from shapes import area
SIZES = {"desk": 3}
SIZES["desk"] += 0

def measure(side):
    """Its numbers."""
    return {"area": area(side)}

def main():
    write(HERE, measure(SIZES["desk"]), page)

if __name__ == "__main__":
    main()
'''
RESULTS = '''import json, os, subprocess, sys
def write(home, numbers, page):
    """What was asked of it goes to a log; a share makes no page, and a study with a file ``broken`` fails."""
    with open(os.environ["LOG"], "a") as log:
        log.write(home.name + " " + " ".join(sys.argv[1:]) + "\\n")
    if (home / "broken").exists():
        sys.exit(3)
    if "--share" not in sys.argv:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=home, capture_output=True, text=True).stdout.strip()
        (home / "results.json").write_text(json.dumps({"size": "desk", "commit": commit, "numbers": numbers}))
        (home / "README.md").write_text(page(numbers))
'''
FILES = {
    "README.md": "| study | of | run it |\n| --- | --- | --- |\n"
    + "".join(f"| [{n}]({n}/README.md) | x | `{n}` |\n" for n in ("one", "two", "old")),
    "results.py": RESULTS,
    "shapes.py": "from lengths import times\ndef area(side):\n    return times(side, side)\ndef other():\n    return 1\n",
    "lengths.py": "def times(a, b):\n    return a * b\n",
    "summary.py": 'from pathlib import Path\n(Path(__file__).parent / "summary.md").write_text("all")\n',
    "one/study.py": SCRIPT + "# takes --share\n",
    "one/fine_page.py": "def page(numbers):\n    return str(numbers)\n",
    "two/study.py": SCRIPT,
    "two/fine_page.py": "def page(numbers):\n    return str(numbers)\n",
    "old/study.py": SCRIPT.replace("from results import write", "import results; write = results.write"),
    "old/fine_page.py": "def page(numbers):\n    return str(numbers)\n",
}


def git(folder, *words):
    found = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(found, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The studies, committed, and the results of that commit."""
    root = tmp_path_factory.mktemp("repository") / "studies"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "code")
    for name in ("one", "two", "old"):
        (root / name / "README.md").write_text("a page")
    for name in ("one", "two"):
        (root / name / "results.json").write_text(
            json.dumps({"size": "desk", "commit": git(root, "rev-parse", "HEAD")})
        )
    return root


@pytest.fixture
def root(written, tmp_path, monkeypatch):
    """As it was; commands run elsewhere, and say so in a log."""
    before = {path: path.read_text() for path in written.glob("**/*") if path.is_file() and not hidden(path)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    yield written
    for path in written.glob("*/*"):
        if path.is_file() and not hidden(path) and path not in before:
            path.unlink()
    for path, text in before.items():
        path.write_text(text)


def hidden(path):
    """Git's own files, and what an interpreter compiled."""
    return {".git", "__pycache__"} & set(path.parts)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def ran(tmp_path):
    return (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []


SAME = {
    "nothing": ("one/study.py", "", ""),
    "a comment": ("shapes.py", "def area(side):\n", "def area(side):  # of a square\n"),
    "a docstring": ("lengths.py", "    return", '    """Of two."""\n    return'),
    "layout": ("lengths.py", "a * b", "(a *\n        b)"),
    "what no run reaches": ("shapes.py", "return 1", "return 2"),
    "the page": ("one/fine_page.py", "str(numbers)", "repr(numbers)"),
    "how results are kept": ("results.py", "sys.exit(3)", "sys.exit(4)"),
    "the command": ("one/study.py", 'write(HERE, measure(SIZES["desk"]), page)', "pass"),
    "where a definition stands": ("shapes.py", "from lengths import times", "def times(a, b):\n    return a * b"),
}
CHANGED = {
    "the settings": ("one/study.py", '"desk": 3', '"desk": 4', "SIZES"),
    "a later line of them": ("one/study.py", 'SIZES["desk"] += 0', "pass", "SIZES"),
    "the runs": ("one/study.py", '{"area"', '{"volume"', "measure"),
    "a shared function": ("shapes.py", "times(side, side)", "times(side, 2 * side)", "area"),
    "one behind it": ("lengths.py", "a * b", "a + b", "times"),
}


@pytest.mark.parametrize("case", SAME)
def test_what_makes_no_number_leaves_a_study_up_to_date(root, case):
    name, old, new = SAME[case]
    edit(root / name, old, new)
    assert due.standing(root / "one").state == "up to date"


@pytest.mark.parametrize("case", CHANGED)
def test_what_makes_numbers_makes_it_stale_and_is_named(root, case):
    name, old, new, named = CHANGED[case]
    edit(root / name, old, new)
    found = due.standing(root / "one")
    assert (found.state, found.why.split(": ")[1]) == ("stale", named)


@pytest.mark.parametrize(
    ("study", "gone", "facts", "state", "why"),
    [
        ("one", "README.md", {}, "missing", "no page"),
        ("one", "results.json", {}, "missing", "no results.json"),
        ("one", None, {"size": "smoke"}, "stale", "of size smoke"),
        ("one", None, {"commit": "f" * 40}, "cannot be told", "not in this clone"),
        ("one", None, {"commit": "abc-dirty"}, "cannot be told", "no commit holds"),
        ("old", "README.md", {}, "missing", "no page"),
        ("old", None, None, "cannot be told", "keeps no results.json"),
    ],
)
def test_the_other_standings_and_their_reasons(root, study, gone, facts, state, why):
    if gone:
        (root / study / gone).unlink()
    elif facts:
        results = root / study / "results.json"
        results.write_text(json.dumps(json.loads(results.read_text()) | facts))
    found = due.standing(root / study)
    assert found.state == state
    assert why in found.why


def test_what_is_due_runs_in_shares_and_nothing_else_then_the_summary(root, tmp_path, capfd):
    """Its log: two shares in either order, then the page; up to date thereafter, and summary.md is there."""
    (root / "one" / "README.md").unlink()
    assert due.main(["--list"], root) == 0
    assert "one                  missing" in capfd.readouterr().out
    assert ran(tmp_path) == []
    assert due.main([], root) == 0
    told = [line.split() for line in ran(tmp_path)]
    assert [words[0] for words in told] == ["one"] * 3
    assert sorted(words[-1] for words in told[:2]) == ["0/2", "1/2"]
    assert "--share" not in told[2]
    assert due.standing(root / "one").state == "up to date"
    assert (root / "summary.md").read_text() == "all"


def test_a_study_that_fails_is_told_and_the_next_one_runs(root, tmp_path, capfd):
    for name in ("one", "two"):
        (root / name / "results.json").unlink()
    (root / "one" / "broken").touch()
    assert due.main([], root) == 1
    assert [line.split()[0] for line in ran(tmp_path)] == ["one", "one", "two"]
    assert capfd.readouterr().err.endswith("due still: one\n")
    assert [due.standing(root / name).state for name in ("one", "two")] == ["missing", "up to date"]


def test_a_named_study_runs_whatever_it_is_and_no_other(root, tmp_path):
    (root / "one" / "README.md").unlink()
    assert due.main(["old"], root) == 0
    assert ran(tmp_path) == ["old --size desk"]
    with pytest.raises(SystemExit):
        due.main(["young"], root)


def test_runs_lie_in_a_folder_of_their_code(root):
    """An interrupted study goes on in it; other numbers begin in another one."""
    folder = due.command(root / "one", Path("out"))[-1]
    edit(root / "shapes.py", "return 1", "return 2")
    assert due.command(root / "one", Path("out"))[-1] == folder
    edit(root / "lengths.py", "a * b", "a + b")
    assert due.command(root / "one", Path("out"))[-1] != folder


def test_it_reaches_what_a_study_here_takes_from_the_files_beside_it():
    """By hand, of one study that is here: its sizes, its runs, what they take from two files of its own and two shared ones."""
    names = {name for name, _ in due.lineage(summary.HERE / "grokking")}
    assert {"SIZES", "measure", "run", "Quadratic", "mean_kernel"} <= names
    assert not {"page", "figure", "main", "collect", "Learner"} & names


def test_results_name_the_commit_and_changed_code_but_no_changed_page(root, monkeypatch):
    monkeypatch.setattr(results, "__file__", str(root / "results.py"))
    head = git(root, "rev-parse", "--short", "HEAD")
    (root / "README.md").write_text("another page")
    assert results.commit() == head
    edit(root / "one" / "study.py", '"desk": 3', '"desk": 4')
    assert results.commit() == f"{head}-dirty"
