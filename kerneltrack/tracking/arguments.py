"""The tracker's arguments, checked when the tracker is made: mistakes are reported at construction, not hours later.

Every message names the argument, what it should have been, what it is, and what to do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from kerneltrack import observables as catalogue
from kerneltrack.errors import KernelError, ProbeError, TrackerError
from kerneltrack.memory_budget import parse_bytes
from kerneltrack.probe import Probe
from kerneltrack.snapshot import Json
from kerneltrack.tracking.fork_limits import ForkLimits
from kerneltrack.training import ProbeLoss

T = TypeVar("T")

#: Endings that say another kind of file: what this package writes otherwise, and what trainings keep beside it.
_OTHER_ENDINGS = {
    ".csv", ".json", ".html", ".htm", ".png", ".pdf", ".svg", ".nc", ".nc4", ".npz", ".npy", ".ckpt", ".pt", ".pth",
    ".safetensors",
}  # fmt: skip


def archive(given: Any) -> Path:
    """The file to write.

    Raises:
        TrackerError: not a path, empty, a folder, device or pipe, or an ending that is another kind of file's.
    """
    if not isinstance(given, (str, os.PathLike)) or not str(given):
        raise TrackerError("archive", expected="the path of a file", got=repr(given), remedy='For example "run.h5".')
    path = Path(given)
    if path.is_dir():
        raise TrackerError(
            "archive",
            expected="the path of a file",
            got=f"the folder {str(given)!r}",
            remedy=f"Name a file in it: {str(path / 'run.h5')!r}.",
        )
    if path.exists() and not path.is_file():
        raise TrackerError(
            "archive",
            expected="the path of a file",
            got=f"the device, pipe or socket {str(given)!r}",
            remedy="An archive is written in more than one place, which only a file allows.",
        )
    if path.suffix.casefold() in _OTHER_ENDINGS:
        raise TrackerError(
            "archive",
            expected="the path of an HDF5 file",
            got=repr(str(given)),
            remedy=f"Name it {str(path.with_suffix('.h5'))!r}.",
        )
    return path


def probe(given: Any) -> int | Probe | dict[str, Any]:
    """A number of training samples, a probe (read if it is a path), or several by name.

    Raises:
        ProbeError: anything else, a file that holds no probe, or a number whose name says no loader.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        return _count(given, "probe")
    if isinstance(given, Mapping) and given:
        return {str(name): _named_probe(found, str(name)) for name, found in given.items()}
    return _one_probe(given, "probe")


def _count(given: int, argument: str) -> int:
    if given < 1:
        raise ProbeError(argument, expected="at least one sample", got=given, remedy="A few hundred samples are usual.")
    return given


def loader_of(name: str) -> Literal["train", "val"]:
    """The loader that a probe of so many samples is drawn from, by the probe's name.

    Raises:
        ProbeError: the name begins with neither.
    """
    if name.lower().startswith("train"):
        return "train"
    if name.lower().startswith("val"):
        return "val"
    raise ProbeError(
        f"probe={{{name!r}: a number of samples}}",
        expected='a name that begins with "train" or "val", the loader to draw them from',
        got=repr(name),
        remedy="Draw them yourself: Probe.from_dataloader(loader, n).",
    )


def _named_probe(given: Any, name: str) -> int | Probe:
    counted = isinstance(given, int) and not isinstance(given, bool)
    found = Probe(np.zeros(1)) if counted else _one_probe(given, f"probe[{name!r}]")
    try:
        named = found.named(name)
    except ProbeError as error:
        raise ProbeError(
            "probe", expected=f"names of {error.expected}", got=error.got, remedy="The name is a group of the archive."
        ) from error
    if not counted:
        return named
    loader_of(name)
    return _count(given, f"probe[{name!r}]")


def _one_probe(given: Any, argument: str) -> Probe:
    if isinstance(given, (str, Path)):
        try:
            return Probe.load(given)
        except ProbeError as error:
            names_a_loader = str(given).lower().startswith(("train", "val")) and not Path(given).suffix
            drawn = f" To draw samples from that loader: {argument}={{{str(given)!r}: 256}}." if names_a_loader else ""
            raise ProbeError(
                f"{argument}={str(given)!r}: {error.problem}",
                expected=error.expected,
                got=error.got,
                remedy=f"{error.remedy or ''}{drawn}",
            ) from error
    if isinstance(given, Probe):
        return given
    whole = " (a number of samples, or a mapping of names to these)" if argument == "probe" else ""
    raise ProbeError(
        argument,
        expected=f"a Probe or the path of a saved one{whole}",
        got=_in_short(given),
        remedy="Make one with Probe(inputs, targets) or Probe.from_dataloader(loader, n).",
    )


def _in_short(given: Any) -> str:
    """Data by type and shape: their numbers say nothing, and fill a screen."""
    if hasattr(given, "shape"):
        return f"a {type(given).__name__} of shape {tuple(given.shape)}"
    if isinstance(given, (tuple, list, dict)) and not given:
        return repr(given)
    if isinstance(given, (tuple, list)):
        return f"a {type(given).__name__} of {', '.join(map(_in_short, given[:2]))}{', …' if len(given) > 2 else ''}"
    return repr(given) if isinstance(given, (int, float, str, type(None))) else f"a {type(given).__name__}"


def observables(given: Any) -> tuple[str, ...]:
    """The names of observables; not themselves: one may hold a lambda, and a tracker must pickle.

    Raises:
        ObservableError: a name that is not in the catalogue.
        TrackerError: not names.
    """
    if not isinstance(given, str) and not _are_names(given):
        raise TrackerError(
            "observables",
            expected='"default", "all", or names',
            got=repr(given),
            remedy="kerneltrack.observables.catalogue() lists them.",
        )
    return tuple(o.name for o in catalogue.select(given if isinstance(given, str) else tuple(given)))


