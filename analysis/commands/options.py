"""Arguments and options that several commands of the command line share: their names, types and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

ArchivePath = Annotated[Path, Argument(metavar="ARCHIVE", help="An archive, NAME.h5.")]
ArchivePaths = Annotated[list[Path], Argument(metavar="ARCHIVE...", help="One archive or several.")]
Output = Annotated[
    Path, Option("--output", "-o", help="The file to write, replaced if it exists; - is standard output.")
]
ProbeName = Annotated[str | None, Option("--probe", help="Which probe to look through; the first one by default.")]
StyleName = Annotated[
    Literal["paper", "slide", "dark"] | None, Option("--style", help="The look of a figure; paper by default.")
]
Picture = Annotated[
    Path | None, Option("--output", "-o", help="Write a figure: PNG, PDF or SVG by its ending; - is standard output.")
]
PictureFormat = Annotated[
    Literal["png", "pdf", "svg"] | None,
    Option("--format", help="Of what goes to -o - or a pipe, which have no ending; png by default."),
]
AsJson = Annotated[bool, Option("--json", help="Print JSON.")]
Loss = Annotated[
    Literal["half_mse", "mse", "cross_entropy"] | None,
    Option("--loss", metavar="NAME", help="half_mse, mse or cross_entropy: the loss, a mean over samples."),
]
Reduction = Annotated[
    Literal["auto", "full", "diagonal", "trace", "sum"],
    Option("--reduction", metavar="NAME", help="auto, full, diagonal, trace or sum: which outputs the kernel keeps."),
]
Gauge = Annotated[
    Literal["auto", "raw", "softmax"],
    Option("--gauge", metavar="NAME", help="auto, raw or softmax: without what a softmax loss does not see."),
]
Eigenpairs = Annotated[
    Literal["all", "leading"],
    Option("--eigenpairs", help="Which are computed: all, or the first --top-k by Lanczos, for large probes."),
]
MemoryBudget = Annotated[
    str | None,
    Option("--memory-budget", help="Bytes that a kernel may take, such as 2GiB; half of what is free by default."),
]
Model = Annotated[
    str | None, Option("--model", help="module:Class of the LightningModule, or a function that builds one.")
]
Factory = Annotated[
    str | None,
    Option(
        "--factory",
        metavar="MODULE:FUNCTION",
        help="Builds the network, any torch module: called without arguments, or with the checkpoint's hyper-parameters.",
    ),
]
Forward = Annotated[
    str | None,
    Option(
        "--forward", metavar="MODULE:FUNCTION", help="(model, inputs) -> outputs; by default the module's own call."
    ),
]
Params = Annotated[
    list[str] | None,
    Option("--params", help="A parameter that the kernel is of, or a pattern such as 'layers.2.*'; may be repeated."),
]
TopK = Annotated[int, Option("--top-k", min=1, help="How many eigenvectors a snapshot keeps.")]
Control = Annotated[
    Path | None,
    Option(
        "--control",
        help="An archive of the same run that did not change the learning rate: only with it anything is called an "
        "effect. Left away: what lies beside the archive and says that it is its control.",
    ),
]
Controls = Annotated[
    list[Path] | None,
    Option(
        "--control",
        help="An archive of the same seed that did not change the rate: only with it anything is called an effect. "
        "May be repeated, one for each seed. Left away: what lies beside each archive and says so.",
    ),
]
By = Annotated[
    Literal["step", "epoch", "samples", "flow_time", "loss"] | None,
    Option(
        "--by",
        metavar="NAME",
        help="What the runs are aligned on: step, which is the default, epoch, samples, loss, or flow_time, the sum "
        "of the learning rates times the gain of momentum.",
    ),
]
