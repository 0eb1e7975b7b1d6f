"""What a state costs at the tracker's defaults, counted: passes of the network over the whole probe, never seconds.

Oracle: the list of what there is to know. At θ_t: the outputs, the capture that the kernel and every product of the curvature
are made from, f_0 with J_0 (θ_t − θ_0) at the initial state, the outputs in training mode. After the update: the outputs; what
its linear models say is made of the same capture. Passes over a few samples, of checks and audits, are not counted; they do not
grow with the probe.
"""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kerneltrack import open_archive
from kerneltrack.callbacks import NTKTracker
from kerneltrack.measurement.instrument import Instrument

N = 24
#: Passes over the probe: of a measured state, and of what its update did.
BEFORE, AFTER = 3, 1


class Digits(pl.LightningModule):
    """A small convolutional network under Adam, which notes every pass over the whole probe."""

    def __init__(self):
        super().__init__()
        self.passes = []  # a list: what a measurement changes of attributes is put back
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10)
        )

    def forward(self, x):
        self.passes.extend([None] * (len(x) == N))
        return self.net(x)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def counted(call, model, found):
    """The same call, which appends to ``found`` how many passes of the model it has made."""

    def counting(*args, **options):
        before = len(model.passes)
        result = call(*args, **options)
        found.append(len(model.passes) - before)
        return result

    return counting


def test_a_state_at_defaults_takes_few_passes_over_the_probe(tmp_path, monkeypatch):
    """Products of the curvature by a backward and a tangent pass each made them 28, and 51 with ρ. Oracle: the list above."""
    pl.seed_everything(0, verbose=False)
    model, measured, completed = Digits(), [], []
    monkeypatch.setattr(Instrument, "measure", counted(Instrument.measure, model, measured))
    monkeypatch.setattr(Instrument, "complete", counted(Instrument.complete, model, completed))
    data = TensorDataset(torch.randn(40, 1, 6, 6), torch.arange(40) % 10)
    tracker = NTKTracker(tmp_path / "run.h5", probe=N, loss="cross_entropy", schedule=20, output="trace")
    trainer = pl.Trainer(
        max_steps=40,
        accelerator="cpu",
        callbacks=[tracker],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(data, batch_size=8))
    with open_archive(tmp_path / "run.h5") as rows:
        assert all(float(row.probes["train"]["gauss_newton_sharpness"]) > 0 for row in rows)
        assert float(rows[2].probes["train"]["stability_ratio"]) > 0  # Adam's threshold holds from update 30 on
    assert len(measured) == 3
    assert max(measured) <= BEFORE  # the last one, of which Lightning notes another hook, too
    assert max(completed) <= AFTER
