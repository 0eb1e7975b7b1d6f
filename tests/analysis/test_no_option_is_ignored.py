"""An option does something or is refused: it is never passed over.

Oracle: the same command without it. What is printed and written differs, or the option is refused with exit code 2 in
one line that names it. Every command with options × every combination that changes what it does × every option: quick is
every option of every command, in one way of its use after the other; all combinations are nightly.
"""

import pytest

from kerneltrack.analysis.cli import app, main
from kerneltrack.analysis.commands.effect import RULES
from kerneltrack.analysis.invocation import commands_of
from tests.analysis.test_outputs import few
from tests.tiers import later

RUNS = "plot RUN CONTROL --figure runs -o OUT.svg"
#: What each command can be told to do.
WAYS = {
    "plot": [
        "plot RUN --figure rank -o OUT.svg", "plot RUN --figure eigenfunctions -o OUT.png", RUNS, "plot --list",
        "plot RUN --figure rank -o -", "plot RUN --figure stability -o OUT.svg",
    ],
    "lr-decay": ["lr-decay RUN", "lr-decay RUN -o OUT.svg", "lr-decay RUN -o -", "lr-decay RUN --json"],
    "compare": [
        "compare RUN CONTROL", "compare RUN CONTROL -o OUT.svg", "compare RUN CONTROL --json", "compare RUN CONTROL -o -",
        "compare RUN CONTROL --against seed", "compare RUN CONTROL --against seed -o OUT.svg",
        "compare RUN CONTROL --against seed --json", "compare RUN CONTROL --group seed",
    ],
    "forecast": ["forecast RUN --rate x0.5", "forecast RUN --check", "forecast RUN --check --control CONTROL"],
    "report": ["report RUN -o -", "report RUN CONTROL -o OUT.html"],
    "export": ["export RUN -o OUT.csv"],
    "show": ["show RUN"],
    "summary": ["summary RUN"],
    "track": [], "plan": [], "publish": [], "demo": [], "merge": [], "check": [],
}  # fmt: skip
#: Each option with a value that is not its default.
VALUES = {
    "--figure": "--figure rank", "-o": "-o OUT.png", "--control": "--control CONTROL", "--probe": "--probe train",
    "--style": "--style dark", "--x": "--x log", "--list": "--list", "--format": "--format svg", "--json": "--json",
    "--by": "--by epoch", "--quantity": "--quantity trace", "--group": "--group seed", "--against": "--against seed",
    "--at": "--at 301", "--rate": "--rate 0.1", "--steps": "--steps 7", "--check": "--check", "--to": "--to netcdf",
    "--each": "--each", "--watch": "--watch",
}  # fmt: skip


def options(command):
    """The names of a command's options, short ones first."""
    found = commands_of(app).commands[command].params
    return [min(one.opts, key=len) for one in found if one.param_type_name == "option" and one.name != "help"]


@pytest.fixture(scope="module")
def two(synthetic, truth, control_truth, tmp_path_factory):
    """A run and its control, each with a second probe of other numbers."""
    folder, paths = tmp_path_factory.mktemp("two"), {}
    for name, given in (("RUN", truth), ("CONTROL", control_truth)):
        rows = list(
            few(synthetic.snapshots(given), {"stability_bound", "eigenvectors", "mode_sums", "linearization_error"})
        )
        for row in rows:
            row.probes["other"] = {
                key: 2 * (value[::-1] if value.ndim == 3 else value) for key, value in row.probes["train"].items()
            }
        records = [synthetic.record(given), synthetic.record(given, probe="other", fingerprint="sha256:" + "b" * 64)]
        seed = {"metadata": {"seed": 7 + (name == "RUN")}}
        paths[name] = str(synthetic.write(folder / f"{name.lower()}.h5", rows, *records, **seed))
    return paths


@pytest.fixture(scope="module")
def plain():
    """What each way does by itself."""
    return {}


