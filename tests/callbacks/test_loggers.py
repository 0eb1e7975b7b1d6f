"""What the Trainer's loggers get of a run: figures and the report at its end, numbers as it goes.

Oracles: the picture that is drawn here of the same archive, pixel by pixel; the numbers in the archive; the same training
without a tracker.
"""

from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch.utils.data import DataLoader

from kerneltrack import open_archive
from kerneltrack.analysis import load
from kerneltrack.analysis.figures import STYLES, Scene, choose, registered, save_figure
from kerneltrack.callbacks import NTKTracker, logger_figures
from tests.callbacks.comparisons import differences
from tests.callbacks.lightning_runs import Regressor, data, trainer

GIVEN = {"probe": 24, "schedule": 2, "loss": "half_mse"}


class Logger(pl.loggers.Logger):
    """Keeps whatever it is given; ``takes`` are the methods that its experiment has beside those of every logger."""

    def __init__(self, *takes, images=False, **attributes):
        super().__init__()
        self.seen = []
        vars(self).update(attributes)
        self.own = SimpleNamespace(**{name: self._keeper(name) for name in takes})
        if images:
            self.log_image = self._keeper("log_image")

    def _keeper(self, name):
        return lambda *given, **options: self.seen.append((name, given, options, self._read(given, options)))

    def _read(self, given, options):
        """What a file holds must be read before it is gone."""
        paths = [
            value for value in (*given, *options.get("images", ())) if isinstance(value, str) and Path(value).exists()
        ]
        return [Path(path).read_bytes() for path in paths]

    name, version = "kept", 0

    @property
    def experiment(self):
        return self.own

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, *_, **__):
        pass


def fit(tracker, *loggers, steps=6, callbacks=(), **options):
    torch.manual_seed(3)
    module = Regressor(dropout=0.0)
    fitted = trainer(
        *([tracker] if tracker else []), *callbacks, max_steps=steps, logger=list(loggers) or False, **options
    )
    fitted.fit(module, DataLoader(data(), batch_size=8))
    return fitted, {
        "weights": dict(module.state_dict()),
        "random": torch.get_rng_state(),
        "figures": len(plt().get_fignums()),
    }


def plt():
    import matplotlib.pyplot

    return matplotlib.pyplot


def test_every_name_is_one_that_is_drawn():
    """The names stand below the analysis, which has them in one order."""
    assert list(logger_figures.FIGURES) == list(registered())


@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*")
def test_figures_and_the_report_are_handed_over_at_the_end(tmp_path):
    board, bias = Logger("add_figure"), Logger("log_artifact", images=True)
    names = ("target-energy", "stability", "class-levels")
    tracker = NTKTracker(tmp_path / "run.h5", log_figures=names, **GIVEN)
    with pytest.warns(UserWarning, match="'class-levels' is in no logger: .*class_diagonal"):
        _, left = fit(tracker, board, bias)
    assert differences(left, fit(None, Logger())[1]) == []
    run = load(tmp_path / "run.h5").only
    figures = {given[0]: (given[1], options) for name, given, options, _ in board.seen if name == "add_figure"}
    images = {options["key"]: (options, read) for name, _, options, read in bias.seen if name == "log_image"}
    assert list(figures) == list(images) == ["ntk/target-energy", "ntk/stability"]
    for name in names[:2]:
        path = tmp_path / f"{name}.png"
        save_figure(choose(name)(Scene(run, style=STYLES["paper"])), path, STYLES["paper"])
        figure, options = figures[f"ntk/{name}"]
        assert options == {"global_step": 6}
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn = np.asarray(canvas.buffer_rgba())[..., :3] / 255
        np.testing.assert_allclose(drawn, matplotlib.image.imread(path)[..., :3], atol=1 / 255)
        options, (picture,) = images[f"ntk/{name}"]
        assert (options["step"], picture) == (6, path.read_bytes())
    ((_, given, options, (page,)),) = [seen for seen in bias.seen if seen[0] == "log_artifact"]
    assert options == {"name": "run-report", "type": "report"}
    assert given[0].endswith("run.html")
    assert b"<html" in page[:300]
    assert b"run.h5" in page


DRAWN = {
    "stability": {"picture": "stability.png", "figure": "stability.pickle"},
    "report": {"page": "run.html"},
    "loss": {"error": "the archive has no loss"},
}


