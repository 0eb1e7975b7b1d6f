"""Metric: the diagonal P in which curvature is taken, and how well Lanczos tells the largest eigenvalue."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

#: P, one number or one entry a parameter.
Metric = float | Mapping[str, float | Tensor]
#: Residual relative to λ_1, which bounds its error. ρ is read to a percent at best; a thousandth leaves a digit in reserve,
#: and more in general: the error is about the square of the residual.
LANCZOS_TOLERANCE = 1e-3
