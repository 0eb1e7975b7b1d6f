"""Whether a probe is trained on is told, and nothing is predicted of labels that the kernel has seen.

Oracles: how each probe was made, by construction; explicit refits of the stored kernels; the training without a tracker,
bit for bit.
"""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from kerneltrack import Probe, open_archive
from kerneltrack.analysis import load
from kerneltrack.callbacks import NTKTracker
from kerneltrack.callbacks.drawn_probe import validation_loader, validation_probe
from kerneltrack.callbacks.probe_membership import in_training
from kerneltrack.errors import ProbeError, TrackerError
from kerneltrack.observables.regression import RIDGE
from tests.callbacks.lightning_runs import trainer


def draws(seed, n=40):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=generator), torch.sign(torch.randn(n, 1, generator=generator))


X, Y = draws(1)
OTHERS = draws(2)


class Lazy(Dataset):
    """Samples that are read one by one, with noise from a generator of the data set's own."""

    def __init__(self, x, y, noise=0.0):
        self.x, self.y, self.noise, self.transform = x, y, noise, [np.random.default_rng(3)]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + self.noise * float(self.transform[0].standard_normal()), self.y[index]


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(X, Y, strict=True)


def judged(training, *, validation=None, given=None, batch=None):
    """What is said of a probe that is given, or drawn from the validation loader."""
    batch = batch or (torch.zeros(2, 3), torch.zeros(2, 1))
    if given is not None:
        return in_training(training, given, batch)
    fit = SimpleNamespace(val_dataloaders=validation, datamodule=None, lightning_module=nn.Linear(3, 1))
    one = validation_loader(fit)
    probe = validation_probe(fit, 8, loader=one, seed=0, split=None, name="val")
    return in_training(training, probe, batch, drawn="val", validation=one)


def loader(dataset, sampler=None):
    return DataLoader(dataset, batch_size=4, sampler=sampler)


WHOLE, NEW = TensorDataset(X, Y), TensorDataset(*OTHERS)
LAZY = Lazy(X, Y)
HELD_OUT = {"split": "validation"}
CASES = {
    # drawn from the validation loader
    "other data": (loader(WHOLE), {"validation": loader(NEW)}, "no"),
    "a list with one loader": (loader(WHOLE), {"validation": [loader(NEW)]}, "no"),
    "other data, read one by one": (loader(LAZY), {"validation": loader(Lazy(*OTHERS))}, "no"),
    "the training loader itself": (loader(LAZY), {"validation": loader(LAZY)}, "yes"),
    "the same tensors in another data set": (loader(WHOLE), {"validation": loader(TensorDataset(X[10:], Y[10:]))}, "yes"),
    "the same tensors in double precision": (loader(WHOLE), {"validation": loader(TensorDataset(X.double(), Y))}, "yes"),
    "a list of the same samples": (loader(list(WHOLE)), {"validation": loader(TensorDataset(X, Y))}, "yes"),
    "two halves": (loader(Subset(LAZY, range(20))), {"validation": loader(Subset(LAZY, range(20, 40)))}, "no"),
    "parts that overlap": (loader(Subset(LAZY, range(25))), {"validation": loader(Subset(LAZY, range(10, 20)))}, "yes"),
    "a part of a part": (
        loader(Subset(Subset(LAZY, range(0, 40, 2)), range(10))),
        {"validation": loader(Subset(LAZY, range(1, 40, 2)))},
        "no",
    ),
    "inside a concatenation": (loader(ConcatDataset([NEW, LAZY])), {"validation": loader(Subset(LAZY, range(8)))}, "yes"),
    "two samplers of one data set": (
        loader(LAZY, SubsetRandomSampler(range(20))),
        {"validation": loader(LAZY, SubsetRandomSampler(range(20, 40)))},
        "no",
    ),
    "two samplers that overlap": (
        loader(LAZY, SubsetRandomSampler(range(36))),
        {"validation": loader(LAZY, SubsetRandomSampler(range(28, 36)))},
        "yes",
    ),
    "several training loaders": ({"a": loader(NEW), "b": loader(WHOLE)}, {"validation": loader(WHOLE)}, "yes"),
    # given
    "without identity": (loader(WHOLE), {"given": Probe(*OTHERS)}, "unknown"),
    "without identity, trained on": (loader(WHOLE), {"given": Probe(X[3:5], Y[3:5])}, "yes"),
    "half of it trained on": (loader(WHOLE), {"given": Probe(torch.cat([X[:1], OTHERS[0]]), torch.cat([Y[:1], OTHERS[1]]))}, "yes"),
    "held out, it says": (loader(WHOLE), {"given": Probe(*OTHERS, identity=HELD_OUT)}, "no"),
    "held out, it says, and is not": (loader(WHOLE), {"given": Probe(X[:9], Y[:9], identity=HELD_OUT)}, "yes"),
    "trained on, it says": (loader(WHOLE), {"given": Probe(*OTHERS, identity={"split": "train"})}, "yes"),
    "drawn by hand from the training loader": (loader(LAZY), {"given": Probe.from_dataloader(loader(LAZY), 8)}, "yes"),
    "drawn by hand from another": (loader(LAZY), {"given": Probe.from_dataloader(loader(Lazy(*OTHERS)), 8)}, "unknown"),
    "in the first batch": (loader(Lazy(X, Y)), {"given": Probe(X[:9], Y[:9]), "batch": (X[8:12], Y[8:12])}, "yes"),
    "half precision": (loader(TensorDataset(X.bfloat16(), Y)), {"given": Probe(X[:4].bfloat16(), Y[:4])}, "yes"),
    "small integers": (
        loader(TensorDataset(torch.arange(6, dtype=torch.uint8), Y[:6])), {"given": Probe(torch.arange(2), Y[:2])}, "yes",
    ),
    "a stream": (loader(Stream()), {"given": Probe(X[:9], Y[:9])}, "unknown"),
    "a stream, in the first batch": (loader(Stream()), {"given": Probe(X[:9], Y[:9]), "batch": (X[:4], Y[:4])}, "yes"),
    "no loader that is known": (None, {"given": Probe(X[:9], Y[:9]), "batch": "words"}, "unknown"),
    "other inputs by key": (loader(WHOLE), {"given": Probe({"a": X, "b": X}, Y)}, "unknown"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_whether_a_probe_is_trained_on(case):
    training, made, expected = CASES[case]
    assert judged(training, **made) == expected


def test_a_loader_of_a_subset_gives_a_probe_of_that_subset():
    probe = Probe.from_dataloader(loader(LAZY, SubsetRandomSampler([31, 5, 17, 8])), 3)
    assert set(probe.identity["indices"]) < {5, 8, 17, 31}
    np.testing.assert_array_equal(probe.inputs.numpy(), X[probe.identity["indices"]].numpy())


class Net(pl.LightningModule):
    def __init__(self, width=100):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))
        self.losses = []

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        return (self(batch[0]) - batch[1]).square().mean() / 2

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.03)


