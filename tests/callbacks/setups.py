"""Every set-up of a Trainer that the tracker must fit: the module, its callbacks, the Trainer's options, what is measured.

tests/callbacks/test_setups.py runs each of them through three claims, and docs/setups.md is the table of the outcomes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from tests.callbacks.lightning_runs import Regressor, data


class Manual(Regressor):
    """Two optimizers that take turns by hand; each counts as a step of the trainer."""

    def __init__(self, **options):
        super().__init__(**options)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            loss = super().training_step(batch, batch_idx)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.layers[0].parameters(), lr=0.05), torch.optim.Adam(self.layers[4].parameters())]


class Accumulates(Regressor):
    """Manual optimization, two batches to an update: at the first batch end gradients are in flight."""

    def __init__(self, **options):
        super().__init__(**options)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.manual_backward(super().training_step(batch, batch_idx) / 2)
        if batch_idx % 2:
            optimizer = self.optimizers()
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class CompiledPart(Regressor):
    def __init__(self, **options):
        super().__init__(**options)
        self.layers = torch.compile(self.layers, backend="eager")


class CompiledInPlace(Regressor):
    def __init__(self, **options):
        super().__init__(**options)
        self.layers.compile(backend="eager")


def compiled(**options):
    return torch.compile(Regressor(**options), backend="eager")


class Checkpointed(Regressor):
    def forward(self, x):
        return checkpoint(self.layers, x, use_reentrant=False)


class Validates(Regressor):
    def validation_step(self, batch, batch_idx):
        self.log("val", (self(batch[0]) - batch[1]).square().mean())

    def val_dataloader(self):
        return DataLoader(data(), batch_size=12)


class Plateau(Validates):
    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val"}}


class FrozenNorm(Regressor):
    """A BatchNorm whose statistics the user froze: train() would thaw it."""

    def on_train_start(self):
        self.layers[1].eval()


class FrozenPart(Regressor):
    def __init__(self, **options):
        super().__init__(**options)
        self.layers[0].requires_grad_(False)

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.05)


class Unscheduled(Regressor):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Convolutional(Regressor):
    """The three numbers of a sample as an image of one row."""

    def __init__(self, **options):
        super().__init__(**options)
        self.layers = nn.Sequential(
            nn.Unflatten(1, (1, 1, 3)),
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 1),
        )


@dataclass
class Output:
    """What a Hugging Face model returns: a record, not a tensor."""

    logits: torch.Tensor


class Language(nn.Module):
    """Embedding, one attention block and a head over five words; dropout only in training."""

    def __init__(self, dropout):
        super().__init__()
        self.embedding = nn.Embedding(5, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=dropout, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, input_ids, attention_mask):
        hidden = self.block(self.embedding(input_ids), src_key_padding_mask=attention_mask == 0)
        return Output(self.head(hidden))


def sentences(n=24):
    generator = torch.Generator().manual_seed(6)
    ids = torch.randint(0, 5, (n, 6), generator=generator)
    mask = torch.ones_like(ids)
    mask[::3, :2] = 0
    return [{"input_ids": i, "attention_mask": m, "labels": i.sum() % 5} for i, m in zip(ids, mask, strict=True)]


class Transformer(Regressor):
    """Dict batches of Hugging Face style; the loss is on the last token."""

    def __init__(self, dropout=0.2, **options):
        super().__init__(dropout=dropout, **options)
        self.layers = Language(dropout)

    def forward(self, **inputs):
        return self.layers(**inputs)

    def training_step(self, batch, batch_idx):
        inputs, labels = of_language(batch)
        return self.kept(nn.functional.cross_entropy(self(**inputs).logits[:, -1], labels))


def of_language(batch):
    return {key: batch[key] for key in ("input_ids", "attention_mask")}, batch["labels"]


def last_token(model, inputs):
    return model(**inputs).logits[:, -1]


class Graphs(nn.Module):
    """Two rounds of messages between the four nodes of each graph, then their mean."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 1)

    def forward(self, nodes, edges):
        hidden = torch.tanh(self.first(edges @ nodes))
        return self.out(torch.tanh(self.second(edges @ hidden)).mean(1))


def graphs(n=24):
    generator = torch.Generator().manual_seed(7)
    nodes = torch.randn(n, 4, 3, generator=generator)
    edges = (torch.rand(n, 4, 4, generator=generator) < 0.5).float() + torch.eye(4)
    return TensorDataset(nodes, edges, nodes.mean((1, 2))[:, None])


class GraphNetwork(Regressor):
    def __init__(self, **options):
        super().__init__(**options)
        self.layers = Graphs()

    def training_step(self, batch, batch_idx):
        nodes, edges, y = batch
        return self.kept((self.layers(nodes, edges) - y).square().mean() / 2)


def of_graphs(batch):
    nodes, edges, y = batch
    return {"nodes": nodes, "edges": edges}, y


def on_graphs(model, inputs):
    return getattr(model, "layers", model)(inputs["nodes"], inputs["edges"])


