"""The README's code runs as written, in its order. Oracle: the archive that it leaves behind."""

import re
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

README = Path(__file__).parent.parent / "README.md"


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*number of training batches.*is smaller than the logging interval.*")
def test_the_readme_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    data = TensorDataset(torch.randn(256, 4, 4), torch.randint(3, (256,)))
    names = {"model": Classifier(), "train_loader": DataLoader(data, batch_size=64)}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert names["archive"].steps.tolist() == [0, 1, 2, 3, 4, 6, 8]
    assert "[0 1 2 3 4 6 8]" in capsys.readouterr().out


def test_the_readme_names_files_that_exist():
    root = README.parent
    missing = [link for link in re.findall(r"\]\(([^)#:]+)\)", README.read_text()) if not (root / link).exists()]
    assert not missing
