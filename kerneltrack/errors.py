"""One family of errors: what was expected, what came, where, and what to do about it.

Every error that kerneltrack raises on purpose is a :class:`KerneltrackError`; a program that drives a long training run can
catch that one name. Subclasses say whose business the problem is, never how it was found.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class KerneltrackError(Exception):
    """A problem stated in full: the problem, what was expected, what came, where, and the remedy.

    Args:
        problem: one clause that names the argument, module or file in the caller's words.
        expected: what would have been right.
        got: what came instead.
        where: file, group, step or layer.
        remedy: what to do now; a full sentence.
    """

    def __init__(
        self,
        problem: str,
        *,
        expected: object = None,
        got: object = None,
        where: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.expected, self.got, self.where, self.remedy = problem, expected, got, where, remedy
        super().__init__(problem, expected, got, where, remedy)

    def __str__(self) -> str:
        clauses = [self.problem]
        if self.expected is not None:
            clauses.append(f"expected {self.expected}")
        if self.got is not None:
            clauses.append(f"got {self.got}")
        text = ": ".join([clauses[0], ", ".join(clauses[1:])]) if clauses[1:] else clauses[0]
        if self.where:
            text += f" (in {self.where})"
        # what came may be a sentence of its own: an error of torch's, or of the model's
        return f"{text.removesuffix('.')}. {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[Any, ...]:
        """An error of another process arrives as it was raised, its notes included."""
        return _again, (type(self), vars(self))


def _again(kind: type[KerneltrackError], facts: dict[str, Any]) -> KerneltrackError:
    """The error with these attributes. Its class may take other arguments than the clauses that it makes of them."""
    error = kind.__new__(kind)
    clauses = {name: facts[name] for name in ("expected", "got", "where", "remedy")}
    KerneltrackError.__init__(error, facts["problem"], **clauses)
    vars(error).update(facts)
    return error


class ProbeError(KerneltrackError, ValueError):
    """The probe is empty, not finite, or does not fit the model."""


class ScheduleError(KerneltrackError, ValueError):
    """A schedule that is unknown or can never be due."""


class ObservableError(KerneltrackError, ValueError):
    """An observable that is unknown, or that needs what was not measured."""


class RegressionError(ObservableError):
    """A regression that needs more eigenpairs, or other numbers, than it was given."""


class KernelError(KerneltrackError, ValueError):
    """The kernel of this model cannot be computed exactly as asked."""


class UnsupportedModelError(KernelError):
    """The model couples samples, has no trainable parameter, or its output is not (N,) or (N, O)."""


class MemoryBudgetError(KernelError):
    """The budget cannot hold even one row; ``required_bytes`` says what would.

    Args:
        required_bytes: the smallest budget that works, in bytes.
    """

    def __init__(self, problem: str, *, required_bytes: int, **details: str | None) -> None:
        self.required_bytes = required_bytes
        super().__init__(problem, **details)


class AuditError(KernelError):
    """A plan's kernel disagreed with a VJP followed by a JVP along a random direction."""


class TrackerError(KerneltrackError, ValueError):
    """The tracker cannot work with this trainer, module or set of arguments."""


class ForkError(KerneltrackError, ValueError):
    """A run cannot go on from a fork with what it is given."""


class RankError(KerneltrackError, RuntimeError):
    """Another process of the same training failed, and this one stops with it.

    Args:
        rank: of the process that failed.
        cause: what it said.
    """

    def __init__(self, rank: int, cause: str) -> None:
        self.rank, self.cause = rank, cause
        super().__init__(f"rank {rank} failed with {cause}")


class ArchiveError(KerneltrackError, OSError):
    """The archive cannot be created, written or opened."""


class ArchiveSizeError(ArchiveError):
    """A snapshot holds a column of another size or dtype than the archive has."""


class ArchiveExistsError(ArchiveError, FileExistsError):
    """There is already an archive of another run; nothing was overwritten."""


class ArchiveFormatError(ArchiveError):
    """The file is not a kerneltrack archive of a version that this reader knows, or is damaged."""


class UnsafeArchiveError(ArchiveFormatError):
    """The file holds something that a reader must not follow; nothing of it was read."""


class AnalysisError(KerneltrackError, ValueError):
    """The archives do not hold what this figure, table or comparison needs."""


class OutputError(AnalysisError):
    """Nothing may be written at this path: an archive, a folder, a device, or an ending that does not fit."""


class MissingPackageError(KerneltrackError, ModuleNotFoundError):
    """A package that kerneltrack needs here is not installed: torch and Lightning where archives are only read.

    Args:
        package: as pip calls it.
        remedy: what to install.
    """

    def __init__(self, package: str, remedy: str) -> None:
        super().__init__(f"this needs {package}, which is not installed", remedy=remedy)
        self.name = package

    def __reduce__(self) -> tuple[Any, ...]:
        return MissingPackageError, (self.name, self.remedy), vars(self)


#: Modules that are called otherwise by pip.
_CALLED = {"PIL": "pillow", "lightning": "pytorch-lightning", "pytorch_lightning": "pytorch-lightning"}
#: What an environment that only reads archives does without.
_OF_TRAINING = ("torch", "pytorch-lightning")


def missing_package(error: ModuleNotFoundError) -> MissingPackageError:
    """The same error, with what to install."""
    module = (error.name or "").partition(".")[0]
    package = _CALLED.get(module, module)
    if package in _OF_TRAINING:
        return MissingPackageError(
            package, "`pip install kerneltrack` brings it; archives are read and analysed without it."
        )
    return MissingPackageError(package, f"`pip install {package}` brings it.")


@contextmanager
def explaining_what_is_missing() -> Iterator[None]:
    """Stands around the imports at a door behind which torch or Lightning is needed.

    Raises:
        MissingPackageError: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        found = missing_package(error)
        if isinstance(error, MissingPackageError) or found.name not in _OF_TRAINING:
            raise
        raise found from error


def require_torch() -> None:
    """The first line of a room that needs torch, in front of its imports.

    Raises:
        MissingPackageError: torch is not installed.
    """
    with explaining_what_is_missing():
        importlib.import_module("torch")


def one_line(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
