"""Write docs/forecast-calibration.md: forecasts of decays beside what came, over small full-batch runs with their controls.

    python docs/forecast_calibration.py [--out DIR]

trains every run and its control (a minute on one core), forecasts at each decay, and writes the page. No number of it is
typed by hand, and no run is left out.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import kerneltrack as kt
from kerneltrack.analysis import load, lr_decay_effects
from kerneltrack.analysis.trajectory import controls_beside

PAGE = Path(__file__).with_name("forecast-calibration.md")
POINTS = 48
#: Updates after the decay at which run and control are measured.
AFTER = (1, 3, 10, 30, 100, 200)


@dataclass(frozen=True)
class Setting:
    """One run.

    Attributes:
        seed: of data and weights.
        rate: η before the decay.
        change: the update of the decay.
        factor: of the decay.
        loss: "half_mse" of one output, or "cross_entropy" of two classes.
        width: of both hidden layers.
        given: what SGD is given besides.
    """

    seed: int
    rate: float
    change: int
    factor: float = 0.5
    loss: str = "half_mse"
    width: int = 32
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """What it is, in a table."""
        momentum = f", momentum {self.given['momentum']:g}" if self.given else ""
        return f"{self.loss}, width {self.width}{momentum}, η {self.rate:g} ×{self.factor:g} at {self.change}"


SETTINGS = (
    Setting(0, 0.1, 300),
    Setting(1, 0.1, 300, factor=0.1),
    Setting(2, 0.2, 400, width=64),
    Setting(3, 0.05, 100),
    Setting(4, 0.3, 600),
    Setting(5, 0.2, 800),
    Setting(6, 0.05, 200, given={"momentum": 0.9}),
    Setting(7, 0.02, 400, factor=0.2, given={"momentum": 0.9}),
    Setting(8, 0.2, 200, loss="cross_entropy"),
    Setting(9, 0.5, 400, loss="cross_entropy"),
)


def data(setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    """POINTS points in four dimensions; a smooth function of two of them with noise, or its sign as two classes."""
    torch.manual_seed(setting.seed)
    x = torch.randn(POINTS, 4)
    y = torch.sin(2 * x[:, :1]) * x[:, 1:2] + 0.1 * torch.randn(POINTS, 1)
    return x, y if setting.loss == "half_mse" else (y[:, 0] > 0).long()


def scored(setting: Setting, path: Path, after: Sequence[int] = AFTER) -> Any:
    """The change of one run beside its control, both trained if they are not there.

    Returns:
        :class:`kerneltrack.analysis.lr_decay.ChangeEffects`.
    """
    if not path.exists():
        _train(setting, path, after)
    run = load(path).only
    return lr_decay_effects(run, controls_beside(run)).changes[0]


def _train(setting: Setting, path: Path, after: Sequence[int]) -> None:
    x, y = data(setting)
    outputs = 1 if setting.loss == "half_mse" else 2
    net = nn.Sequential(
        nn.Linear(4, setting.width), nn.Tanh(), nn.Linear(setting.width, setting.width), nn.Tanh(),
        nn.Linear(setting.width, outputs),
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=setting.rate, **setting.given)
    drop = torch.optim.lr_scheduler.MultiStepLR(optimizer, [setting.change], gamma=setting.factor)
    loader = DataLoader(TensorDataset(x, y), batch_size=POINTS)

    def update(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> torch.Tensor:
        inputs, targets = batch
        optimizer.zero_grad()
        found = model(inputs)
        half = (found - targets).square().sum(dim=1).mean() / 2 if setting.loss == "half_mse" else None
        loss = functional.cross_entropy(found, targets) if half is None else half
        loss.backward()
        optimizer.step()
        return loss

    observables = ["probe_loss", "linearization_error", "anchored_linearization_error", "stability_ratio"]
    with kt.Tracker(
        path, net, optimizer, probe=kt.Probe(x, y), loss=setting.loss, loader=loader, keep_forks=True, output="full",
        schedule=kt.schedule.OnLearningRateChange(after=(0, *after)), observables=observables, top_k=POINTS,
    ) as tracker:  # fmt: skip
        for _ in range(setting.change + after[-1]):
            for batch in loader:
                with tracker.update(batch) as now:
                    now.loss = update(net, optimizer, batch)
            drop.step()
    kt.control_run(tracker.forks[0], update, steps=after[-1])


_BY_RUN = [
    "run",
    "ρ",
    "horizon",
    "updates",
    "effect forecast",
    "measured",
    "forecast/measured",
    "within what is stated",
]
_BY_UPDATE = ["updates", "runs", "median", "from", "to", "stated error over measured effect, median", "within"]


def page(rows: Sequence[tuple[Setting, Any]]) -> str:
    """The page of what was measured."""
    return f"""# Forecasts of a decay, and what came

