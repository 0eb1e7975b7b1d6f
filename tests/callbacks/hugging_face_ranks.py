"""What two ranks do in tests/callbacks/test_hugging_face.py: DistributedDataParallel over gloo, as torchrun starts it."""

import json
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # run by path, a file's own folder comes first, not the root

import kerneltrack as kt
from tests.callbacks.comparisons import differences
from tests.callbacks.hugging_face import left, sentences, trainer, watching


def trained(*callbacks):
    made = trainer("out", *callbacks, max_steps=4, ddp_backend="gloo")
    made.train()
    return made


if __name__ == "__main__":
    tracked, alone = trained(watching("run.h5")), trained()
    with kt.open_archive("run.h5") as archive:
        indices = archive.probes["train"].identity["indices"]
    inputs = {n: torch.stack([sentences()[i][n] for i in indices]) for n in ("input_ids", "attention_mask")}
    unequal = differences(left(tracked), left(alone))
    kernel = kt.empirical_ntk(tracked.model.eval(), inputs, output="trace", gauge="softmax")
    results = {"unequal": unequal, "trace": float(kernel.diagonal().sum())}
    Path(f"{os.environ['RANK']}.json").write_text(json.dumps(results))
