"""Every common set-up of a Trainer: bit-identical with and without the tracker, and measured at the right states.

Oracle of transparency: the same seed without the tracker. Oracle of the numbers: the kernel by plain autograd of the
module as a spy callback copied it, at the same optimizer step, independently of the tracker.
"""

import copy

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from comparisons import differences, run, tracker
from torch import nn
from torch.utils.checkpoint import checkpoint
from trainings import Regressor, data, loader, trainer

from kerneltrack import open_archive


class Manual(Regressor):
    """Two optimizers that take turns by hand; each counts as a step of the trainer."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            loss = super().training_step(batch, batch_idx)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.layers[0].parameters(), lr=0.05), torch.optim.Adam(self.layers[4].parameters())]


class Compiled(Regressor):
    def __init__(self):
        super().__init__()
        self.layers = torch.compile(self.layers, backend="eager")


class Checkpointed(Regressor):
    def forward(self, x):
        return checkpoint(self.layers, x, use_reentrant=False)


class Validates(Regressor):
    def validation_step(self, batch, batch_idx):
        self.log("val", (self(batch[0]) - batch[1]).square().mean())

    def val_dataloader(self):
        return torch.utils.data.DataLoader(data(), batch_size=12)


class Plateau(Validates):
    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val"}}


class FrozenNorm(Regressor):
    """A BatchNorm whose statistics the user froze: train() would thaw it."""

    def on_train_start(self):
        self.layers[1].eval()


class Unscheduled(Regressor):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def swa():
    return pl.callbacks.StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)


def ema():
    return pl.callbacks.EMAWeightAveraging()


SETUPS = {
    "manual, two optimizers": (Manual, [], {}),
    "compiled": (Compiled, [], {}),
    "activation checkpointing": (Checkpointed, [], {}),
    "validation within the epoch": (Validates, [], {"val_check_interval": 2}),
    "no inference mode": (Validates, [], {"inference_mode": False}),
    "plateau scheduler": (Plateau, [], {"max_epochs": 4, "max_steps": -1}),
    "frozen BatchNorm": (FrozenNorm, [], {}),
    "weight averaging": (Regressor, [ema], {}),
    "stochastic weight averaging": (Unscheduled, [swa], {"max_epochs": 3, "max_steps": -1}),
    "overfit_batches": (Regressor, [], {"overfit_batches": 2}),
    "limit_train_batches": (Regressor, [], {"limit_train_batches": 2}),
    "early stopping": (
        Validates, [lambda: pl.callbacks.EarlyStopping("val", patience=1)], {"max_epochs": 6, "max_steps": -1},
    ),
    "detect_anomaly": (Regressor, [], {"detect_anomaly": True}),
}  # fmt: skip


@pytest.mark.parametrize(("model", "others", "options"), SETUPS.values(), ids=SETUPS)
@pytest.mark.filterwarnings("ignore:.*requested to overfit.*", "ignore:.*has `shuffle=True`.*")
@pytest.mark.filterwarnings("ignore:.*Swapping scheduler.*", "ignore:.*experiencing.*", "ignore:.*lr_scheduler.step.*")
def test_transparent(tmp_path, model, others, options):
    with_tracker = run(tracker(tmp_path / "run.h5"), *[make() for make in others], model=model, **options)
    assert differences(with_tracker, run(*[make() for make in others], model=model, **options)) == []
    with open_archive(tmp_path / "run.h5") as archive:
        assert len(archive) >= 3
        assert all(s.status == "ok" for s in archive)


class Spy(pl.Callback):
    """Copies the module at the start of each batch, before anything else could touch it."""

    def __init__(self):
        self.modules = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.modules.setdefault(trainer.global_step, copy.deepcopy(pl_module.layers).eval())


@pytest.mark.parametrize("model", [Regressor, Manual, Compiled, Checkpointed, FrozenNorm], ids=lambda m: m.__name__)
def test_measured_at_the_state_before_the_update(tmp_path, model):
    """Row by row through autograd on the copied module; float32 products of up to a hundred terms: 1e-5 of λ_1."""
    spy = Spy()
    run(spy, tracker(tmp_path / "run.h5", keep_kernel="all"), model=model, max_steps=6)
    with open_archive(tmp_path / "run.h5") as archive:
        x = data().tensors[0][np.array(archive.probes["train"].identity["indices"])]
        measured = {s.step: s.probes["train"]["kernel"][:, :, 0, 0] for s in archive}
    common = sorted(measured.keys() & spy.modules.keys())
    assert len(common) >= 3
    for step in common:
        module = getattr(spy.modules[step], "_orig_mod", spy.modules[step])
        parameters = list(module.parameters())
        gradients = [torch.autograd.grad(module(row[None]).squeeze(), parameters) for row in x]
        rows = [torch.cat([g.flatten() for g in gradient]) for gradient in gradients]
        expected = torch.stack(rows) @ torch.stack(rows).T
        np.testing.assert_allclose(measured[step], expected, atol=1e-5 * float(expected.diagonal().sum()))


def test_a_compiled_model_stays_compiled(tmp_path):
    """Oracle: the counter of the backend itself. After the tracker has measured, a new shape still reaches it."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    class Counted(Regressor):
        def __init__(self):
            super().__init__()
            self.layers = torch.compile(self.layers, backend=backend, dynamic=False)

    torch._dynamo.reset()
    model = Counted()
    trainer(tracker(tmp_path / "run.h5"), max_steps=4).fit(model, loader())
    before = len(compiled)
    assert before > 0
    model.train()
    model.layers(torch.randn(5, 3))
    assert len(compiled) > before


class Interrupt(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 5:
            raise KeyboardInterrupt


def test_ctrl_c_leaves_a_whole_archive(tmp_path):
    with pytest.raises(SystemExit):
        run(tracker(tmp_path / "run.h5"), Interrupt())
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 1, 2, 3, 4]
    assert not (tmp_path / "run.h5.parts").exists()


def test_memory_stays_flat(tmp_path):
    """Oracle: the number of live tensors, counted by the garbage collector after 3 and after 30 snapshots."""
    import gc

    counts = []

    class Count(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step in (6, 60):
                gc.collect()
                counts.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))

    run(tracker(tmp_path / "run.h5"), Count(), max_steps=62)
    # The losses that the module itself keeps are 54 more.
    assert counts[1] - counts[0] <= 54


def test_hidden_layers_keep_no_hooks(tmp_path):
    model = Regressor()
    trainer(tracker(tmp_path / "run.h5"), max_steps=4).fit(model, loader())
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
        assert not module._forward_pre_hooks
    assert isinstance(model.layers, nn.Sequential)
