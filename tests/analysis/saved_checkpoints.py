"""A run's checkpoints: one before every update and one at the end, as ``kerneltrack track`` replays them."""

import pytorch_lightning as pl


class Saves(pl.Callback):
    """Writes ``ckpt/NAME.ckpt``; ``name`` makes NAME of the step."""

    def __init__(self, name=str):
        self._name = name

    def save(self, trainer):
        trainer.save_checkpoint(f"ckpt/{self._name(trainer.global_step)}.ckpt")

    def on_train_batch_start(self, trainer, *_):
        self.save(trainer)

    def on_train_end(self, trainer, *_):
        self.save(trainer)
