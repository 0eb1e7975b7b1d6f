"""The reference of the public interface: which names stand on which page, and the pages as Sphinx reads them.

What a page says of a name is its docstring, which Sphinx takes from the installed package.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class Page:
    """One page of the reference.

    Attributes:
        title: its heading.
        intro: one paragraph, in reStructuredText.
        module: where the names are imported from, as a user would.
        sections: heading → names.
    """

    title: str
    intro: str
    module: str
    sections: Mapping[str, tuple[str, ...]]


PAGES: Mapping[str, Page] = {
    "kerneltrack": Page(
        "kerneltrack",
        "Kernels, probes and archives. Nothing here needs Lightning, and reading an archive does not load torch.",
        "kerneltrack",
        {
            "Kernels": ("empirical_ntk", "ntk_plan", "Plan", "NTKOperator", "linearize"),
            "Eigensystems": ("eigensystem", "EigenSystem", "kernel_estimates", "KernelEstimates"),
            "Probes": ("Probe",),
            "Tracking a loop": ("Tracker", "ForkLimits", "control_run"),
            "A kernel from elsewhere": ("snapshot_from_arrays", "ArraySnapshot"),
            "Archives": ("open_archive", "Archive", "ArchiveWriter"),
            "What an archive is made of": ("Snapshot", "ProbeRecord", "Provenance"),
        },
    ),
    "callbacks": Page(
        "kerneltrack.callbacks",
        "The tracker, a Lightning callback. :doc:`/how-to/tracker` shows it at work.",
        "kerneltrack.callbacks",
        {"": ("NTKTracker", "run_control")},
    ),
    "callbacks-transformers": Page(
        "kerneltrack.callbacks.transformers",
        "The tracker, a callback of Hugging Face's Trainer. :doc:`/how-to/hugging-face` shows it at work.",
        "kerneltrack.callbacks.transformers",
        {"": ("NTKTrackerCallback",)},
    ),
    "analysis": Page(
        "kerneltrack.analysis",
        "What is done with archives afterwards. The command line does the same: :doc:`/how-to/command-line`.",
        "kerneltrack.analysis",
        {
            "Runs": ("load", "Trajectory", "Run"),
            "What a change of the rate did": ("lr_decay_effects", "LrDecayEffects"),
            "What a run says": ("Summary", "Verdict", "Finding"),
            "What another rate would do": ("Forecast", "Course"),
        },
    ),
    "schedule": Page(
        "kerneltrack.schedule",
        "When to measure. :doc:`/how-to/tracker` shows the schedules side by side.",
        "kerneltrack.schedule",
        {
            "Schedules": ("Log", "Every", "At", "Epochs", "OnLearningRateChange", "OnMetricChange", "Seconds"),
            "A schedule of one's own": ("Schedule", "Union", "Clock", "Due", "Extent", "RateChange"),
            "Steps of the learning rates": ("StepRule", "StepDetector", "Kind", "Wanted", "wanted_of_all"),
            "Texts": ("parse", "read"),
        },
    ),
    "observables": Page(
        "kerneltrack.observables",
        "The formulas as plain functions of NumPy arrays, and the catalogue of named numbers. "
        ":doc:`/observables` says how each number is read.",
        "kerneltrack.observables",
        {},
    ),
    "regression": Page(
        "kerneltrack.regression",
        "Regression with a fixed kernel, by the eigenpairs of ``kerneltrack.eigensystem``: ridge and logistic, gradient flow and "
        "descent, the NTK-GP with its evidence, what each point adds, learning curves.",
        "kerneltrack.regression",
        {
            "Ridge and logistic": (
                "kernel_regression",
                "leave_one_out",
                "kernel_alignment_risk",
                "kernel_newton",
                "CrossEntropy",
                "MeanLoss",
                "Through",
            ),
            "Training with a fixed kernel": ("trained", "flow_filter", "descent_filter", "ensemble_covariance"),
            "The Gaussian process": (
                "posterior",
                "Posterior",
                "log_evidence",
                "most_evident",
                "Evidence",
                "information_gain",
                "laplace",
                "Laplace",
            ),
            "What each point adds": ("influence", "removal", "half_sets", "refitted", "linear_datamodelling_score"),
            "Two tasks": ("cross_size", "tangent_angles", "epsilon_rank"),
            "Learning curves": ("learning_curve", "effective_regularisation"),
        },
    ),
    "analytic": Page(
        "kerneltrack.analytic",
        "Kernels of infinitely wide networks of any activation, whole or layer by layer, and gradient flow under a fixed kernel. "
        ":doc:`/how-to/infinite-width` lays a measured kernel beside its limit.",
        "kerneltrack.analytic",
        {
            "Networks": ("ntk", "nngp", "cnn_ntk", "cnn_nngp", "relu_ntk", "relu_nngp", "biased_relu_ntk"),
            "Activations": ("dual_pair", "PiecewiseLinear", "Smooth"),
            "A fixed kernel": ("gradient_flow",),
        },
    ),
    "errors": Page(
        "kerneltrack.errors",
        "Every error that kerneltrack raises on purpose. :doc:`/faq` quotes the ones that people meet first.",
        "kerneltrack.errors",
        {},
    ),
}


#: What a public value is; it has no docstring of its own.
VALUES: Mapping[str, str] = {
    "Kind": 'What a change of the rates is: ``"step"``, ``"decay"`` (the first fall of a trend) or ``"other"``.',
    "Extent": 'How much of a state is measured: ``"whole"``, ``"kernel"`` (without its eigenpairs) or ``"outputs"`` alone.',
    "NEEDS": "Name → :class:`Need`: what must be measured for an observable, and what it costs.",
    "SUPERSEDED": "Name → :class:`Superseded`: observables of older archives, and which names took their place.",
}


def opened(page: Page) -> ModuleType:
    """The module of a page, reached as a user reaches it: ``kerneltrack.analytic`` is a name of ``kerneltrack``."""
    try:
        return importlib.import_module(page.module)
    except ModuleNotFoundError:
        package, _, name = page.module.rpartition(".")
        module: ModuleType = getattr(importlib.import_module(package), name)
        return module


def public_names(page: Page) -> tuple[str, ...]:
    """What the page's module offers: its ``__all__``, or what it defines itself; modules have pages of their own."""
    module = opened(page)
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]  # fmt: skip
    return tuple(name for name in names if not inspect.ismodule(getattr(module, name)))


