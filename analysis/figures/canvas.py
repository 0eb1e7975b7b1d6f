"""Functions on scattered two-dimensional samples, interpolated to a pixel grid so that they can be seen.

The first input coordinate runs to the right and the second one upwards, as in any plot; the probe's identity may hold
the picture's ``aspect`` (height over width). Interpolation is linear on the Delaunay triangles of the samples and
nearest outside their hull: nothing is smoothed, so a noisy eigenfunction looks noisy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerneltrack.errors import AnalysisError

from ..trajectory import Floats, Run
from ..withheld import missing


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
        aspect = (run.identity or {}).get("aspect", 1.0)
        return cls.over(planar_inputs(run), pixels, aspect if isinstance(aspect, int | float) else 1.0)

    @classmethod
    def over(cls, points: Floats, pixels: int, aspect: float = 1.0) -> Canvas:
        """A canvas over points (N, 2), ``pixels`` wide and ``aspect`` times as high (kept between 1/4 and 4)."""
        from matplotlib.tri import Triangulation
        from scipy.spatial import cKDTree

        low, high = points.min(axis=0), points.max(axis=0)
        unit = (points - low) / np.where(high > low, high - low, 1.0)
        rows = round(pixels * min(max(aspect, 0.25), 4.0))
        across, up = (np.arange(pixels) + 0.5) / pixels, 1 - (np.arange(rows) + 0.5) / rows
        grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
        try:
            mesh = Triangulation(unit[:, 0], unit[:, 1])
            # Not scipy's find_simplex: it solves every triangle with a threaded LAPACK, seconds on a busy machine.
            triangle = np.asarray(mesh.get_trifinder()(grid[:, 0], grid[:, 1]), dtype=np.intp)
        except (ValueError, RuntimeError) as error:
            raise AnalysisError(
                "the inputs lie on a line", expected="points that span a plane", got=str(error)
            ) from error
        corners = np.asarray(mesh.triangles)[triangle].astype(np.intp)
        weights = _barycentric(unit[corners], grid)
        outside = (triangle < 0) | ~np.isfinite(weights).all(axis=1)
        corners[outside] = np.asarray(cKDTree(unit).query(grid[outside])[1])[:, None]
        weights[outside] = (1.0, 0.0, 0.0)
        return cls(corners, weights, rows, pixels)

    @property
    def aspect(self) -> float:
        """Height over width."""
        return self.rows / self.columns

    def paint(self, values: Floats) -> Floats:
        """Values (N,) or (N, M) on the samples → one image (rows, columns) or M of them, top row first."""
        painted = np.einsum("pc,pc...->p...", self.weights, np.asarray(values, dtype=np.float64)[self.corners])
        images = np.moveaxis(painted, 0, -1).reshape(*painted.shape[1:], self.rows, self.columns)
        return np.asarray(images)


def _barycentric(triangles: Floats, points: Floats) -> Floats:
    """Weights (P, 3) of points (P, 2) in triangles (P, 3, 2), by ratios of signed areas."""
    a, b, c = np.moveaxis(triangles, 1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        second = _cross(points - a, c - a) / _cross(b - a, c - a)
        third = _cross(b - a, points - a) / _cross(b - a, c - a)
    return np.column_stack([1 - second - third, second, third])


def _cross(u: Floats, v: Floats) -> Floats:
    return np.asarray(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])


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
            "eigenfunctions are drawn as images over two-dimensional inputs",
            expected="inputs of shape (N, 2), N ≥ 4",
            got=tuple(run.dataset["inputs"].shape),
            where=run.path or None,
        )
    return points


def line_inputs(run: Run) -> Floats:
    """The probe's inputs (N,), one number each.

    Raises:
        AnalysisError: the archive does not hold them, or they are not one-dimensional.
    """
    if "inputs" not in run.dataset:
        raise missing("inputs", "drawing eigenfunctions over one input", run.path)
    points = np.asarray(run.dataset["inputs"].values, dtype=np.float64)
    if points.size != run.count:
        raise AnalysisError(
            "eigenfunctions are drawn as lines over one-dimensional inputs",
            expected="inputs of shape (N,) or (N, 1)",
            got=points.shape,
            where=run.path or None,
        )
    return points.ravel()


def oriented_eigenvectors(run: Run, row: int, count: int) -> Floats:
    """The first eigenvectors (N, count) of one row and one kernel output, times √N, so that their mean square is 1.

    The sign of an eigenvector is free: see :func:`orientation`.
    """
    run.require("eigenvectors", why="drawing eigenfunctions")
    vectors = run.at("eigenvectors", row)[:, 0, :count]
    return np.asarray(vectors * orientation(run, vectors) * np.sqrt(run.count))


def orientation(run: Run, vectors: Floats) -> Floats:
    """Signs (count,) for functions (N, count): one that is mostly of one sign is positive, any other leans towards the target.

    So a picture appears as itself and not as its negative.
    """
    sums = vectors.sum(axis=0)
    lean = run.seen(run.values("targets"))[:, 0] @ vectors if "targets" in run.dataset else sums
    # |Σv|/√N is the cosine with the constant function; above one half the function has, by and large, one sign.
    lean = np.where(np.abs(sums) > 0.5 * np.sqrt(run.count), sums, lean)
    return np.where(lean < 0, -1.0, 1.0)
