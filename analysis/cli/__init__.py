"""The command line. Each command opens archives, asks the analysis, prints; it computes nothing itself.

Exit codes: 0 success; 1 a check failed, or the archives do not hold what was asked of them; 2 bad use or unreadable
input. Heavy imports stand inside the commands, so that ``kerneltrack --help`` answers at once and loads no plotting
library.
"""

from __future__ import annotations

from . import archives, effects, files, measuring  # each adds its commands, in the order of --help
from .app import app, main

__all__ = ["app", "archives", "effects", "files", "main", "measuring"]
