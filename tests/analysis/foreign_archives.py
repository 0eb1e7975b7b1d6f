"""Archives of the right form that say insane things, and offline commands run on them.

    python tests/analysis/foreign_archives.py FOLDER [--every] [CASE…]

A case changes one thing in a small honest archive: its rows, its probe's record, its metadata, or the HDF5 file
afterwards. Each command runs in a forked child under limits on memory, time and file size, and prints a JSON object of
what came of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import resource
import sys
import traceback
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # run by path, a file's own folder comes first, not the root

from tests.analysis import conftest

MEMORY_BYTES, SECONDS, FILE_BYTES = 3 << 30, 60, 1 << 28
#: Moves a cursor, sets a title, turns the direction of reading, ends a script, opens a tag, is markup of rich and of TeX.
EVIL = "\x1b[31m\x1b]0;x\x07\u202e\r\n</script><evil-tag onload=alert(1)>\"' [bold]x[/] $\\frac{$"
NUMBERS = (np.nan, np.inf, -np.inf, 1e300, -1e300, -1.0, 5e-324, 0.0, 0.1)
STEPS = conftest.STEPS[4:]  # nine rows, the halving of the rate among them
DEEP = json.loads('{"a": [' * 150 + "1" + "]}" * 150)
CASES = {}


@dataclasses.dataclass
class Draft:
    """An archive to be: what a case changes, and ``spoil``, what it does to the open file."""

    rows: list
    record: object
    metadata: dict
    spoil: object = None

    def each(self, change):
        """Change every row by itself: ``change(row, i)``."""
        self.rows = [change(row, i) for i, row in enumerate(self.rows)]

    def measure(self, change):
        """Change every measured array: ``change(name, own, i)``; None leaves it out."""

        def row(given, i):
            changed = {name: change(name, own, i) for name, own in given.probes["train"].items()}
            kept = {name: value for name, value in changed.items() if value is not None}
            return dataclasses.replace(given, probes={"train": kept})

        self.each(row)

    def settle(self, **settings):
        """Change settings of the probe."""
        self.record = dataclasses.replace(self.record, settings={**self.record.settings, **settings})


def case(change):
    CASES[change.__name__] = change
    return change


def put_json(file, name, value):
    data, dims = np.frombuffer(json.dumps(value).encode(), "S1"), file[name].attrs["dimensions"]
    del file[name]
    file.create_dataset(name, data=data).attrs["dimensions"] = dims


# -- numbers --------------------


@case
def eigenvalues_of_every_kind(draft):
    """A number of each kind, at another mode in each row; one row in the wrong order."""

    def change(name, own, i):
        if name != "eigenvalues":
            return own
        return own[::-1].copy() if i == 4 else np.where(np.arange(len(own)) % 9 == i % 8 + 1, NUMBERS[i], own)

    draft.measure(change)


@case
def measurements_that_overflow(draft):
    """Beyond what can be squared, and below what can be divided by, in turn."""
    draft.measure(lambda name, own, i: np.asarray(own * (1e200 if own.dtype == "f8" else 1e30) ** (-1) ** i))


@case
def measurements_that_are_not_positive(draft):
    draft.measure(lambda name, own, i: -np.abs(own) if i % 2 else np.zeros_like(own))


@case
def measurements_of_no_number(draft):
    draft.measure(lambda name, own, i: np.full_like(own, NUMBERS[i % 3]) if name != "eigenvalues" else own)


@case
def columns_of_every_kind(draft):
    """Learning rates, losses and times."""

    def row(given, i):
        n = NUMBERS[i]
        rates = (n if i % 3 else 0.1, n, 0.1)[: i % 4]
        return dataclasses.replace(
            given, learning_rates=rates, training_loss=n, wall_time=n, train_seconds=n, snapshot_seconds=n
        )

    draft.each(row)


@case
def rates_from_the_greatest_to_the_least(draft):
    rates = (1e308, 1e308, 5e-324, 5e-324, 0.0, 0.0, -1.0, -1.0, 1e308)
    draft.each(lambda row, i: dataclasses.replace(row, learning_rates=(rates[i],), step=i))


@case
def hundreds_of_groups(draft):
    draft.each(
        lambda row, i: dataclasses.replace(row, learning_rates=tuple(0.1 / (j + 1 + i // 5) for j in range(700)))
    )


@case
def steps_that_stand(draft):
    draft.each(lambda row, i: dataclasses.replace(row, step=7, window=i % 2))


@case
def steps_without_end(draft):
    """From −2⁶³ to 2⁶² and back."""
    places = (-(2**63), 0, 2**62, 2**62 + 1, 5, 2**20, 2**40, -3, 2)
    wild = {"epoch": -5, "batch": -7, "samples_seen": 2**62, "wall_time": -1e12}
    draft.each(lambda row, i: dataclasses.replace(row, step=places[i], **wild))


# -- texts --------------------

#: Enough for a figure of each place that a text gets to; each figure of a page takes a fifth of a second.
DRAWN = {
    "eigenvalues", "effective_rank", "participation_ratio", "stability_ratio", "probe_loss", "trace", "target_coefficients",
    "residual_coefficients", "target_energy", "residual_energy", "eigenvectors", "layer_share", "activation_layer_deviation",
}  # fmt: skip


@case
def texts(draft):
    """In every place that holds one, where the run stays comparable with others."""
    run = {"run_id": EVIL, "versions": {EVIL: EVIL}, "model": EVIL, "created": EVIL}
    run["optimizers"] = [{"class": EVIL, "groups": [{EVIL: EVIL, "lr": EVIL}]}]

    def spoil(file):
        for name in ("run_id", "source", "history", "license", "creator_name", "title", "Conventions"):
            file.attrs[name] = EVIL
        put_json(file, "provenance/run", run)
        put_json(file, "provenance/private", {"host": EVIL, "user": EVIL, "command": [EVIL], EVIL: EVIL})
        put_json(file, "provenance/parameters", [{"name": EVIL, "shape": EVIL, "layer": EVIL, "group": EVIL}])
        old = file["probes/train/effective_rank"]
        for name in ("mine", "label", "dims", "values", "T", "eigenvalue_9999999", "learning_rate_0"):
            new = file["probes/train"].create_dataset(name, data=old[()])
            new.attrs["dimensions"] = old.attrs["dimensions"]
            for key in ("long_name", "units", "formula", "source"):
                new.attrs[key] = EVIL

    draft.measure(lambda name, own, i: own if name in DRAWN else None)
    draft.spoil, draft.metadata = spoil, {"width": EVIL, "title": EVIL, EVIL: EVIL, "long": "x" * 100_000}
    draft.settle(layers=[EVIL, EVIL * 50, "$"], stability_scope=EVIL, **{EVIL: EVIL})
    draft.record = dataclasses.replace(draft.record, identity={EVIL: EVIL, "dataset": EVIL, "aspect": EVIL})
    draft.each(lambda row, i: dataclasses.replace(row, trigger=EVIL, message=EVIL))


@case
def texts_that_refuse(draft):
    """Texts that end up in a complaint: of another probe, another loss, failed rows."""
    draft.record = dataclasses.replace(draft.record, fingerprint=EVIL)
    draft.settle(loss=EVIL * 1000, output=EVIL)
    draft.each(lambda row, i: dataclasses.replace(row, status="failed", message=EVIL, probes={}))


@case
def json_of_other_kinds(draft):
    run = {"run_id": "run-1", "loss": [1], "schedule": DEEP, "seed": {"a": 1}, "optimizers": [{"class": 5}] * 300}

    def spoil(file):
        put_json(file, "provenance/run", run)
        put_json(file, "provenance/metadata", {"title": DEEP, "width": [10**400], "seed": None, "": "", "a.b": True})
        put_json(file, "provenance/parameters", [{"name": 5, "group": -(2**62)}] * 2000)
        put_json(file, "probes/train/identity", {"aspect": 1e308, "dataset": DEEP, "indices": 3})

    draft.spoil = spoil
    draft.settle(parameter_count=2**62, top_k=2**62, mode=[1], factor="x", stability_scope=None, parameters={"a": 1})


# -- shapes --------------------


@case
def no_rows(draft):
    draft.rows = []


@case
def one_row(draft):
    draft.rows = draft.rows[:1]


def shaped(samples, outputs, modes):
    def change(draft):
        few = {
            "eigenvalues": np.linspace(1, 0.5, modes),
            "mode_sums": np.ones((modes, outputs)),
            "eigenvectors": np.ones((samples, outputs, min(modes, 4)), "f4"),
            "outputs": np.ones((samples, outputs)),
            "residual": np.ones((samples, outputs)),
            "kernel": np.ones((samples, samples, outputs, outputs), "f4"),
            "target_energy": np.ones(6),
            "output_energy": np.ones(6),
            "residual_energy": np.ones(6),
            "stability_ratio": np.array(1.0),
            "layer_share": np.ones(3) / 3,
            **{f"{function}_coefficients": np.ones((modes, 1)) for function in ("target", "output", "residual")},
        }
        draft.each(lambda row, i: dataclasses.replace(row, probes={"train": few}))
        shape = (samples, 2)
        draft.record = dataclasses.replace(
            draft.record,
            count=samples,
            targets=np.ones((samples, outputs)),
            inputs={"": np.ones(shape)},
            input_shapes={"": ("float64", shape)},
        )

    return change


CASES |= {"one_sample": shaped(1, 1, 1), "many_outputs": shaped(4, 300, 4)}


@case
def a_million_million_samples(draft):
    """N is a word in a small file; no array may be made of it."""
    held = ("stability_ratio", "effective_rank", "trace", "eigenvalues", "target_energy", "target_coefficients")
    draft.measure(lambda name, own, i: own if name in held else None)
    draft.record = dataclasses.replace(
        draft.record,
        count=10**12,
        targets=None,
        inputs=None,
        target_encoding="none",
        input_shapes={"": ("float32", (10**12, 10**6))},
    )


@case
def a_grid_of_any_k(draft):
    draft.settle(energy_k=[0, 2**62, 1, 1, 2**53 + 1, 5])


@case
def inputs_and_targets_of_no_number(draft):
    points = np.array(draft.record.inputs[""])
    points[::2], points[1::4] = np.nan, np.inf
    draft.record = dataclasses.replace(
        draft.record, inputs={"": points}, targets=np.full_like(draft.record.targets, np.nan)
    )


@case
def codes_of_nothing(draft):
    def spoil(file):
        for name, value in {
            "status": 9,
            "window": 200,
            "update_applied": 77,
            "segment": 2**31 - 1,
            "snapshot": 3,
        }.items():
            file[name][...] = value
        file["segments/number"][0], file["segments/started"][0] = 5, np.inf

    draft.spoil = spoil


# -- commands --------------------

#: RUN is the archive, GOOD an honest one of the same run, OUT a folder that may be written.
COMMANDS = {
    "summary": "summary RUN --control GOOD", "show": "show RUN", "json": "show RUN --json",
    "check": "check RUN", "csv": "export RUN -o OUT/t.csv",
    "netcdf": "export RUN --to netcdf -o OUT/t.nc", "merge": "merge RUN",
    "publish": "publish RUN -o OUT/public.h5 --licence CC0-1.0 --author A --contact a@example.org --card",
    "report": "report RUN --control GOOD -o OUT/page.html", "lr": "lr-decay RUN --control GOOD",
    "lr-json": "lr-decay RUN --json", "forecast": "forecast RUN --rate x0.5 --json",
    "compare": "compare RUN GOOD --by loss", "flow": "compare RUN GOOD --by flow_time --json",
    "runs": "compare RUN GOOD --group width -o OUT/f.svg", "sweep": "compare RUN GOOD --against width -o OUT/f.png",
    "plot": "plot RUN --figure layer-shares -o OUT/f.svg",
}  # fmt: skip
#: What is run on every case, on every fifth one, and what else on some; ``good`` is the honest archive.
EVERYWHERE = ("show",)
ON_EVERY_FIFTH = ("lr",)
ELSE = {
    "good": {"check", "publish"}, "texts": set(COMMANDS),
    "texts_that_refuse": {"compare", "check"}, "json_of_other_kinds": {"json", "netcdf", "publish", "sweep"},
    "eigenvalues_of_every_kind": {"csv", "forecast"}, "measurements_that_overflow": {"compare", "forecast", "summary"},
    "columns_of_every_kind": {"flow", "json"}, "no_rows": {"csv"},
    "rates_from_the_greatest_to_the_least": {"forecast", "lr-json"}, "steps_without_end": {"flow", "lr-json"},
    "a_grid_of_any_k": {"compare"}, "codes_of_nothing": {"check", "merge"}, "one_sample": {"runs", "summary"},
}  # fmt: skip


def planned(case):
    asked = {*EVERYWHERE, *ELSE.get(case, ()), *(ON_EVERY_FIFTH if ["good", *CASES].index(case) % 5 == 0 else ())}
    return [command for command in COMMANDS if command in asked]


def build(name, folder, truth):
    """Write the archive of a case, or an honest one, as ``folder``/run.h5."""
    rows = [row for row in conftest.snapshots(truth) if row.step in STEPS]
    draft = Draft(rows, conftest.record(truth), {"width": 64})
    CASES.get(name, lambda draft: None)(draft)
    path = conftest.write(folder / "run.h5", draft.rows, draft.record, metadata=draft.metadata)
    if draft.spoil:
        with h5py.File(path, "r+", libver=("v110", "v110")) as file:
            draft.spoil(file)


def lived(command, case, folder):
    """Run a command on a case's archive in a forked child; what came of it."""
    out, said = folder / case / command, folder / f"{case}-{command}"
    out.mkdir()
    said.mkdir()
    places = {"RUN": str(folder / case / "run.h5"), "GOOD": str(folder / "honest" / "run.h5")}
    argv = [places.get(word, word.replace("OUT", str(out))) for word in COMMANDS[command].split()]
    before = everything(folder)
    child = os.fork()
    if child == 0:
        os._exit(limited(argv, out, said))
    _, status, usage = os.wait4(child, 0)
    written = everything(folder) - before - everything(said)
    texts = {name: (said / name).read_bytes().decode("utf-8", "backslashreplace") for name in ("stdout", "stderr")}
    return {
        "case": case,
        "command": command,
        "code": os.waitstatus_to_exitcode(status),
        **texts,
        "written": sorted(written),
        "seconds": usage.ru_utime + usage.ru_stime,
        "megabytes": usage.ru_maxrss >> 10,
    }


