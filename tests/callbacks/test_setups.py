"""Every set-up of a Trainer × {transparent, measured equal to the reference, resumed equal to uninterrupted}.

Oracle of transparency: the same seed without the tracker, bit for bit, at the end and around every batch. Oracle of the
numbers: the kernel by plain autograd of the network as a spy callback copied it at the same step, independently of the
tracker. Oracle of resuming: the archive of the run that was not interrupted. ``make setups`` writes the outcomes into
docs/setups.md.
"""

import gc
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from kerneltrack import Probe, open_archive, schedule
from kerneltrack.conventions import helmert
from kerneltrack.measurement import instrument
from kerneltrack.spectrum.decomposition import eigensystem
from tests.callbacks.comparisons import Saves, Spy, differences, run, tracker, train, unequal
from tests.callbacks.lightning_runs import Regressor, loader, trainer
from tests.callbacks.setups import SETUPS

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*requested to overfit.*", "ignore:.*has `shuffle=True`.*"),
    pytest.mark.filterwarnings(
        "ignore:.*Swapping scheduler.*", "ignore:.*experiencing.*", "ignore:.*lr_scheduler.step.*"
    ),
    pytest.mark.filterwarnings("ignore:.*barebones.*", "ignore:.*nested tensors.*", "ignore:.*nested_tensor.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*", "ignore:.*ended before the epoch ended.*"),
]

TRACKED = {}
#: What one set-up of these shows, the other would too: the same path of Lightning's loop, or of torch's.
TWINS = {
    "gradient clipping by value",
    "a submodule compiled in place",
    "sanity check",
    "inference_mode=False",
    "overfit_batches",
    "limit_train_batches, limit_val_batches",
    "frozen parameters",
    "detect_anomaly",
    "early stopping",
    "whole epochs",
    "validation within the epoch",
    "convolutional network",
    "a compiled LightningModule",
}
#: Every source of a number: products with J, an update, θ_0, Θ_0 and the state before. The first set-up has the default.
NUMBERS = [
    "trace", "probe_loss", "stability_ratio", "linearization_error", "anchored_linearization_error",
    "relative_kernel_change", "kernel_angular_velocity", "parameter_distance",
]  # fmt: skip


def watching(name, path, **options):
    """Pairs of states at 0, 4, 8; runs resumed within a group are looked at in test_groups.py."""
    numbers = {} if name == next(iter(SETUPS)) else {"observables": NUMBERS}
    return tracker(path, **{"schedule": schedule.Every(4, window=2), **numbers, **options, **SETUPS[name].tracker})


@pytest.fixture
def tracked(request, tmp_path_factory):
    """(archive, spy, what it left) of a tracked training of the set-up; run once for the two claims that look at it."""
    name = request.node.callspec.params["name"]
    if name not in TRACKED:
        path, spy, setup = tmp_path_factory.mktemp("setup") / "run.h5", Spy(), SETUPS[name]
        left = train(setup, spy, watching(name, path, keep_kernel="all"))[1]
        TRACKED[name] = path, spy, left
    return TRACKED[name]


#: What these do to the trainer is over before a checkpoint is written or begins anew after it: whether they are resumed
#: right is asked in the nightly run.
RESUMED_NIGHTLY = {
    "gradient clipping by norm",
    "gradient clipping by value",
    "a submodule compiled in place",
    "a compiled LightningModule",
    "sanity check",
    "inference_mode=False",
    "limit_train_batches, limit_val_batches",
    "overfit_batches",
    "early stopping",
    "detect_anomaly",
    "convolutional network",
    "activation checkpointing",
    "a compiled submodule",
    "bf16-mixed",
    "graph network by a callable",
    "whole epochs",
    "validation within the epoch",
    "frozen parameters",
    "frozen BatchNorm",
    # twins: gradients in flight are the harder manual step, Ctrl-C is an exception too; test_leading.py resumes leading pairs
    "manual optimization, two optimizers",
    "an exception",
    "leading eigenpairs",
}