def loss(given: Any) -> ProbeLoss | None:
    """The loss on the probe, or None.

    Raises:
        TrackerError: neither a known name nor a callable.
    """
    return None if given is None else ProbeLoss.of(given)


def params(given: Any) -> Callable[[str], bool] | tuple[str, ...] | None:
    """Which parameters the kernel is of; whether the names exist is known with the module.

    Raises:
        TrackerError: neither None, a predicate, nor names.
    """
    if given is None or callable(given):
        return given  # type: ignore[no-any-return]  # None or the callable
    if isinstance(given, str):
        return (given,)
    if not _are_names(given) or not tuple(given):
        raise TrackerError(
            "params",
            expected="None, a predicate on names, or names of parameters",
            got=repr(given),
            remedy="None takes every parameter that requires grad.",
        )
    return tuple(given)


def metadata(given: Any) -> dict[str, Json]:
    """Plain values by name.

    Raises:
        TrackerError: what JSON does not know, NaN included.
    """
    try:
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"a {type(given).__name__}")
        values = dict(given or {})
        if not all(isinstance(key, str) for key in values):
            raise TypeError("names that are no strings")
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TrackerError(
            "metadata",
            expected="names with plain values (numbers, strings, lists, dicts)",
            got=f"{given!r} ({error})",
            remedy="Convert arrays and objects to numbers or strings; leave out what is NaN.",
        ) from error
    return values


def memory_budget(given: Any) -> int | str | None:
    """Bytes, a text like "2GiB", or None.

    Raises:
        TrackerError: not a size.
    """
    try:
        if given is not None:
            parse_bytes(given)
    except (KernelError, TypeError) as error:
        raise TrackerError(
            "memory_budget",
            expected='bytes or a text like "2GiB"',
            got=repr(given),
            remedy="None takes half of what is free.",
        ) from error
    return given  # type: ignore[no-any-return]  # a size


def number(argument: str, given: Any, *, least: int, remedy: str) -> int:
    """An integer from ``least``.

    Raises:
        TrackerError: anything else.
    """
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise TrackerError(argument, expected=f"an integer from {least}", got=repr(given), remedy=remedy)
    return given


def steps(argument: str, given: Any) -> tuple[int, ...]:
    """Steps, ascending; () for none.

    Raises:
        TrackerError: anything else.
    """
    found = tuple(given) if isinstance(given, Iterable) and not isinstance(given, (str, Mapping)) else (None,)
    if any(isinstance(step, bool) or not isinstance(step, int) or step < 0 for step in found):
        raise TrackerError(
            argument, expected="steps, integers from 0", got=repr(given), remedy="For example fork_at=[1000, 2000]."
        )
    return tuple(sorted(set(found)))


def forks(given: Any, at: tuple[int, ...]) -> ForkLimits | None:
    """The limits of the forks that are kept; None for no forks.

    Raises:
        TrackerError: neither a bool nor limits, or steps are given where none is to be kept.
    """
    if isinstance(given, ForkLimits):
        return given
    if not isinstance(given, bool):
        raise TrackerError(
            "keep_forks",
            expected="True, False or kt.ForkLimits(count=…, memory=…)",
            got=repr(given),
            remedy="True keeps at most 4 forks in 2 GiB.",
        )
    if at and not given:
        raise TrackerError(
            "fork_at without keep_forks",
            expected="keep_forks=True",
            got=f"fork_at={list(at)}",
            remedy="Forks take memory: they are kept where keep_forks says so.",
        )
    return ForkLimits() if given else None


def flag(argument: str, given: Any) -> bool:
    """True or False.

    Raises:
        TrackerError: anything else.
    """
    if not isinstance(given, bool):
        raise TrackerError(argument, expected="True or False", got=repr(given), remedy="Pass a bool.")
    return given


def function(argument: str, given: T, takes: str) -> T:
    """A callable, or None.

    Raises:
        TrackerError: anything else.
    """
    if given is not None and not callable(given):
        raise TrackerError(
            argument, expected=f"None or a callable {takes}", got=repr(given), remedy="Pass the function itself."
        )
    return given


def output(given: Any) -> Any:
    """A reduction's name, or a callable.

    Raises:
        TrackerError: neither.
    """
    return given if callable(given) else choice("output", given, ("auto", "full", "diagonal", "trace", "sum"))


def choice(argument: str, value: Any, choices: tuple[str, ...]) -> Any:
    """``value``, if it is one of the choices.

    Raises:
        TrackerError: it is not.
    """
    if value not in choices:
        raise TrackerError(
            argument,
            expected=f"one of {', '.join(map(repr, choices))}",
            got=repr(value),
            remedy=f"{argument}={choices[0]!r} is the usual one.",
        )
    return value


def _are_names(given: Any) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, Mapping) and all(isinstance(n, str) for n in given)


def eigenpairs(given: Any, top_k: int) -> Any:
    """Which eigenpairs are computed: "all", or "leading" where any are asked for.

    Raises:
        TrackerError: neither, or "leading" of none.
    """
    if given == "leading" and top_k == 0:
        raise TrackerError(
            'eigenpairs="leading" with top_k=0',
            expected="at least one eigenpair",
            got=0,
            remedy="top_k=64 is the default.",
        )
    return choice("eigenpairs", given, ("all", "leading"))
