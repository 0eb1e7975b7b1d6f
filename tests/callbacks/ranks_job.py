"""What two ranks do in tests/callbacks/test_ranks.py: ``python ranks_job.py SCENARIO…``.

Every scenario returns plain values; each rank writes its own to ``SCENARIO.RANK.json``. A scenario that waits for a
message that will not come runs into the process group's time-out of 60 s and fails.
"""

import copy
import datetime
import functools
import json
import shutil
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[2]))  # run by path, a file's own folder comes first, not the root

from kerneltrack import Probe, open_archive, schedule
from kerneltrack.archive import ArchiveWriter
from kerneltrack.callbacks import NTKTracker
from kerneltrack.errors import ArchiveError
from kerneltrack.measurement import kernel_over_ranks
from tests.callbacks.comparisons import Resumable, Saves, differences, same, unequal
from tests.callbacks.lightning_runs import Regressor, data, trainer
from tests.two_ranks import as_each_rank

RANK = 0  # until this process knows which one it is
TIMEOUT = datetime.timedelta(seconds=60)
STEPS = 6


def ddp():
    return pl.strategies.DDPStrategy(process_group_backend="gloo", timeout=TIMEOUT)


def sharded():
    return pl.strategies.ModelParallelStrategy(
        data_parallel_size=2, tensor_parallel_size=1, process_group_backend="gloo", timeout=TIMEOUT
    )


class Sharded(Regressor):
    """FSDP2: both linear layers and what is left are sharded; the width 6 does not divide evenly by anything but 2."""

    def configure_model(self):
        from torch.distributed.fsdp import fully_shard

        mesh = self.device_mesh["data_parallel"]
        fully_shard(self.layers[0], mesh=mesh)
        fully_shard(self.layers, mesh=mesh)


class Spy(pl.Callback):
    """The network at the start of each batch, whole and in eval mode, before anything else could touch it."""

    def __init__(self):
        self.states = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        state = {k: full(v).detach().clone() for k, v in pl_module.layers.state_dict().items()}
        self.states.setdefault(trainer.global_step, state)


def full(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def fit(*callbacks, model=Regressor, strategy=ddp, checkpoint=None, shuffle=True, **options):
    """A training, and everything that it leaves on this rank."""
    pl.seed_everything(3, verbose=False)
    generator = torch.Generator().manual_seed(11)
    loader = Resumable(data(), batch_size=4, shuffle=shuffle, generator=generator)
    model = model()
    fitted = trainer(*callbacks, devices=2, strategy=strategy(), **{"max_steps": STEPS, **options})
    fitted.fit(model, loader, ckpt_path=checkpoint)
    states = [o.state_dict() for o in fitted.optimizers]
    return {
        "weights and buffers": {k: full(v).clone() for k, v in model.state_dict().items()},
        "optimizers": torch.utils._pytree.tree_map(lambda v: full(v) if isinstance(v, torch.Tensor) else v, states),
        "grad": [None if p.grad is None else full(p.grad) for p in model.parameters()],
        "losses": model.losses,
        "generators": (
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            generator.get_state().tolist(),
        ),
        "flags": [m.training for m in model.modules()],
    }


@functools.cache
def alone(model, strategy):
    """What the training leaves that nothing watches: run once for all the scenarios that compare with it."""
    return fit(model=model, strategy=strategy)


#: Numbers that need θ_0, Θ_0, the state before or the update: what a resumed run must know again.
REMEMBERING = (
    "linearization_error", "anchored_linearization_error", "relative_kernel_change", "kernel_angular_velocity",
    "parameter_distance", "kernel_distance_from_previous", "subspace_overlap_with_previous", "subspace_overlap_with_initial",
)  # fmt: skip


def tracker(name, **options):
    """Most scenarios are about when, by whom and whether it is measured: the kernel's trace shows that."""
    defaults = {"probe": 9, "schedule": schedule.Every(2, window=2), "loss": "half_mse", "log": False}
    defaults["observables"] = ["trace"]
    return NTKTracker(f"{name}.h5", **{**defaults, **options})


def by_autograd(state, x):
    """The kernel row by row through plain autograd, of an ordinary copy of the network."""
    layers = copy.deepcopy(Regressor().layers).eval()
    layers.load_state_dict(state)
    parameters = list(layers.parameters())
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(layers(r[None]).squeeze(), parameters)]) for r in x]
    return torch.stack(rows) @ torch.stack(rows).T


