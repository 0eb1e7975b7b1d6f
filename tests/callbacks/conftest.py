"""Lightning's advice is not about these trainings; their archives are joined once, when they are closed."""

import warnings

import pytest

from kerneltrack.archive import spool


@pytest.fixture(autouse=True, scope="module")
def joined_once():
    """Joining on the way is looked at in tests/archive; of a short training's time it is a tenth."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "FAN_IN", 64)
        yield


@pytest.fixture(autouse=True)
def quiet():
    """Lightning's advice on workers and logging intervals is not about these trainings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*is smaller than the logging interval.*")
        warnings.filterwarnings("ignore", message=".*the `treespec, LeafSpec` is deprecated.*")
        warnings.filterwarnings("ignore", message=".*`isinstance.treespec, LeafSpec.` is deprecated.*")
        yield
