"""kerneltrack: a network's tangent kernel, tracked while the network trains.

Three nouns carry the whole: *kernel* (what is measured), *snapshot* (one measurement), *archive* (what is shared).
Names are loaded on first use, so that reading an archive loads neither torch nor Lightning.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    import kerneltrack.ntk.analytic as analytic
    from kerneltrack import errors, observables, regression, schedule
    from kerneltrack.archive import Archive, ArchiveWriter, open_archive
    from kerneltrack.from_arrays import ArraySnapshot, snapshot_from_arrays
    from kerneltrack.ntk import NTKOperator, Plan, empirical_ntk, linearize, ntk_plan
    from kerneltrack.probe import Probe
    from kerneltrack.snapshot import ProbeRecord, Provenance, Snapshot
    from kerneltrack.spectrum import EigenSystem, KernelEstimates, eigensystem, kernel_estimates
    from kerneltrack.tracking import ForkLimits, Tracker, control_run

__all__ = [
    "Archive",
    "ArchiveWriter",
    "ArraySnapshot",
    "EigenSystem",
    "ForkLimits",
    "KernelEstimates",
    "NTKOperator",
    "Plan",
    "Probe",
    "ProbeRecord",
    "Provenance",
    "Snapshot",
    "Tracker",
    "analytic",
    "control_run",
    "eigensystem",
    "empirical_ntk",
    "errors",
    "kernel_estimates",
    "linearize",
    "ntk_plan",
    "observables",
    "open_archive",
    "regression",
    "schedule",
    "snapshot_from_arrays",
]

#: Where each public name lives; a name that is its own module maps to that module.
_HOME = {
    "Archive": "kerneltrack.archive",
    "ArchiveWriter": "kerneltrack.archive",
    "open_archive": "kerneltrack.archive",
    "ArraySnapshot": "kerneltrack.from_arrays",
    "snapshot_from_arrays": "kerneltrack.from_arrays",
    "NTKOperator": "kerneltrack.ntk",
    "Plan": "kerneltrack.ntk",
    "empirical_ntk": "kerneltrack.ntk",
    "linearize": "kerneltrack.ntk",
    "ntk_plan": "kerneltrack.ntk",
    "Probe": "kerneltrack.probe",
    "ProbeRecord": "kerneltrack.snapshot",
    "Provenance": "kerneltrack.snapshot",
    "Snapshot": "kerneltrack.snapshot",
    "EigenSystem": "kerneltrack.spectrum",
    "eigensystem": "kerneltrack.spectrum",
    "KernelEstimates": "kerneltrack.spectrum",
    "kernel_estimates": "kerneltrack.spectrum",
    "ForkLimits": "kerneltrack.tracking",
    "Tracker": "kerneltrack.tracking",
    "control_run": "kerneltrack.tracking",
    "analytic": "kerneltrack.ntk.analytic",
    "errors": "kerneltrack.errors",
    "observables": "kerneltrack.observables",
    "regression": "kerneltrack.regression",
    "schedule": "kerneltrack.schedule",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":  # of the installed package, which setup.cfg names once
        return importlib.metadata.version("kerneltrack")
    if name not in _HOME:
        raise AttributeError(f"module 'kerneltrack' has no attribute {name!r}")
    from kerneltrack.errors import explaining_what_is_missing

    with explaining_what_is_missing():
        home = importlib.import_module(_HOME[name])
    value = home if home.__name__.rpartition(".")[2] == name else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