def kernel_errors(name, spy):
    """The largest error of each stored kernel against plain autograd on rank zero's network, relative to its trace."""
    with open_archive(f"{name}.h5") as archive:
        x = data().tensors[0][np.array(archive.probes["train"].identity["indices"])]
        kernels = {s.step: torch.from_numpy(s.probes["train"]["kernel"][:, :, 0, 0]) for s in archive}
    errors = {}
    for step in sorted(kernels.keys() & spy.states.keys()):
        expected = by_autograd(spy.states[step], x)
        errors[step] = float((kernels[step] - expected).abs().max() / expected.diagonal().sum())
    return errors


def whole(name, model, strategy):
    spy = Spy()
    watched = tracker(name, keep_kernel="all", observables="all")
    left = fit(spy, watched, model=model, strategy=strategy)
    means = {step: state["1.running_mean"].tolist() for step, state in spy.states.items()}
    return {
        "differences": differences(left, alone(model, strategy)),
        "errors": kernel_errors(name, spy) if RANK == 0 else {},
        "running means": means,
    }


def resumed(name, model, strategy):
    """Two runs in one archive: the second goes on from a checkpoint in the middle of the first's second epoch."""
    path, saved = Path(f"{name}.h5"), Path(f"{name}.ckpt")
    plain = {"model": lambda: model(dropout=0.0), "strategy": strategy, "shuffle": False}
    left = fit(tracker(name, observables=REMEMBERING), Saves(4, saved), **plain)
    if RANK == 0:
        shutil.copy(path, f"{name}.whole.h5")
    again = fit(tracker(name, observables=REMEMBERING), checkpoint=saved, **plain)
    wrong = [] if same(left["weights and buffers"], again["weights and buffers"]) else ["the training itself"]
    if RANK == 0:
        with open_archive(f"{name}.whole.h5") as whole, open_archive(path) as run:
            wrong += unequal(whole, run)
    return {"unequal": wrong}


def ddp_resumed():
    return resumed("ddp_resumed", Regressor, ddp)


def fsdp2_resumed():
    """Without BatchNorm: of buffers that differ between ranks, a distributed checkpoint keeps one rank's."""
    return resumed("fsdp2_resumed", functools.partial(Sharded, batchnorm=False), sharded)


def under_ddp():
    return whole("under_ddp", Regressor, ddp)


def under_fsdp2():
    return whole("under_fsdp2", Sharded, sharded)


class Adam(Regressor):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01, betas=(0.0, 0.999))  # ρ from the third update on


class ShardedAdam(Sharded):
    configure_optimizers = Adam.configure_optimizers


def stability(name, model, strategy):
    watched = tracker(name, schedule=schedule.Every(2, window=2, light=False), observables=["stability_ratio"])
    fit(watched, model=model, strategy=strategy)
    if RANK:
        return {}
    with open_archive(f"{name}.h5") as archive:
        return {str(s.step): float(s.probes["train"].get("stability_ratio", np.nan)) for s in archive}


def adam_ddp():
    return stability("adam_ddp", Adam, ddp)


def adam_fsdp2():
    return stability("adam_fsdp2", ShardedAdam, sharded)


def out_of_memory():
    """On rank one memory runs out twice, until the budget is a quarter of what it was."""
    computed, budgets = kernel_over_ranks._computed, []

    def scarce(tile, module, inputs, options):
        budgets.append(options["memory_budget"])
        if RANK == 1 and len(set(budgets)) < 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return computed(tile, module, inputs, options)

    kernel_over_ranks._computed = scarce
    try:
        watched = tracker("out_of_memory", memory_budget="1GiB", schedule=3)
        return {**outcome("out_of_memory", watched), "budgets": list(dict.fromkeys(map(str, budgets)))}
    finally:
        kernel_over_ranks._computed = computed


def breaks(rank, *, at):
    """A forward that gives up on one rank, from the measurement of step ``at`` on."""

    def forward(model, x):
        if rank == RANK and model.global_step >= at:
            torch.rand(3)
            raise ValueError("forward gave up")
        return model(x)

    return forward


