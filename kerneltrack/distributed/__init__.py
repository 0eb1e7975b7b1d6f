"""The processes that measure together, and modules whose parameters are spread over them."""

from __future__ import annotations

from kerneltrack.distributed.ranks import Ranks
from kerneltrack.distributed.unsharded import is_sharded, unsharded, whole

__all__ = ["Ranks", "is_sharded", "unsharded", "whole"]
