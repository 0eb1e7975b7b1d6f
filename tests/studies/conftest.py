"""Archives of these trainings are joined once, as those of tests/callbacks."""

from tests.callbacks.conftest import joined_once

__all__ = ["joined_once"]
