"""Functions on scattered two-dimensional samples, interpolated to a pixel grid so that they can be seen.

The first input coordinate runs to the right and the second one downwards, as in a picture's pixels. Interpolation is
linear on the Delaunay triangles of the samples and nearest outside their hull: nothing is smoothed, so a noisy
eigenfunction looks noisy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerneltrack.errors import AnalysisError

from .trajectory import Floats, Run, missing


@dataclass(frozen=True, eq=False)
class Canvas:
    """Interpolation weights from samples to pixels, computed once for all images of a probe.

    Attributes:
        corners: (pixels, 3) indices of the samples around each pixel.
        weights: (pixels, 3) barycentric weights.
        rows: pixels downwards.
        columns: pixels to the right.
    """

    corners: np.ndarray
    weights: Floats
    rows: int
    columns: int

    @classmethod
    def of(cls, run: Run, pixels: int = 72) -> Canvas:
        """The canvas of a run's probe.

        Raises:
            AnalysisError: the archive does not hold the inputs, or they are not two-dimensional.
        """
        return cls.over(planar_inputs(run), pixels)

    @classmethod
    def over(cls, points: Floats, pixels: int) -> Canvas:
        """A square canvas over points (N, 2)."""
        from scipy.spatial import Delaunay, cKDTree

        low, high = points.min(axis=0), points.max(axis=0)
        unit = (points - low) / np.where(high > low, high - low, 1.0)
        centres = (np.arange(pixels) + 0.5) / pixels
        grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
        mesh = Delaunay(unit)
        triangle = mesh.find_simplex(grid)
        corners = mesh.simplices[triangle]
        transform = mesh.transform[triangle]
        two = np.einsum("pij,pj->pi", transform[:, :2], grid - transform[:, 2])
        weights = np.column_stack([two, 1 - two.sum(axis=1)])
        outside = (triangle < 0) | ~np.isfinite(weights).all(axis=1)
        corners[outside] = cKDTree(unit).query(grid[outside])[1][:, None]
        weights[outside] = (1.0, 0.0, 0.0)
        return cls(corners, weights, pixels, pixels)

    def paint(self, values: Floats) -> Floats:
        """Values (N,) or (N, M) on the samples → an image (rows, columns) or images (M, rows, columns)."""
        painted = np.einsum("pc,pc...->p...", self.weights, np.asarray(values, dtype=np.float64)[self.corners])
        images = np.moveaxis(painted, 0, -1).reshape(*painted.shape[1:], self.rows, self.columns)
        return np.asarray(images)


def planar_inputs(run: Run) -> Floats:
    """The probe's inputs (N, 2).

    Raises:
        AnalysisError: the archive does not hold them, or they are not two-dimensional.
    """
    if "inputs" not in run.dataset:
        raise missing("inputs", "drawing eigenfunctions as images", run.path)
    points = np.asarray(run.dataset["inputs"].values, dtype=np.float64).reshape(run.count, -1)
    if points.shape[1] != 2 or len(points) < 4:
        raise AnalysisError(
            "eigenfunctions are drawn as images over two-dimensional inputs", expected="inputs of shape (N, 2), N ≥ 4",
            got=tuple(run.dataset["inputs"].shape), where=run.path or None,
        )  # fmt: skip
    return points


def oriented_eigenvectors(run: Run, row: int, count: int) -> Floats:
    """The first eigenvectors (N, count) of one row and one kernel output, times √N, so that their mean square is 1.

    The sign of an eigenvector is free; here each leans towards the target (or, without targets, has a positive sum),
    so that a picture appears as itself and not as its negative.
    """
    run.require("eigenvectors", why="drawing eigenfunctions")
    stored = np.asarray(run.dataset["eigenvectors"].isel(snapshot=row).values, dtype=np.float64)
    vectors = stored[:, 0, :count]
    guide = np.asarray(run.dataset["targets"].values[:, 0], dtype=np.float64) if "targets" in run.dataset else np.ones(run.count)
    lean = guide @ vectors
    return np.asarray(vectors * np.where(lean < 0, -1.0, 1.0) * np.sqrt(run.count))