def sections(page: Page) -> Mapping[str, tuple[str, ...]]:
    """Heading → names; a page that names none lists what its module offers, classes and functions apart."""
    if page.sections:
        return page.sections
    module = opened(page)
    names = public_names(page)
    parts = {
        "Classes": tuple(name for name in names if inspect.isclass(getattr(module, name))),
        "Functions": tuple(name for name in names if inspect.isroutine(getattr(module, name))),
    }
    parts["Data"] = tuple(name for name in names if name not in {*parts["Classes"], *parts["Functions"]})
    return {heading: found for heading, found in parts.items() if found}


def write(folder: Path) -> None:
    """Write every page, and the list of them."""
    folder.mkdir()
    for name, page in PAGES.items():
        (folder / f"{name}.rst").write_text("\n".join(_lines(page)), encoding="utf-8")
    (folder / "index.rst").write_text("\n".join(_index()), encoding="utf-8")


def _index() -> Iterator[str]:
    yield from _title("The interface", "=")
    yield "What is public, from the docstrings of the installed package. Names that stand here keep working; others may change.\n"
    yield ".. toctree::\n   :maxdepth: 1\n"
    yield from (f"   {name}" for name in PAGES)


def _lines(page: Page) -> Iterator[str]:
    yield from _title(page.title, "=")
    yield page.intro + "\n"
    module = opened(page)
    for heading, names in sections(page).items():
        if heading:
            yield from _title(heading, "-")
        for name in names:
            yield from _entry(f"{page.module}.{name}", getattr(module, name))


def _entry(name: str, value: object) -> Iterator[str]:
    """One name: a class with what it declares, a function, or a value."""
    if inspect.isclass(value):
        yield f".. autoclass:: {name}"
        yield "   :members:"
        yield "   :show-inheritance:\n" if issubclass(value, BaseException) else ""
    elif inspect.isroutine(value):
        yield f".. autofunction:: {name}\n"
    else:
        module, _, short = name.rpartition(".")
        yield f".. py:data:: {short}\n   :module: {module}\n\n   {VALUES[short]}\n"


def _title(text: str, line: str) -> Iterator[str]:
    yield text
    yield line * len(text) + "\n"