def claim(column, without=None, nightly=()):
    """A test over all set-ups, or those that the claim is made of; the table's column is the claim."""

    def decorate(test):
        names = [n for n, setup in SETUPS.items() if not (without and getattr(setup, without))]
        test.column = column
        marked = [pytest.param(n, marks=pytest.mark.nightly) if n in nightly else n for n in names]
        return pytest.mark.parametrize("name", marked)(test)

    return decorate


@claim("transparent", nightly=TWINS)
def test_transparent(tracked, name):
    """Bit-equal weights, buffers, optimizer state, gradients in flight, generators, flags and logged losses."""
    path, _, left = tracked
    assert differences(left, train(SETUPS[name], Spy())[1]) == []
    if SETUPS[name].unmeasured:
        assert not path.exists()
        return
    with open_archive(path) as archive:
        assert len(archive) >= 3
        assert all(s.status == "ok" for s in archive)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:kerneltrack could not measure")
@claim("transparent, also when a measurement raises")
def test_transparent_when_measurements_raise_in_the_middle(tmp_path, monkeypatch, name):
    """Every second measurement raises once its kernel is there; the small version, for every guard, is in test_guards."""
    setup, calls = SETUPS[name], []

    def gives_up(*arguments, **options):
        calls.append(torch.rand(1))
        if len(calls) % 2 == 0:
            raise ValueError("in the middle")
        return eigensystem(*arguments, **options)

    monkeypatch.setattr(instrument, "solved", gives_up)
    left = train(setup, Spy(), watching(name, tmp_path / "run.h5", on_error="warn"))[1]
    assert len(calls) >= 3
    assert differences(left, train(setup, Spy())[1]) == []


@claim("measured equal to the reference", without="unmeasured", nightly=TWINS)
def test_measured_at_the_state_before_the_update(tracked, name):
    """Row by row through autograd on the copied network; products of up to a few hundred terms: 1e-5 of the trace."""
    path, spy, _ = tracked
    setup = SETUPS[name]
    with open_archive(path) as archive:
        indices = archive.probes["train"].identity["indices"]
        softmax = archive.probes["train"].settings["gauge"] == "softmax"
        measured = {s.step: torch.from_numpy(s.probes["train"]["kernel"]) for s in archive}
    inputs = probe_of(setup, indices).inputs
    common = sorted(measured.keys() & spy.modules.keys())
    assert len(common) >= 3
    for step in common:
        expected = by_autograd(spy.modules[step], inputs, setup.reference)
        trace = expected.diagonal(dim1=0, dim2=1).sum()
        if softmax:  # the reference is of the outputs as they are
            basis = torch.from_numpy(helmert(expected.shape[-1]).copy()).to(expected)
            expected = torch.einsum("nmop,oa,pb->nmab", expected, basis, basis)
        torch.testing.assert_close(measured[step], expected, rtol=0, atol=1e-5 * float(trace.abs().max()))


def probe_of(setup, indices):
    dataset = setup.dataset()
    batch = torch.utils.data.default_collate([dataset[i] for i in indices])
    split = setup.tracker.get("split")
    return Probe(*(split(batch) if split else batch))


def by_autograd(network, inputs, reference):
    """Θ (N, N, O, O): the gradient of every output at every sample by itself, and their products."""
    dtype = next(network.parameters()).dtype
    parameters = [p for p in network.parameters() if p.requires_grad]

    def sample(n):
        row = torch.utils._pytree.tree_map(lambda x: x[n : n + 1], inputs)
        return torch.utils._pytree.tree_map(lambda x: x.to(dtype) if x.is_floating_point() else x, row)

    count = len(torch.utils._pytree.tree_leaves(inputs)[0])
    gradients = []
    for n in range(count):
        outputs = reference(network, sample(n))[0]
        rows = [torch.autograd.grad(o, parameters, retain_graph=True, materialize_grads=True) for o in outputs]
        gradients.append(torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]))
    jacobian = torch.stack(gradients)
    return torch.einsum("nop,mqp->nmoq", jacobian, jacobian)