def ema():
    return pl.callbacks.EMAWeightAveraging()


def swa():
    return pl.callbacks.StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)


def stops_early():
    return pl.callbacks.EarlyStopping("val", patience=1)


def half_precision():
    """16-mixed on the CPU, with a scale that overflows: the first updates are skipped."""
    return MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**60))


class Raises(pl.Callback):
    """Ends a training in its middle."""

    def __init__(self, error):
        self.error = error

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 5:
            raise self.error("in the middle of the training")


def breaks():
    return Raises(RuntimeError)


def interrupts():
    return Raises(KeyboardInterrupt)


@dataclass(frozen=True)
class Setup:
    """One set-up.

    Attributes:
        model: makes the module; takes ``dropout``.
        callbacks: make the callbacks beside the tracker.
        options: of the Trainer; a callable value is called for each Trainer.
        dataset: makes the dataset.
        tracker: arguments of the tracker that differ.
        reference: (module, inputs) → outputs of the copied ``layers``, for plain autograd.
        raises: what ends the training.
        unmeasured: why no kernel is compared, or "".
        unresumed: why the run is not resumed, or ""; Lightning's own reasons hold without the tracker, too.
    """

    model: Callable[..., Any] = Regressor
    callbacks: tuple[Callable[[], Any], ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    dataset: Callable[[], Any] = data
    tracker: dict[str, Any] = field(default_factory=dict)
    reference: Callable[[Any, Any], torch.Tensor] = lambda layers, x: layers(x)
    raises: type[BaseException] | None = None
    unmeasured: str = ""
    unresumed: str = ""


EPOCHS = {"max_steps": -1, "max_epochs": 3}
LANGUAGE = {"forward": last_token, "split": of_language, "loss": "cross_entropy", "output": "full"}

SETUPS = {
    "automatic optimization": Setup(),
    "whole epochs": Setup(options=EPOCHS),
    "gradient accumulation": Setup(options={"accumulate_grad_batches": 2}),
    "gradient clipping by norm": Setup(options={"gradient_clip_val": 0.1}),
    "gradient clipping by value": Setup(options={"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    "manual optimization, two optimizers": Setup(Manual),
    "manual optimization, gradients in flight": Setup(Accumulates),
    "16-mixed, skipped updates": Setup(options={"plugins": half_precision}),
    "bf16-mixed": Setup(options={"precision": "bf16-mixed"}),
    "64-true": Setup(
        options={"precision": "64-true"}, unresumed="Lightning restores 64-bit weights through single precision"
    ),
    "a compiled submodule": Setup(CompiledPart),
    "a submodule compiled in place": Setup(CompiledInPlace),
    "a compiled LightningModule": Setup(compiled),
    "activation checkpointing": Setup(Checkpointed),
    "frozen BatchNorm": Setup(FrozenNorm),
    "frozen parameters": Setup(FrozenPart),
    "validation within the epoch": Setup(Validates, options={"val_check_interval": 2}),
    "sanity check": Setup(Validates, options={"num_sanity_val_steps": 2}),
    "inference_mode=False": Setup(Validates, options={"inference_mode": False}),
    "limit_train_batches, limit_val_batches": Setup(
        Validates, options={**EPOCHS, "limit_train_batches": 2, "limit_val_batches": 1}
    ),
    "overfit_batches": Setup(options={"overfit_batches": 2}),
    "ReduceLROnPlateau": Setup(
        Plateau, options=EPOCHS, unresumed="Lightning resumed in mid-epoch validates, and so schedules, at other steps"
    ),
    "early stopping": Setup(Validates, (stops_early,), {"max_steps": -1, "max_epochs": 6}),
    "weight averaging (EMA)": Setup(callbacks=(ema,), unresumed="Lightning's average of a resumed run is another one"),
    "stochastic weight averaging": Setup(
        Unscheduled, (swa,), EPOCHS, unresumed="Lightning's SWA restarts its average"
    ),
    "detect_anomaly": Setup(options={"detect_anomaly": True}),
    "barebones": Setup(options={"barebones": True}, unresumed="a barebones Trainer writes no checkpoint"),
    "fast_dev_run": Setup(
        options={"fast_dev_run": 3},
        unmeasured="measured, and nothing written", unresumed="a fast_dev_run writes no checkpoint",
    ),
    "an exception": Setup(callbacks=(breaks,), raises=RuntimeError),
    "Ctrl-C": Setup(callbacks=(interrupts,), raises=SystemExit),
    "convolutional network": Setup(Convolutional),
    "transformer, dict batches, last token": Setup(
        Transformer, dataset=sentences, tracker=LANGUAGE, reference=last_token
    ),
    "leading eigenpairs": Setup(tracker={"eigenpairs": "leading", "top_k": 3}),
    "graph network by a callable": Setup(
        GraphNetwork, dataset=graphs, tracker={"forward": on_graphs, "split": of_graphs}, reference=on_graphs
    ),
}  # fmt: skip