@pytest.fixture
def asked(monkeypatch):
    """What the other process is asked to draw; it draws nothing."""
    found = []

    def drawn(archive, folder, names):
        found.append(list(names))
        return {name: DRAWN[name] for name in names}

    monkeypatch.setattr(logger_figures, "_drawn", drawn)
    monkeypatch.setattr(logger_figures, "_figure", lambda files: files["figure"])
    return found


@pytest.mark.parametrize(
    ("logger", "names", "seen"),
    [
        (Logger("add_figure"), ["stability"], [("add_figure", ("ntk/stability", "stability.pickle"), {"global_step": 7})]),
        (Logger("add_figure", images=True), ["stability"],
         [("log_image", (), {"key": "ntk/stability", "images": ["stability.png"], "step": 7})]),
        (Logger("log_artifact", run_id="r1"), ["report"], [("log_artifact", ("r1", "run.html"), {})]),
        (Logger("log_asset"), ["report"], [("log_asset", ("run.html",), {})]),
        (Logger(), None, []),
        (SimpleNamespace(seen=[]), None, []),
    ],
)  # fmt: skip
def test_each_logger_is_given_what_it_can_take(asked, logger, names, seen):
    logger_figures.hand_over(Path("run.h5"), ("stability",), [logger], 7)
    assert asked == ([] if names is None else [names])  # nothing is drawn that nobody takes
    assert [found[:3] for found in logger.seen] == seen


def test_what_fails_is_a_warning_and_the_others_get_theirs(asked):
    class Closed(Logger):
        def __init__(self):
            super().__init__()
            self.log_image = self.refuses

        def refuses(self, **_):
            raise RuntimeError("the run has been finished")

    board = Logger("add_figure")
    with pytest.warns(UserWarning, match="is in no logger") as said:
        logger_figures.hand_over(Path("run.h5"), ("stability", "loss"), [Closed(), board], 7)
    assert [str(warning.message) for warning in said] == [
        "kerneltrack: 'loss' is in no logger: the archive has no loss",
        "kerneltrack: 'stability' is in no logger: RuntimeError: the run has been finished",
    ]
    assert [found[1][0] for found in board.seen] == ["ntk/stability"]


def test_a_process_that_fails_is_a_warning(tmp_path):
    with pytest.warns(
        UserWarning, match="'stability' is in no logger: the process that draws ended with 1: .*no such archive"
    ):
        logger_figures.hand_over(tmp_path / "missing.h5", ("stability",), [Logger("add_figure")], 7)


class Stops(pl.callbacks.EarlyStopping):
    """Looks after every update."""

    def on_train_batch_end(self, trainer, *_):
        self._run_early_stopping_check(trainer)

    def on_train_epoch_end(self, *_):
        pass


def test_the_numbers_are_there_for_early_stopping_and_checkpoints(tmp_path):
    """Oracle: the archive."""
    tracker = NTKTracker(tmp_path / "run.h5", **{**GIVEN, "schedule": 1})
    keeps = pl.callbacks.ModelCheckpoint(
        tmp_path, monitor="ntk/trace", mode="min", every_n_train_steps=1, save_top_k=-1, filename="{step}"
    )
    sees = Stops("ntk/probe_loss", patience=100, stopping_threshold=0.0, divergence_threshold=1e9)
    fitted, _ = fit(tracker, callbacks=(sees, keeps), steps=5, enable_checkpointing=True)
    with open_archive(tmp_path / "run.h5") as archive:
        rows = [(float(s.probes["train"]["trace"]), float(s.probes["train"]["probe_loss"])) for s in archive]
    kept = [float(score) for _, score in sorted(keeps.best_k_models.items())]
    np.testing.assert_allclose(kept, [trace for trace, _ in rows[:5]], rtol=1e-6)
    assert float(sees.best_score) == pytest.approx(min(loss for _, loss in rows[:5]), rel=1e-6)
    assert float(fitted.callback_metrics["ntk/trace"]) == pytest.approx(rows[5][0], rel=1e-6)


def test_numbers_that_are_not_logged_are_not_there(tmp_path):
    fitted, _ = fit(NTKTracker(tmp_path / "run.h5", log=False, **GIVEN), steps=3)
    assert not any(name.startswith("ntk/") for name in fitted.callback_metrics)
