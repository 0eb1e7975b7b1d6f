"""Every message that docs/faq.md quotes is raised, word for word. Oracle: the errors, one provoked for each quotation."""

import re

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import kerneltrack as kt
from kerneltrack.analysis import load
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.callbacks import NTKTracker
from tests.docs.running import blocks

torch.manual_seed(0)
X, Y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class OnlyTraining(Net):
    forward = pl.LightningModule.forward


class Named(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return {"x": X[index], "y": Y[index]}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class Shaped(nn.Module):
    """A linear layer whose result goes through a function."""

    def __init__(self, result):
        super().__init__()
        self.layer, self.result = nn.Linear(4, 2), result

    def forward(self, x):
        return self.result(self.layer, x)


def fit(data=None, module=None, *, batch=6, **tracker):
    callback = NTKTracker("run.h5", log=False, **tracker)
    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module or Net(), DataLoader(data or TensorDataset(X, Y), batch_size=batch))


def twice():
    fit(probe=4)
    fit(probe=4)


def closed():
    fit(probe=4)
    with kt.open_archive("run.h5") as archive:
        data = archive.to_xarray()
    return data.trace.values


def without_classes():
    fit(probe=4)
    choose("class-levels")(Scene(load("run.h5").only))


def of_text():
    with open("notes.h5", "w") as file:
        file.write("milk, bread\n")
    kt.open_archive("notes.h5")


def ntk(*layers, **options):
    return kt.empirical_ntk(nn.Sequential(*layers), X, **options)


#: One for each quotation, in the order of the page.
PROVOKED = [
    lambda: fit(Named(), probe=4),
    lambda: fit(Stream(), probe=4, batch=3),
    twice,
    lambda: NTKTracker("run.h5", schedule="logarithmic"),
    lambda: NTKTracker("run.h5", observables=["alignment"]),
    lambda: fit(module=OnlyTraining(), probe=4),
    lambda: ntk(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)),
    lambda: ntk(nn.Linear(4, 3), nn.Dropout(), nn.Linear(3, 2)),
    lambda: ntk(Shaped(lambda layer, x: layer(x - x.mean(0)))),
    lambda: ntk(Shaped(lambda layer, x: layer(x)[:, None].expand(-1, 3, -1))),
    lambda: ntk(Shaped(lambda layer, x: {"logits": layer(x), "aux": layer(x)})),
    lambda: ntk(nn.Linear(4, 2).requires_grad_(False)),
    lambda: ntk(nn.Linear(4, 2), memory_budget="10B"),
    lambda: fit(probe=kt.Probe(X, Y), loss="half_mse"),
    lambda: kt.open_archive("missing.h5"),
    of_text,
    without_classes,
    closed,
]
QUOTED = [block.strip() for block in blocks("faq", "text") if re.match(r"\w+Error: ", block)]


def without_numbers_of_the_network(message):
    """Of two messages the page itself says that their numbers are the reader's own."""
    for sentence in (r"got .* times what rounding explains", r"[\d.]+ on this batch, got [\d.]+ on the probe"):
        message = re.sub(sentence, "…", message)
    return message


def test_every_quotation_is_provoked():
    assert len(QUOTED) == len(PROVOKED)


@pytest.mark.parametrize(("quoted", "provoke"), [*zip(QUOTED, PROVOKED, strict=False)])
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*is smaller than the logging interval.*")
@pytest.mark.filterwarnings("ignore:.*no batch was trained.*")
def test_a_quoted_message_is_raised(quoted, provoke, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kt.errors.KerneltrackError) as raised:
        provoke()
    message = f"{type(raised.value).__name__}: {raised.value}".replace(str(tmp_path), "/home/you")
    assert without_numbers_of_the_network(message) == without_numbers_of_the_network(quoted)


def test_a_message_that_is_never_raised_is_told():
    """Negative control: two words changed in a quotation that has numbers of the reader's own."""
    quoted = next(block for block in QUOTED if "on this batch" in block)
    assert without_numbers_of_the_network(quoted) != without_numbers_of_the_network(
        quoted.replace("Name the", "Say the")
    )
    assert without_numbers_of_the_network(quoted) == without_numbers_of_the_network(quoted.replace("1.38465", "2.5"))
