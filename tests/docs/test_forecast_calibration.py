"""The script of docs/forecast-calibration.md, at a smaller size. Oracles: the stored losses of the run and its control."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from kerneltrack.analysis import load

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("forecast_calibration", DOCS / "forecast_calibration.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for the annotations of its dataclass
    spec.loader.exec_module(module)
    return module


def test_a_row_is_what_run_and_control_stored(script, tmp_path):
    setting = script.Setting(0, 0.1, 12, width=8)
    change = script.scored(setting, tmp_path / "run.h5", after=(1, 3))
    text = script.page([(setting, change)])
    run, control = (load(tmp_path / name).only for name in ("run.h5", "run-control-12.h5"))
    effects = [
        run.values("probe_loss")[run.row(12 + k)] - control.values("probe_loss")[control.row(12 + k)] for k in (1, 3)
    ]
    np.testing.assert_allclose(change.score.measured, effects, rtol=1e-12)
    (row,) = re.findall(r"\| half_mse, width 8.*", text)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:4] == ["≥ 3", "3"]
    assert float(cells[5]) == pytest.approx(effects[1], rel=5e-3)
    assert float(cells[6]) == pytest.approx(change.score.predicted[1] / effects[1], abs=5e-3)
    assert cells[7] == ("yes" if abs(change.score.predicted[1] - effects[1]) <= change.score.error[1] else "**no**")
    assert "Of all 2 forecasts" in text


def test_the_page_has_every_run_of_the_script(script):
    """The page that stands in the docs is of these settings, and says their numbers for every update."""
    text = (DOCS / "forecast-calibration.md").read_text(encoding="utf-8")
    for setting in script.SETTINGS:
        assert f"| {setting.words} |" in text
    for k in script.AFTER:
        assert re.search(rf"^\| {k} \| \d+ \|", text, flags=re.MULTILINE)
