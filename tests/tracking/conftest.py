"""Archives of these trainings are joined once, and figures not placed, as those of tests/callbacks."""

from tests.callbacks.conftest import joined_once
from tests.drawing import unplaced

__all__ = ["joined_once", "unplaced"]