class Validates(Net):
    def validation_step(self, batch, _, dataloader_idx=0):
        self.losses.append(float((self(batch[0]) - batch[1]).square().mean()))


PREDICTED = ["leave_one_out_error", "kernel_alignment_risk"]


@pytest.fixture(scope="module")
def memorised(tmp_path_factory):
    """An MLP that has learned 40 random labels, through its own points and through 40 that it has not seen."""
    path = tmp_path_factory.mktemp("memorised") / "run.h5"
    tracker = NTKTracker(
        path, probe={"train": 40, "val": 40}, schedule=100, loss="half_mse", keep_kernel="all", log=False,
        observables=[*PREDICTED, "kernel_regression_error", "kernel_target_alignment", "target_energy"],
    )  # fmt: skip
    one = trainer(tracker, max_steps=300, num_sanity_val_steps=0, limit_val_batches=1, check_val_every_n_epoch=1000)
    one.fit(Validates(), DataLoader(WHOLE, 40), DataLoader(NEW, 40))
    return path


def refitted(kernel, y):
    """Errors of kernel ridge regression at each point that was left out, by refits."""
    size = len(y)
    ridge, errors = RIDGE * np.trace(kernel) / size, np.empty(size)
    for point in range(size):
        rest = np.delete(np.arange(size), point)
        fitted = np.linalg.solve(kernel[np.ix_(rest, rest)] + ridge * np.eye(size - 1), y[rest])
        errors[point] = y[point] - kernel[point, rest] @ fitted
    return errors


def test_no_error_that_is_told_of_random_labels_is_below_one(memorised):
    """Law: what throws labels at random cannot be predicted; two standard errors of a mean of squares are allowed for.

    The negative control is what would be told of the points that were trained on: refits of the stored kernel.
    """
    with open_archive(memorised) as archive:
        rows, records = list(archive), archive.probes
        assert {name: record.in_training for name, record in records.items()} == {"train": "yes", "val": "no"}
        told = 0
        for name, record in records.items():
            y = record.targets[:, 0]
            for row in rows:
                errors = refitted(row.probes[name]["kernel"][:, :, 0, 0].astype(float), y)
                spread = np.std(errors**2, ddof=1) / np.sqrt(len(y)) / np.mean(y**2)
                for observable in (*PREDICTED, "kernel_regression_error"):
                    value = float(row.probes[name].get(observable, np.nan))
                    told += np.isfinite(value)
                    assert not value < 1 - 2 * spread, (name, row.step, observable)
                assert np.isfinite(float(row.probes[name]["kernel_target_alignment"]))
                assert np.isfinite(row.probes[name]["target_energy"]).all()
        assert told == 3 * len(rows) + 2  # of the held-out points always, of the others at step 0
        last = rows[-1].probes["train"]["kernel"][:, :, 0, 0].astype(float)
        assert np.mean(refitted(last, records["train"].targets[:, 0]) ** 2) < 0.5
        assert "the kernel has seen these labels" in rows[-1].message


