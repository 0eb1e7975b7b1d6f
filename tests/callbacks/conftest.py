"""Lightning's advice is not about these trainings."""

import warnings

import pytest


@pytest.fixture(autouse=True)
def quiet():
    """Lightning's advice on workers and logging intervals is not about these trainings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*is smaller than the logging interval.*")
        warnings.filterwarnings("ignore", message=".*the `treespec, LeafSpec` is deprecated.*")
        warnings.filterwarnings("ignore", message=".*`isinstance.treespec, LeafSpec.` is deprecated.*")
        yield
