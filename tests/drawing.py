"""What of a drawing most tests do without."""

import pytest


@pytest.fixture(autouse=True)
def unplaced(monkeypatch):
    """Axes stay where they begin: to find them a place, everything is measured twice, for half of a drawing's time.

    A file that looks at where things stand has a fixture of that name that does nothing; so it is on ``page``, which is
    made before any test begins.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda engine, figure: None)
