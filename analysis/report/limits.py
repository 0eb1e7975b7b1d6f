"""Limits that turn a number into a word, where several statements share one."""

from __future__ import annotations

#: Of squared relative changes: less is lazy, as much or more is rich. One limit for all of them: 1 − cosine of a small angle θ is
#: θ²/2, half of the square, and a relative change is its root. Convention of this package; the literature names none.
LAZY, RICH = 0.01, 0.1
#: The stability ratio from which λ_1 is said to be at its bound: the plateau of the literature hovers within some 10 %.
AT_THE_EDGE = 0.95
