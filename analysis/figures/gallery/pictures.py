"""What the network has learned and along which functions: as images over two inputs (NSA, Figs. 1, 5, 6), as lines over one."""

from __future__ import annotations

from matplotlib.figure import Figure

from ...derived import representative_rows
from ...text import subscript
from ..canvas import Canvas, line_inputs, oriented_eigenvectors
from ..layout import picture_sheet, row_label, sheet, steps_text
from ..panels import Series, functions, pictures
from ..registry import Scene, figure
from .films import image_film, line_film, sample_film

_SHOWN = 6
_LINES = 4


@figure(
    "outputs",
    "Target and output",
    "The target, the network's output at the first and the last snapshot, and what is still missing (the residual), "
    "on the probe's points, interpolated. Grey values share one scale; the residual has its own, red above and "
    "blue below zero. Of several outputs it is the first, and in the gauge of softmax (f₁ − f₂)/√2.",
    "inputs",
    "targets",
    "outputs",
    section="alignment",
)
def outputs(scene: Scene) -> Figure:
    """Target, first output, last output, last residual."""
    run = scene.run
    canvas = Canvas.of(run)
    rows = representative_rows(run, 2)
    first, last = rows[0], rows[-1]
    target, output = run.seen(run.values("targets"))[:, 0], run.seen(run.values("outputs"))[:, :, 0]
    shared = (float(target.min()), float(target.max()))
    page, axes = picture_sheet(scene, canvas, 1, 4)
    pictures(axes[0], canvas.paint(target), scene.style, title="target y", limits=shared)
    pictures(
        axes[1],
        canvas.paint(output[first]),
        scene.style,
        title=f"output, {steps_text(run.steps[first])}",
        limits=shared,
    )
    pictures(
        axes[2], canvas.paint(output[last]), scene.style, title=f"output, {steps_text(run.steps[last])}", limits=shared
    )
    missing = canvas.paint(output[last] - target)
    pictures(axes[3], missing, scene.style, title="output − target", kind="signed")
    return page


@figure(
    "eigenfunctions",
    "Top eigenfunctions, at the start and at the end",
    "The first eigenvectors of the tangent kernel as functions of the two inputs: top row at the first snapshot, "
    "bottom row at the last. Red is positive, blue negative; each is scaled to itself and turned to be positive or to "
    "lean towards the target, for an eigenvector's sign is free.",
    "inputs",
    "eigenvectors",
    "eigenvalues",
    section="alignment",
    film=image_film,
)
def eigenfunctions(scene: Scene) -> Figure:
    """The first six eigenfunctions at the first and the last snapshot."""
    run = scene.run
    canvas = Canvas.of(run)
    rows = representative_rows(run, 2)
    count = min(_SHOWN, int(run.dataset.sizes["vector"]))
    page, axes = picture_sheet(scene, canvas, len(rows), count)
    for j, row in enumerate(rows):
        images = canvas.paint(oriented_eigenvectors(run, row, count))
        for i, image in enumerate(images):
            ax = axes[j * count + i]
            pictures(ax, image, scene.style, kind="signed", title=f"v{subscript(i + 1)}" if j == 0 else "")
            if i == 0:
                row_label(ax, steps_text(run.steps[row]), scene.style)
    return page


@figure(
    "eigenfunction-lines",
    "Eigenfunctions over one input",
    "For a single input: the first eigenvectors of the tangent kernel as functions of it, and below them the network's "
    "output beside the target, at the first snapshot (left) and at the last (right). Each eigenvector has a mean square "
    "of one and leans towards the target, for its sign is free.",
    "eigenvectors",
    "outputs",
    section="alignment",
    film=line_film,
)
def eigenfunction_lines(scene: Scene) -> Figure:
    """v_1, …, v_4 and f with y over x, at the first and the last snapshot."""
    run, style, x = scene.run, scene.style, line_inputs(scene.run)
    rows, shown = representative_rows(run, 2), min(_LINES, int(run.dataset.sizes["vector"]))
    page, axes = sheet(scene, 2, len(rows), height=0.62, sharex=True)
    for j, row in enumerate(rows):
        vectors = oriented_eigenvectors(run, row, shown).T
        names = [f"v{subscript(i + 1)}" for i in range(shown)]
        lines = [Series(n, v, c) for n, v, c in zip(names, vectors, style.ordered(shown), strict=True)]
        functions(axes[j], x, lines, style, title=steps_text(run.steps[row])).set_xlabel("")
        learned = [Series("output f", run.seen(run.at("outputs", row))[:, 0], style.category[0])]
        if "targets" in run.dataset:
            learned.append(Series("target y", run.seen(run.values("targets"))[:, 0], style.muted, "dashed"))
        functions(axes[len(rows) + j], x, learned, style)
    return page


@figure(
    "eigenfunction-samples",
    "What the top eigenfunctions tell apart: their extreme samples",
    "For image-like inputs: one eigenfunction of the tangent kernel in each row, with the four samples of the probe at which it is "
    "least (left) and the four at which it is greatest (right); the number is its value there, and its mean square is one. Last "
    "snapshot; of several kept outputs the first. Signs are free: each is turned to be positive or to lean towards the target.",
    "eigenvectors",
    "eigenvalues",
    section="alignment",
    film=sample_film,
)
def eigenfunction_samples(scene: Scene) -> Figure:
    """The film's last moment."""
    return sample_film(scene).last()
