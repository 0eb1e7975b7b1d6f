"""The set-ups of tests/callbacks/setups.py in a plain loop, or Fabric's, that makes the updates that Lightning makes of them."""

import itertools
from contextlib import nullcontext

import pytorch_lightning as pl
import torch

from tests.callbacks.comparisons import STEPS, Resumable, generators

#: Set-ups that are a loop's matter, not one of Lightning's own (validation, callbacks, its flags).
NAMES = [
    "automatic optimization", "whole epochs", "gradient accumulation", "gradient clipping by norm",
    "gradient clipping by value", "manual optimization, two optimizers", "manual optimization, gradients in flight",
    "16-mixed, skipped updates", "bf16-mixed", "64-true", "a compiled submodule", "a submodule compiled in place",
    "a compiled LightningModule", "activation checkpointing", "frozen BatchNorm", "frozen parameters", "detect_anomaly",
    "an exception", "Ctrl-C", "convolutional network", "transformer, dict batches, last token", "leading eigenpairs",
    "graph network by a callable",
]  # fmt: skip


class Training:
    """One training of a set-up, step by step.

    Attributes:
        module: the network, seeded as tests/callbacks/comparisons.py seeds it.
        loader: as there.
        optimizers: with their schedulers, as configure_optimizers says.
    """

    def __init__(self, setup, *, fabric=False, shuffle=True, **options):
        pl.seed_everything(3, verbose=False)
        self.setup, self.options = setup, setup.options
        self.generator = torch.Generator().manual_seed(11)
        self.loader = Resumable(setup.dataset(), batch_size=6, shuffle=shuffle, generator=self.generator)
        self.whole = setup.model(**options)
        self.module = getattr(self.whole, "_orig_mod", self.whole)
        self.double = self.options.get("precision") == "64-true"
        if self.double:
            self.module.double()
        self.losses = []
        self.module.kept = self._kept
        self._schedulers()
        plugin = self.options.get("plugins")
        self.scaler = plugin().scaler if plugin else None
        self.fabric = self._fabric() if fabric else None
        self.module.manual_backward = self.backward
        self.module.optimizers = lambda: self.optimizers[0] if len(self.optimizers) == 1 else self.optimizers
        self.module.on_train_start()
        self.steps = self.counted = 0
        for optimizer in self.optimizers:
            optimizer.register_step_post_hook(lambda *_: setattr(self, "counted", self.counted + 1))

    def _kept(self, loss):
        self.losses.append(loss.detach().clone())
        return loss

    def _schedulers(self):
        found = self.module.configure_optimizers()
        self.scheduler = None
        if isinstance(found, dict):
            self.scheduler, found = found["lr_scheduler"]["scheduler"], found["optimizer"]
        self.optimizers = found if isinstance(found, list) else [found]

    def arithmetic(self):
        if self.fabric:
            return self.fabric.autocast()
        precision = {"bf16-mixed": torch.bfloat16}.get(self.options.get("precision"))
        precision = torch.float16 if self.scaler else precision
        return torch.autocast("cpu", dtype=precision) if precision else nullcontext()

    def run(self, tracker, *, each=lambda: None):
        """Train; ``each`` is called after every update."""
        last, epochs = self.options.get("max_steps", STEPS), self.options.get("max_epochs")
        window = self.options.get("accumulate_grad_batches", 1)
        window = 2 if type(self.module).__name__ == "Accumulates" else window
        with tracker, torch.autograd.set_detect_anomaly(bool(self.options.get("detect_anomaly"))):
            for epoch in range(epochs) if epochs else itertools.count(self.steps * window // len(self.loader)):
                loss = None
                # Lightning stops at the loader's length: the sampler's last draw, made at its exhaustion, is left out.
                for batch in itertools.islice(self.loader, len(self.loader) - self.loader.start):
                    index = self.loader.yielded - 1
                    if self.double:
                        batch = [x.double() for x in batch]
                    if index % window == 0:
                        tracker.before(batch, epoch=epoch)
                        self.counted = 0
                    else:
                        tracker.add(batch)
                    with self.arithmetic():
                        loss = self.module.training_step(batch, index)
                    if self.module.automatic_optimization:
                        self.backward(loss / window)
                    if (index + 1) % window == 0:
                        if self.module.automatic_optimization:
                            self.update(tracker)
                        self.steps += max(1, self.counted)
                        tracker.after(loss)
                        each()
                        if self.setup.raises and self.steps == 5:
                            raise KeyboardInterrupt if self.setup.raises is SystemExit else self.setup.raises
                    if self.steps == last:
                        return

    def _fabric(self):
        """Lightning Fabric, and what it wraps in the place of its own."""
        from lightning.fabric import Fabric  # a second of import, which few set-ups need
        from lightning.fabric.plugins.precision import MixedPrecision

        given = {"precision": self.options.get("precision")}
        if self.scaler:
            given = {"plugins": MixedPrecision("16-mixed", "cpu", scaler=self.scaler)}
        fabric = Fabric(accelerator="cpu", devices=1, **given)
        self.whole, *self.optimizers = fabric.setup(self.module, *self.optimizers)
        return fabric

    def backward(self, loss):
        if self.fabric:
            self.fabric.backward(loss)
            return
        (self.scaler.scale(loss) if self.scaler else loss).backward()

    def update(self, tracker):
        optimizer = self.optimizers[0]
        self.shorten(tracker)
        if self.scaler and not self.fabric:
            self.scaler.step(optimizer)
            self.scaler.update()
        else:
            optimizer.step()
        optimizer.zero_grad()
        if self.scheduler:
            self.scheduler.step()

    def shorten(self, tracker):
        """Clip the gradients, and tell of it."""
        kind, bound = self.clip or ("", None)
        if kind == "value" and self.fabric:
            self.fabric.clip_gradients(self.whole, self.optimizers[0], clip_val=bound)
        elif kind == "value":
            torch.nn.utils.clip_grad_value_(self.module.parameters(), bound)
        elif kind and self.fabric:
            tracker.clipped(self.fabric.clip_gradients(self.whole, self.optimizers[0], max_norm=bound))
        elif kind:
            tracker.clipped(torch.nn.utils.clip_grad_norm_(self.module.parameters(), bound))

    @property
    def clip(self):
        bound = self.options.get("gradient_clip_val")
        return (self.options.get("gradient_clip_algorithm", "norm"), bound) if bound else None

    @property
    def left(self):
        """What it leaves: everything that a later step could depend on."""
        return {
            "weights and buffers": {name: value.clone() for name, value in self.module.state_dict().items()},
            "optimizers": [o.state_dict() for o in self.optimizers],
            "losses": self.losses,
            "grad": [p.grad for p in self.module.parameters()],
            "generators": generators(self.generator),
            "flags": [m.training for m in self.module.modules()],
        }