CASES = [
    (way, option)
    for command, ways in WAYS.items()
    for way in ways
    for option in options(command)
    if f" {option} " not in f" {way} "
]


def in_turn():
    """The quick cases: an option's own number says in which of the ways that do not give it already; every way is met."""
    turn = dict.fromkeys(WAYS, 0)
    for command, ways in WAYS.items():
        for option in options(command):
            able = [way for way in ways if (way, option) in CASES]
            if able:
                yield able[turn[command] % len(able)], option
                turn[command] += 1


QUICK = set(in_turn())
#: A way that no option's turn came to is met with its first one.
QUICK |= {
    next(case for case in CASES if case[0] == way) for way in {way for way, _ in CASES} - {way for way, _ in QUICK}
}


def test_the_quick_cases_leave_no_option_out():
    """Oracle: enumeration."""
    by_command = {(way.split()[0], option) for way, option in CASES}
    assert {(way.split()[0], option) for way, option in QUICK} == by_command
    assert {way for way, _ in QUICK} == {way for way, _ in CASES}


def did(way, two, folder, capfdbinary):
    """(exit code, what was printed and written, what was complained)."""
    folder.mkdir(exist_ok=True)
    words = [two.get(word, word.replace("OUT", str(folder / "out"))) for word in way.split()]
    code = main(words)
    said = capfdbinary.readouterr()
    printed = said.out.replace(str(folder).encode(), b"")
    written = {path.name: steady(path.read_bytes()) for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    return code, (steady(printed), written), said.err.decode()


def steady(data):
    """What a figure and a page say, without the names that are drawn anew each time."""
    lines = data.split(b"\n") if data.startswith((b"<?xml", b"<!doctype")) else [data]
    return [
        line for line in lines if not any(part in line for part in (b"clip-path", b"<clipPath", b"xlink:href", b'id="'))
    ]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("way", "option"), [case if case in QUICK else later(case) for case in CASES])
def test_an_option_has_an_effect_or_is_refused(two, plain, tmp_path, capfdbinary, request, way, option):
    if way.startswith("report"):
        request.getfixturevalue("undrawn")  # its options change words, too
    if way not in plain:
        plain[way] = did(way, two, tmp_path / "x", capfdbinary)
        assert did(way, two, tmp_path / "x", capfdbinary) == plain[way]  # else any option would seem to have an effect
    without = plain[way]
    assert without[0] == 0, without[2]
    code, found, said = did(f"{way} {VALUES[option]}", two, tmp_path / "x", capfdbinary)
    if code == 2:
        assert option in said or (option, "ending does not fit" in said) == ("--to", True)
        assert said.count("\n") == 1
        assert said.startswith("kerneltrack: ")
    else:
        assert (code, found) != without[:2]


def test_every_rule_is_met(two, tmp_path, capfdbinary):
    """The table names no option or condition that the command does not have. Negative control: --quantity is free."""
    for command, rules in RULES.items():
        known = {*options(command), "ARCHIVE", "--figure runs", "-o - or a pipe", "several ARCHIVEs"}
        assert {part for rule in rules for part in (rule.option, rule.needs, rule.beside) if part} <= known
        assert all(rule.needs or rule.beside for rule in rules)
        assert "--quantity" not in {rule.option for rule in rules}


@pytest.mark.parametrize("way", ["lr-decay RUN", "plot RUN --figure rank -o OUT.svg", "report RUN -o OUT.html"])
@pytest.mark.parametrize("copied", [False, True])
def test_a_run_is_not_its_own_control(two, tmp_path, capfdbinary, way, copied):
    """Neither by another name nor as a copy. Oracle: its archive's identifier."""
    import shutil

    control = shutil.copy(two["RUN"], tmp_path / "copy.h5") if copied else two["RUN"]
    code, (_, written), said = did(f"{way} --control {control}", two, tmp_path / "x", capfdbinary)
    assert (code, written) == (2, {})
    assert "itself, not a control" in said
    assert said.count("\n") == 1