@claim("resumed equal to uninterrupted", without="unresumed", nightly=RESUMED_NIGHTLY)
def test_a_resumed_run_continues_its_archive_as_if_nothing_had_happened(tmp_path, name):
    """Without shuffling and dropout, whose generators no checkpoint of Lightning holds; the checkpoint is of mid-epoch."""
    setup, path, saved = SETUPS[name], tmp_path / "run.h5", tmp_path / "run.ckpt"
    plain = {"dropout": 0.0, "shuffle": False}
    module, _ = train(setup, watching(name, path), Saves(3, saved), **plain)
    shutil.copy(path, tmp_path / "whole.h5")
    resumed, _ = train(setup, watching(name, path), checkpoint=saved, **plain)
    assert differences(module.state_dict(), resumed.state_dict()) == []
    with (
        open_archive(tmp_path / "whole.h5") as whole,
        open_archive(path) as run,
        open_archive(path, all_segments=True) as every,
    ):
        assert len(every) > len(whole)
        assert unequal(whole, run) == []


def test_a_skipped_update_is_said_to_be_one(tmp_path):
    """Oracle: the weights themselves. The scale of 2^60 overflows at first, and the optimizer steps without moving."""
    weights = {}

    class Looks(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, *_):
            weights[trainer.global_step] = pl_module.layers[0].weight.detach().clone()

    setup = SETUPS["16-mixed, skipped updates"]
    train(setup, Looks(), tracker(tmp_path / "run.h5", schedule=1))
    with open_archive(tmp_path / "run.h5") as archive:
        said = {s.step: s.update_applied for s in archive}
        errors = {s.step: s.probes["train"].get("linearization_error", np.nan) for s in archive}
    moved = {step: not torch.equal(weights[step], weights[step + 1]) for step in weights if step + 1 in weights}
    assert len(moved) >= 6
    assert True not in moved.values() or False in moved.values()
    for step, applied in moved.items():
        assert said[step] == applied
        assert np.isfinite(errors[step]) == applied


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
    trainer(tracker(tmp_path / "run.h5", log=False), max_steps=4).fit(model, loader())
    before = len(compiled)
    assert before > 0
    model.train()
    model.layers(torch.randn(5, 3))
    assert len(compiled) > before


def test_ctrl_c_leaves_a_whole_archive(tmp_path):
    train(SETUPS["Ctrl-C"], tracker(tmp_path / "run.h5"))
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 1, 2, 3, 4]
    assert not (tmp_path / "run.h5.parts").exists()


class Counts(pl.Callback):
    """Live tensors and autograd nodes, and resident bytes, after some of the updates."""

    def __init__(self, steps):
        self.steps, self.objects, self.bytes = steps, [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step in self.steps:
            pl_module.losses.clear()
            gc.collect()
            self.objects.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.bytes.append(pages * resource.getpagesize())


def test_no_tensors_are_left_behind(tmp_path):
    """Oracle: the garbage collector's count of live tensors, after 3 and after 8 pairs of snapshots."""
    counts = Counts((6, 16))
    run(tracker(tmp_path / "run.h5", log=False), counts, max_steps=18)
    assert len(counts.objects) == 2
    assert counts.objects[1] <= counts.objects[0]


@pytest.mark.nightly
def test_memory_stays_flat_over_500_snapshots(tmp_path):
    """Live tensors stay as they are, and resident memory grows by less than 2 MiB over the last two hundred.

    Measured: 573 MiB at snapshots 300, 400 and 500. Before, the archive's joins of ever larger pieces make malloc's
    arenas grow. A snapshot of this probe is 20 kB, so two hundred that stayed in memory would be 4 MiB.
    """
    counts = Counts((300, 500))
    watched = tracker(tmp_path / "run.h5", schedule=1, log=False, probe=24)
    trainer(watched, counts, max_steps=501).fit(Regressor(), loader())
    assert counts.objects[1] <= counts.objects[0]
    assert counts.bytes[1] - counts.bytes[0] < 2 * 2**20


def test_no_hooks_are_left_behind(tmp_path):
    model = Regressor()
    trainer(tracker(tmp_path / "run.h5", log=False), max_steps=4).fit(model, loader())
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
        assert not module._forward_pre_hooks
    for parameter in model.parameters():
        assert not parameter._backward_hooks
        assert not parameter._post_accumulate_grad_hooks
    assert isinstance(model.layers, nn.Sequential)