`kerneltrack forecast` says from one snapshot what another learning rate would do; a control says what it did
([how](how-to/did-my-decay-do-anything.md#forecast-it-then-check)). Here are {len(rows)} full-batch trainings on {POINTS}
points, tanh networks with two hidden layers, each with a decay and its control. Every forecast was made from the state before
the decay. The effect is the loss at the new rate less that at the old one, at the same update. What is stated is the error that
the measured linearisation errors allow until the horizon; beyond it nothing is forecast.

This page is generated: `python docs/forecast_calibration.py` trains the runs and writes it. None is left out.

## By run

At the last of the updates {_listed(AFTER)} that lies within the horizon. ρ is the normalised sharpness before the decay, at the old
rate; from 1 on the run stood at the edge of stability.

{_table(_BY_RUN, map(_by_run, rows))}

## By update

Of the runs whose horizon reaches that far: forecast over measured effect, its median and all of its spread; and how many
forecasts are off by no more than they state.

{_table(_BY_UPDATE, (_by_update(rows, k) for k in AFTER))}

{_verdict(rows)}

## Where it misses

- The kernel that a forecast holds still moves in truth: the more updates, the further the ratio may be from one.
- At the edge a mode that stands just below it in the snapshot is told to die out. In a network it is driven back up: the run that
  keeps its rate may go on oscillating.
"""


def _verdict(rows: Sequence[tuple[Setting, Any]]) -> str:
    told = [bool(w) for s in _scores(rows) for w in s.within[np.isfinite(s.predicted)]]
    lines = [f"Of all {len(told)} forecasts within a horizon {sum(told)} are off by no more than they state."]
    for setting, change in rows:
        if change.score is None:
            lines += ["", f"Not forecast: {setting.words}: {change.no_score}."]
    return "\n".join(lines)


def _by_run(row: tuple[Setting, Any]) -> list[str]:
    setting, change = row
    ratio = (
        change.before.numbers.get("stability_ratio", np.nan) / setting.factor
    )  # stored: of the update at the new rate
    if change.score is None or change.score.last is None:
        return [setting.words, f"{ratio:.2f}", *["–"] * 6]
    score, i = change.score, change.score.last
    return [
        setting.words,
        f"{ratio:.2f}",
        _horizon(score),
        str(score.updates[i]),
        f"{score.predicted[i]:+.2e} ± {score.error[i]:.1e}",
        f"{score.measured[i]:+.2e}",
        f"{score.ratio[i]:.2f}",
        "yes" if score.within[i] else "**no**",
    ]


def _horizon(score: Any) -> str:
    last = int(score.forecast.updates[-1])
    return f"≥ {last}" if score.forecast.horizon == last else str(score.forecast.horizon)


def _by_update(rows: Sequence[tuple[Setting, Any]], updates: int) -> list[str]:
    found = [(s, int(np.flatnonzero(s.updates == updates)[0])) for s in _scores(rows) if updates in s.updates]
    known = [(s, i) for s, i in found if np.isfinite(s.predicted[i])]
    if not known:
        return [str(updates), "0", *["–"] * 5]
    ratios = np.array([s.ratio[i] for s, i in known])
    stated = np.median([abs(s.error[i] / s.measured[i]) for s, i in known])
    within = sum(bool(s.within[i]) for s, i in known)
    numbers = [f"{value:.2f}" for value in (np.median(ratios), ratios.min(), ratios.max(), stated)]
    return [str(updates), str(len(known)), *numbers, f"{within} of {len(known)}"]


def _scores(rows: Sequence[tuple[Setting, Any]]) -> list[Any]:
    return [change.score for _, change in rows if change.score is not None]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"


def main() -> None:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/forecast-calibration"), help="folder of the archives")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    logging.getLogger("kerneltrack").setLevel(logging.ERROR)
    rows = []
    for setting in SETTINGS:
        (out / str(setting.seed)).mkdir(exist_ok=True)
        rows.append((setting, scored(setting, out / str(setting.seed) / "run.h5")))
    PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