def limited(argv, out, said):
    """In the child: the exit code; 99 for what should never come out of ``main``."""
    from kerneltrack.analysis.cli import main

    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(said / name, os.O_CREAT | os.O_WRONLY), number)
    limits = {resource.RLIMIT_AS: MEMORY_BYTES, resource.RLIMIT_CPU: SECONDS, resource.RLIMIT_FSIZE: FILE_BYTES}
    for kind, limit in limits.items():
        resource.setrlimit(kind, (limit, limit))
    os.chdir(out)
    try:
        code = main(argv)
    except BaseException:  # noqa: BLE001 — whatever comes is the finding
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def everything(folder):
    return {str(Path(at) / name) for at, _, names in os.walk(folder) for name in names}


def load_the_rest(path):
    """What a command imports when it runs, by running the two that every case has, once."""
    from kerneltrack.analysis.cli import main

    for command in ("show", "lr-decay"):
        with contextlib.redirect_stdout(io.StringIO()):
            main([command, str(path)])


def live_all(folder, cases, commands=()):
    # Imported once, here, and not in every child.
    from kerneltrack.analysis.commands import export, show  # noqa: F401
    from kerneltrack.analysis.comparison import sweep  # noqa: F401
    from kerneltrack.analysis.figures import files, registered  # noqa: F401
    from kerneltrack.analysis.lr_decay import runs  # noqa: F401
    from kerneltrack.analysis.report import page, slider  # noqa: F401

    registered()
    os.fsync = lambda descriptor: None  # nothing of this need survive its machine
    truth = conftest.simulate()
    (folder / "honest").mkdir()
    build("good", folder / "honest", truth)
    for name in ("good", *cases):
        (folder / name).mkdir()
        build(name, folder / name, truth)
        if name == "good":
            load_the_rest(folder / name / "run.h5")
        for command in commands or planned(name):
            print(json.dumps(lived(command, name, folder)), flush=True)


if __name__ == "__main__":
    every = "--every" in sys.argv
    live_all(
        Path(sys.argv[1]),
        [word for word in sys.argv[2:] if word != "--every"] or list(CASES),
        COMMANDS if every else (),
    )