def test_the_archive_says_so_and_the_analysis_goes_by_it(memorised):
    with h5py.File(memorised) as file:
        assert {n: p.attrs["probe_in_training"] for n, p in file["probes"].items()} == {"train": b"yes", "val": b"no"}
    held = load(memorised, probe="val").only
    assert (held.in_training, np.isfinite(held.values("leave_one_out_error")).all()) == ("no", True)


def test_predictions_by_regression_on_points_that_were_trained_on_are_refused(tmp_path):
    """Two probes of the training loader: the second is no test of the first."""
    path = tmp_path / "run.h5"
    tracker = NTKTracker(
        path, probe={"train": 20, "train_2": 30}, loss="half_mse", observables="kernel_regression_error", log=False
    )
    trainer(tracker, max_steps=2).fit(Net(5), DataLoader(WHOLE, 40))
    with open_archive(path) as archive:
        found = [float(row.probes["train_2"].get("kernel_regression_error", np.nan)) for row in archive]
        assert np.isfinite(found).tolist() == [True, False, False]
        assert "the kernel has seen these labels" in archive[-1].message


@pytest.mark.filterwarnings("ignore:.*sampler has shuffling enabled")
def test_a_held_out_probe_moves_no_generator(tmp_path):
    """Bit for bit: weights, the losses of validation, both loaders' generators, and those that the data sets hold."""

    def fit(*callbacks):
        pl.seed_everything(4, verbose=False)
        sets = Lazy(X, Y, noise=0.1), Lazy(*OTHERS, noise=0.1)
        generators = [torch.Generator().manual_seed(i) for i in (5, 6)]
        net = Validates(6)
        loaders = [DataLoader(s, 8, shuffle=True, generator=g) for s, g in zip(sets, generators, strict=True)]
        trainer(*callbacks, max_steps=12).fit(net, *loaders)
        states = [g.get_state().numpy().tobytes() for g in generators]
        states += [s.transform[0].bit_generator.state for s in sets]
        return [p.detach().numpy().tobytes() for p in net.parameters()], net.losses, states, torch.rand(3).tolist()

    alone = fit()
    watched = fit(NTKTracker(tmp_path / "run.h5", probe={"train": 8, "val": 8}, schedule=3, log=False))
    assert watched == alone
    assert fit(pl.callbacks.LambdaCallback(on_train_start=lambda *_: torch.rand(1))) != alone  # negative control


@pytest.mark.parametrize(
    ("loaders", "match"),
    [
        ((), "expected one validation DataLoader to draw samples from, got none"),
        (([DataLoader(NEW, 4), DataLoader(NEW, 4)],), "got 2 of them"),
    ],
)
def test_without_one_validation_loader_it_is_said(tmp_path, loaders, match):
    tracker = NTKTracker(tmp_path / "run.h5", probe={"train": 4, "val": 4}, log=False)
    with pytest.raises(TrackerError, match=match):
        trainer(tracker, max_steps=1).fit((Validates if loaders else Net)(4), DataLoader(WHOLE, 40), *loaders)


def test_a_name_says_which_loader():
    with pytest.raises(ProbeError, match=r'begins with "train" or "val".*Probe.from_dataloader'):
        NTKTracker("run.h5", probe={"train": 8, "test": 8})


def test_a_resumed_run_draws_the_same_probes(tmp_path):
    def fit(steps, checkpoint=None, **options):
        tracker = NTKTracker(tmp_path / "run.h5", log=False, observables="trace", **options)
        one = trainer(tracker, max_steps=steps, num_sanity_val_steps=0)
        one.fit(Validates(4), DataLoader(WHOLE, 40), DataLoader(NEW, 40), ckpt_path=checkpoint)
        one.save_checkpoint(tmp_path / "last.ckpt")

    fit(2, probe={"train": 8, "val": 6}, probe_seed=3, schedule=1)
    fit(4, checkpoint=tmp_path / "last.ckpt")
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 1, 2, 3, 4]
        assert {name: record.count for name, record in archive.probes.items()} == {"train": 8, "val": 6}