def outcome(name, *callbacks, **options):
    """What became of a run: its error on this rank, how long it took, and what rank zero's archive holds."""
    began, said, heard = time.perf_counter(), None, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            left = fit(*callbacks, **options)
        except Exception as error:  # noqa: BLE001  # whatever it is, the test compares it
            said, left = f"{type(error).__name__}: {error}", None
        heard = [str(w.message) for w in caught if "could not measure" in str(w.message)]
    seconds = time.perf_counter() - began
    rows = []
    if RANK == 0 and name and Path(f"{name}.h5").exists():
        with open_archive(f"{name}.h5") as archive:
            rows = [(s.step, s.status, s.message) for s in archive]
    result = {"error": said, "seconds": seconds, "rows": rows, "warnings": heard}
    if left is not None:
        result["differences"] = differences(left, alone(Regressor, ddp))
    return result


def failing(name, rank, on_error):
    return outcome(name, tracker(name, forward=breaks(rank, at=2), on_error=on_error))


def leader_fails():
    return failing("leader_fails", 0, "raise")


def follower_fails():
    return failing("follower_fails", 1, "raise")


def leader_warns():
    return failing("leader_warns", 0, "warn")


def follower_warns():
    return failing("follower_warns", 1, "warn")


def archive_fails():
    """A disk that is full from the second row on; only rank zero writes."""
    append = ArchiveWriter.append

    def full_disk(self, snapshot):
        if snapshot.step:
            raise ArchiveError("the snapshot cannot be stored", got="no space left on device")
        append(self, snapshot)

    ArchiveWriter.append = full_disk
    try:
        return outcome("archive_fails", tracker("archive_fails"))
    finally:
        ArchiveWriter.append = append


def archive_exists():
    if RANK == 0:
        Path("archive_exists.h5").write_text("somebody else's")
    before = Path("archive_exists.h5").read_text() if RANK == 0 else ""
    found = outcome(None, tracker("archive_exists"))
    assert before == (Path("archive_exists.h5").read_text() if RANK == 0 else "")
    return found


class OtherClock(NTKTracker):
    """On rank one no second ever passes."""

    def _train_seconds(self):
        return 0.0 if RANK else super()._train_seconds()


def clocks_differ():
    watched = OtherClock("clocks_differ.h5", probe=5, schedule=schedule.Seconds(1e-9), observables=["trace"], log=False)
    return outcome("clocks_differ", watched)


def overhead():
    watched = OtherClock("overhead.h5", probe=5, schedule=1, max_overhead=1e-9, observables=["trace"], log=False)
    return outcome("overhead", watched)


class Augmented(TensorDataset):
    """Another sample at every look."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + torch.randn_like(x), y


def random_data():
    pl.seed_everything(RANK, verbose=False)
    watched = tracker("random_data", probe=5, schedule=3)
    drawn = {}

    class Looks(pl.Callback):
        def on_train_batch_start(self, *_):
            drawn["fingerprint"] = watched._probes["train"].fingerprint

    loader = DataLoader(Augmented(*data().tensors), batch_size=4)
    trainer(watched, Looks(), devices=2, strategy=ddp(), max_steps=2).fit(Regressor(), loader)
    return drawn


def too_small():
    """One sample for two ranks."""
    x, y = data(1).tensors
    return outcome("too_small", tracker("too_small", probe=Probe(x, y)))


def tensor_parallel():
    class Split(Regressor):
        def configure_model(self):
            from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

            plan = {"0": ColwiseParallel(), "4": RowwiseParallel()}
            parallelize_module(self.layers, self.device_mesh["tensor_parallel"], plan)

        def __init__(self):
            super().__init__(batchnorm=False, dropout=0.0)

    def strategy():
        return pl.strategies.ModelParallelStrategy(
            data_parallel_size=1, tensor_parallel_size=2, process_group_backend="gloo", timeout=TIMEOUT
        )

    return outcome("tensor_parallel", tracker("tensor_parallel"), model=Split, strategy=strategy)


def main(rank):
    global RANK
    RANK = rank
    warnings.filterwarnings("ignore")
    for name in sys.argv[1:]:
        Path(f"{name}.{RANK}.json").write_text(json.dumps(globals()[name]()))


if __name__ == "__main__":
    as_each_rank(main)
