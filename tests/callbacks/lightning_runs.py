"""Small trainings that the tracker's tests share."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Regressor(pl.LightningModule):
    """Full of what a measurement could disturb: BatchNorm, dropout, a scheduler, momentum, a random number a step."""

    def __init__(self, *, width=6, batchnorm=True, dropout=0.2, momentum=0.9, rates=lambda step: 1.0, lr=0.05):
        super().__init__()
        norm = nn.BatchNorm1d(width) if batchnorm else nn.Identity()
        self.layers = nn.Sequential(
            nn.Linear(3, width), norm, nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(width, 1)
        )
        self._momentum, self._rates, self._lr, self._noise = momentum, rates, lr, 0.01 * bool(dropout)
        self.losses = []

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        x = x + self._noise * torch.randn_like(x) if self._noise else x
        return self.kept((self(x) - y).square().mean() / 2)

    @torch.compiler.disable
    def kept(self, loss):
        self.losses.append(loss.detach().clone())
        if not self.trainer.barebones:
            self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self._lr, momentum=self._momentum)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rates)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def data(n=24):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, 3, generator=generator)
    return TensorDataset(x, (x[:, :1] * x[:, 1:2]).sin())


def loader(n=24, batch_size=8, shuffle=True):
    return DataLoader(data(n), batch_size=batch_size, shuffle=shuffle)


def trainer(*callbacks, **options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    given = {"accelerator": "cpu", "max_steps": 12, **quiet, **options}
    return pl.Trainer(callbacks=list(callbacks), **given)
