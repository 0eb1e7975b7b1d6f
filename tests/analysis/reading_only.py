"""Every offline command, and reading in Python, in one process that has neither torch nor Lightning.

    python tests/analysis/reading_only.py RUN CONTROL FOLDER [--block]

RUN is an archive with a change of the learning rate, CONTROL its control; what is written goes to FOLDER. With
``--block`` the process is one in which the imports are refused although the packages are there. Prints what came of
each command as a line of JSON, and last what came of each name that needs torch.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from pathlib import Path

BLOCKED = {"torch", "pytorch_lightning", "lightning", "torchmetrics", "lightning_utilities"}
#: RUN and CONTROL are archives, OUT a folder that may be written.
OFFLINE = {
    "show": "show RUN --json",
    "summary": "summary RUN --control CONTROL",
    "check": "check RUN CONTROL",
    "plot": "plot RUN --figure rank -o OUT/figure.svg",
    "report": "report RUN -o OUT/page.html",
    "lr-decay": "lr-decay RUN --control CONTROL --json",
    "forecast": "forecast RUN --check --control CONTROL",
    "compare": "compare RUN CONTROL --json",
    "export": "export RUN -o OUT/numbers.csv",
    "netcdf": "export RUN --to netcdf -o OUT/all.nc",
    "merge": "merge RUN",
    "publish": "publish RUN -o OUT/public.h5 --licence CC0-1.0 --author A --contact a@example.org --card",
}
#: What trains or measures.
NEEDS_TORCH = {
    "demo": "demo --out OUT/demo",
    "plan": "plan --model os:path --probe OUT/no.npz",
    "track": "track --checkpoints OUT/* --model os:path --probe OUT/no.npz -o OUT/new.h5",
}
#: Names that measure, by every way that leads to them.
MEASURING = (
    "kerneltrack:Probe", "kerneltrack:empirical_ntk", "kerneltrack:NTKOperator", "kerneltrack:analytic",
    "kerneltrack:linearize", "kerneltrack:ntk_plan", "kerneltrack.ntk:Plan", "kerneltrack.ntk.analytic:relu_ntk",
    "kerneltrack.probe:Probe", "kerneltrack.callbacks:NTKTracker", "kerneltrack.training:ProbeLoss",
    "kerneltrack.measurement:Recorder",
)  # fmt: skip


class Blocked:
    """Finds none of the blocked packages, and says so as the import system does."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def lived(words: str, places: dict[str, str]) -> dict[str, object]:
    """What came of one command line."""
    from kerneltrack.analysis.cli import main

    argv = [places.get(word, word.replace("OUT", places["OUT"])) for word in words.split()]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(argv)
    return {"command": argv[0], "code": code, "stderr": said.getvalue()}


def in_python(run: str, control: str) -> dict[str, object]:
    """The numbers of a run by the package's own names."""
    import kerneltrack as kt
    from kerneltrack.analysis import load, lr_decay_effects

    with kt.open_archive(run) as archive:
        data = archive.to_xarray(probe=next(iter(archive.probes)))
        steps = archive.steps.tolist()
    effects = lr_decay_effects(load(run), load(control))
    return {
        "steps": steps,
        "rows": int(data.sizes["snapshot"]),
        "changes": len(effects.changes),
        "observables": len(kt.observables.catalogue()),
        "eigenvalues": kt.eigensystem([[2.0, 0.0], [0.0, 1.0]]).values.tolist(),
    }


def refused(place: str) -> dict[str, object]:
    """What a name that measures says."""
    module, _, name = place.partition(":")
    try:
        getattr(importlib.import_module(module), name)
    except ImportError as error:
        return {"name": place, "type": type(error).__name__, "said": str(error)}
    return {"name": place, "type": "", "said": ""}


def main(run: str, control: str, folder: str) -> None:
    places = {"RUN": run, "CONTROL": control, "OUT": str(Path(folder).resolve())}
    commands = {words: lived(words, places) for words in (*OFFLINE.values(), *NEEDS_TORCH.values())}
    for outcome in commands.values():
        print(json.dumps(outcome))
    print(json.dumps({"python": in_python(run, control)}))
    print(json.dumps({"refused": [refused(place) for place in MEASURING]}))
    print(json.dumps({"loaded": sorted(BLOCKED & set(sys.modules))}))


if __name__ == "__main__":
    if "--block" in sys.argv:
        sys.meta_path.insert(0, Blocked())
    main(*[word for word in sys.argv[1:] if word != "--block"])
