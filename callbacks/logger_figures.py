"""Figures and the report in a Trainer's loggers, drawn from the archive when the run has ended.

Drawing stands above callbacks, and needs Matplotlib; so another process does it, and what a training's process gets are
files. Loggers are asked for what they can take, never for their class.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kerneltrack.errors import TrackerError, one_line

#: What draws, by its name as a command; see there what it takes and what it answers.
_DRAWS = "kerneltrack.analysis.commands.for_loggers"
_REPORT = "report"
#: Every figure that comes with the package: a wrong name is told when the tracker is made, not at the end of the training.
FIGURES = (
    "overview", "outputs", "eigenfunctions", "eigenfunction-lines", "eigenfunction-samples", "kernel-slices", "projections",
    "frequencies", "rotation", "feature-atlas", "target-energy", "output-energy", "residual-energy", "energy-curves",
    "eigenvalues", "scaled-eigenvalues", "stability", "spectra", "spectrum-map", "rank", "weighted-spectrum",
    "residual-spectrum", "mode-factors", "lr-decay", "lr-trend", "freeze-here", "stages", "loss", "linearisation",
    "kernel-motion", "angular-velocity", "layer-shares", "kernel-distances", "activations", "ledger", "ledger-modes",
    "class-blocks", "class-levels", "sharpness", "oscillation", "edge-swing", "lazy-rich", "estimates", "calibration",
    "influence", "learning-curves", "task-shift",
)  # fmt: skip

Give = Callable[[Mapping[str, str]], object]


def checked(given: Any) -> tuple[str, ...]:
    """Names of figures.

    Raises:
        TrackerError: anything else.
    """
    names = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    wrong = [name for name in names if name not in FIGURES]
    if wrong:
        raise TrackerError(
            "log_figures",
            expected='names of figures, as in ("target-energy", "stability")',
            got=repr(wrong[0] if isinstance(given, (list, tuple)) else given),
            remedy="`kerneltrack plot --list` names them all; () logs none.",
        )
    return names


def hand_over(archive: Path, names: Sequence[str], loggers: Iterable[Any], step: int) -> None:
    """Draw what these loggers can take, and give it to them; what fails is a warning."""
    takers = [taker for logger in loggers for taker in _takers(logger, names, archive, step)]
    wanted = list(dict.fromkeys(name for name, _ in takers))
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as folder:
        drawn = _drawn(archive, Path(folder), wanted)
        for name in wanted:
            if "error" in drawn[name]:
                _warn(name, drawn[name]["error"])
        for name, give in takers:
            if "error" not in drawn[name]:
                try:
                    give(drawn[name])
                except Exception as error:  # noqa: BLE001  # whatever a logger says; the training is over, and went well
                    _warn(name, one_line(error))


def _takers(logger: Any, names: Sequence[str], archive: Path, step: int) -> list[tuple[str, Give]]:
    """What this logger takes, and how it is given that."""
    found: list[tuple[str, Give]] = []
    experiment = getattr(logger, "experiment", None)
    image, figure = getattr(logger, "log_image", None), getattr(experiment, "add_figure", None)
    for name in names:
        tag = f"ntk/{name}"
        if callable(image):  # Weights & Biases
            found.append((name, partial(_as_image, image, tag, step)))
        elif callable(figure):  # TensorBoard
            found.append((name, partial(_as_figure, figure, tag, step)))
    artifact, asset = getattr(experiment, "log_artifact", None), getattr(experiment, "log_asset", None)
    if callable(artifact) and hasattr(logger, "run_id"):  # MLflow
        found.append((_REPORT, lambda files: artifact(logger.run_id, files["page"])))
    elif callable(artifact):  # Weights & Biases
        found.append((_REPORT, lambda files: artifact(files["page"], name=f"{archive.stem}-report", type="report")))
    elif callable(asset):  # Comet
        found.append((_REPORT, lambda files: asset(files["page"])))
    return found


def _as_image(log_image: Any, tag: str, step: int, files: Mapping[str, str]) -> None:
    log_image(key=tag, images=[files["picture"]], step=step)


def _as_figure(add_figure: Any, tag: str, step: int, files: Mapping[str, str]) -> None:
    add_figure(tag, _figure(files), global_step=step)


def _figure(files: Mapping[str, str]) -> Any:
    return pickle.loads(Path(files["figure"]).read_bytes())  # written a moment ago by a process of our own


def _drawn(archive: Path, folder: Path, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    command = [sys.executable, "-m", _DRAWS, str(archive.absolute()), str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return {name: {"error": f"the process that draws ended with {done.returncode}: {last}"} for name in names}
    found: Mapping[str, Mapping[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _warn(name: str, why: str) -> None:
    warnings.warn(f"kerneltrack: {name!r} is in no logger: {why}", stacklevel=4)
