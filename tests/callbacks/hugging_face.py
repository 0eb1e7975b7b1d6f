"""A small classifier with the interface of transformers' models, its Trainer, and a plain loop that makes the same updates."""

import math
from contextlib import nullcontext

import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

import kerneltrack as kt
from kerneltrack import schedule
from kerneltrack.callbacks.transformers import NTKTrackerCallback
from tests.callbacks.comparisons import generators
from tests.tracking.untracked import Untracked

NUMBERS = ["trace", "probe_loss", "stability_ratio", "linearization_error", "target_energy"]
MEASURED = {"probe": 8, "loss": "cross_entropy", "schedule": schedule.Every(2, window=2), "observables": NUMBERS}


class Words(nn.Module):
    """Embeddings, averaged over what is not masked, and a head over three classes; dropout only in training."""

    def __init__(self, dropout=0.2):
        super().__init__()
        self.embedding, self.drop = nn.Embedding(11, 6), nn.Dropout(dropout)
        self.hidden, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, input_ids, attention_mask, labels=None):
        weights = attention_mask / attention_mask.sum(1, keepdim=True)
        averaged = (self.embedding(input_ids) * weights[..., None]).sum(1)
        logits = self.head(torch.tanh(self.hidden(self.drop(averaged))))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def sentences(n=26):
    """26 samples in batches of 4 are six full batches and one of two."""
    generator = torch.Generator().manual_seed(6)
    ids = torch.randint(0, 11, (n, 5), generator=generator)
    mask = torch.ones_like(ids)
    mask[::3, 3:] = 0
    return [{"input_ids": i, "attention_mask": m, "labels": int(i.sum() % 3)} for i, m in zip(ids, mask, strict=True)]


class Handing(Trainer):
    """Hands the tracker what events do not show: the loss of a batch, and the norm of the gradients."""

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.losses.append(loss.detach().clone())
        if self.tracker is not None:
            self.tracker.training_loss = loss * self.current_gradient_accumulation_steps
        return loss

    def _clip_grad_norm(self, model):
        norm = super()._clip_grad_norm(model)
        if self.tracker is not None:
            self.tracker.clipped(norm)
        return norm


def trainer(folder, *callbacks, model=Words, scaler=None, hands_over=None, data=None, eval_data=None, **arguments):
    """A Trainer of a new model on one core; ``hands_over`` is the tracker that is told of losses and norms."""
    torch.manual_seed(3)
    given = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 0.3, "optim": "sgd", "seed": 5}
    quiet = {
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_strategy": "no",
    }
    args = TrainingArguments(output_dir=str(folder), **{**quiet, **given, **arguments})
    made = Handing(
        model=model(), args=args, train_dataset=data or sentences(), eval_dataset=eval_data, callbacks=list(callbacks)
    )
    made.tracker, made.losses = hands_over, []
    if scaler is not None:
        made.accelerator.scaler = scaler()
    return made


class Overflowing(torch.amp.GradScaler):
    """A scaler on the CPU whose first two losses overflow, so that their updates are skipped."""

    def __init__(self):
        super().__init__("cpu", init_scale=4.0)
        self.overflows = [math.inf, math.inf]

    def scale(self, outputs):
        return super().scale(outputs) * (self.overflows.pop() if self.overflows else 1.0)


def left(made, **also):
    """What a training leaves: everything that a later step could depend on."""
    return {
        "weights": {name: value.clone() for name, value in made.model.state_dict().items()},
        "optimizer": made.optimizer.state_dict(),
        "losses": made.losses,
        "grad": [p.grad for p in made.model.parameters()],
        "generators": generators(torch.Generator()),
        "flags": [m.training for m in made.model.modules()],
        **also,
    }


def split(batch):
    """What the adapter takes for inputs and for targets, written here once more."""
    return {name: batch[name] for name in ("input_ids", "attention_mask")}, batch["labels"]


class Loop:
    """The updates of a Trainer in a plain loop: its loader, optimizer and schedule, and nothing else of it."""

    def __init__(self, folder, **arguments):
        self.scaler = arguments.pop("scaler", lambda: None)()
        self.told = arguments.pop("hands_over", False)
        self.source = trainer(folder, **arguments)
        self.args, self.model, self.losses = self.source.args, self.source.model, []
        self.loader = self.source.get_train_dataloader()
        if self.args.activation_checkpointing:
            self.model.activation_checkpointing_enable()
        window = self.args.gradient_accumulation_steps
        per_epoch = -(-len(self.loader) // window)
        self.total = self.args.max_steps if self.args.max_steps > 0 else per_epoch * self.args.num_train_epochs
        self.optimizer = self.source.create_optimizer()
        self.scheduler = self.source.create_scheduler(self.total, self.optimizer)

    def arithmetic(self):
        return torch.autocast("cpu", dtype=torch.bfloat16) if self.args.bf16 else nullcontext()

    def tracker(self, path, **options):
        bound = self.args.max_grad_norm or None
        given = {**MEASURED, "log": False, "split": split, "loader": self.loader, "clip": bound, **options}
        return kt.Tracker(path, self.model, self.optimizer, **given)

    def run(self, tracker=None):
        window, step, epoch = self.args.gradient_accumulation_steps, 0, 0
        with tracker or Untracked() as tracker:
            while step < self.total:
                self.loader.set_epoch(epoch)
                batches = list(self.loader)
                for first in range(0, len(batches), window):
                    self.update(tracker, batches[first : first + window], epoch)
                    step += 1
                    if step == self.total:
                        break
                epoch += 1

    def update(self, tracker, batches, epoch):
        tracker.before(batches[0], epoch=epoch)
        for index, batch in enumerate(batches):
            if index:
                tracker.add(batch)
            self.model.train()
            with self.arithmetic():
                loss = self.model(**batch).loss.float()
            self.losses.append((loss / len(batches)).detach())
            (self.scaler.scale(loss / len(batches)) if self.scaler else loss / len(batches)).backward()
        if self.args.max_grad_norm:
            if self.scaler:
                self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.args.max_grad_norm)
            if self.told:
                tracker.clipped(norm)
        scale = self.scaler.get_scale() if self.scaler else 0
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        if not self.scaler or self.scaler.get_scale() == scale:  # after a skipped step the rate stays
            self.scheduler.step()
        self.optimizer.zero_grad()
        handed = self.losses[-1] * len(batches) if self.told else None
        tracker.after(handed)


def watching(path, **options):
    return NTKTrackerCallback(path, **{**MEASURED, "log": False, **options})
