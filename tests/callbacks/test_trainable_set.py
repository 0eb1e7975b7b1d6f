"""What trains may change during a training: it goes on, and no number compares different sets of parameters.

Oracle: copies of the module at every state, differentiated by torch.autograd.grad sample by sample in float64.
"""

import copy
import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kerneltrack import Probe, open_archive
from kerneltrack.callbacks import NTKTracker
from tests.callbacks.lightning_runs import trainer

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
Y = torch.sin(X[:, :1])
N = 10
#: One of each comparison; everything of the default is asked with Lightning's own callback below.
NAMES = [
    "anchored_linearization_error", "parameter_distance", "layer_parameter_distance", "jacobian_change", "layer_kernel",
    "gate_flips", "ledger_kernel_flow", "kernel_angular_velocity", "layer_share", "relative_kernel_change",
    "kernel_distance_from_initial", "cka_with_initial", "linearization_error",
]  # fmt: skip
OF_KERNELS = ("relative_kernel_change", "kernel_distance_from_initial", "cka_with_initial", "jacobian_change")


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head = nn.Sequential(nn.Linear(3, 6), nn.Tanh()), nn.Linear(6, 1)
        self.added = None

    @property
    def backbone(self):
        """The name under which BackboneFinetuning looks for it."""
        return self.body

    def forward(self, x):
        hidden = self.body(x)
        return self.head(hidden) if self.added is None else self.head(hidden) + self.added(hidden)

    def training_step(self, batch, batch_idx):
        loss = (self(batch[0]) - batch[1]).square().mean() / 2
        return loss if loss.requires_grad else None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Spy(pl.Callback):
    """Copies of the module before each update and at the end."""

    def __init__(self):
        self.states = {}

    def on_train_batch_start(self, trainer, module, *_):
        self.states.setdefault(trainer.global_step, self.copied(module))

    def on_train_end(self, trainer, module):
        self.states[trainer.global_step] = self.copied(module)

    def copied(self, module):
        twin = Net()
        twin.body, twin.head, twin.added = (copy.deepcopy(getattr(module, n)) for n in ("body", "head", "added"))
        return twin.double()


class At(pl.Callback):
    """Does something to the module at the start of an epoch (or before an update)."""

    def __init__(self, **acts):
        self.acts = {int(name.removeprefix("epoch")): act for name, act in acts.items()}

    def on_train_epoch_start(self, trainer, module):
        if act := self.acts.get(trainer.current_epoch):
            act(trainer, module)


def fit(path, *callbacks, watched=True, epochs=5, ckpt=None, **options):
    spy, module = Spy(), Net()
    if watched:
        options = {"schedule": 2, "observables": NAMES, "loss": "half_mse", "keep_kernel": "all", **options}
        callbacks = (*callbacks, NTKTracker(path, probe=Probe(X[:N], Y[:N], name="train"), log=False, **options))
    run = trainer(*callbacks, spy, max_steps=-1, max_epochs=epochs)
    run.fit(module, DataLoader(TensorDataset(X, Y), batch_size=6), ckpt_path=ckpt)
    return spy, [p.detach().clone() for p in module.parameters()]


def rows(path):
    with open_archive(path) as archive:
        return list(archive)


def jacobian(module, names):
    own = dict(module.named_parameters())
    wanted = [own[name].requires_grad_() for name in names]
    return torch.stack(
        [
            torch.cat([g.reshape(-1) for g in torch.autograd.grad(module(x[None]).squeeze(), wanted)])
            for x in X[:N].double()
        ]
    )


def flat(module, names):
    own = dict(module.named_parameters())
    return torch.cat([own[name].detach().reshape(-1) for name in names])


def outputs(module):
    with torch.no_grad():
        return module(X[:N].double())


EVERY = ["body.0.weight", "body.0.bias", "head.weight", "head.bias"]


def freeze(part):
    return lambda trainer, module: part(module).requires_grad_(False)


def thaw(part):
    return lambda trainer, module: part(module).requires_grad_(True)


FREEZES = {
    "a weight": {"epoch2": freeze(lambda m: m.body[0].weight)},
    "a layer": {"epoch2": freeze(lambda m: m.body)},
    "the head": {"epoch1": freeze(lambda m: m.head)},
    "one after the other": {"epoch1": freeze(lambda m: m.body[0].bias), "epoch3": freeze(lambda m: m.head)},
    "and thaws it again": {"epoch1": freeze(lambda m: m.body), "epoch3": thaw(lambda m: m.body)},
}


@pytest.fixture(scope="module", params=FREEZES)
def frozen(request, tmp_path_factory):
    """(case, rows, spy, parameters) of a training in which something freezes; run once for the two claims."""
    path = tmp_path_factory.mktemp("frozen") / "run.h5"
    with warnings.catch_warnings():  # set up before the filters of a test
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        spy, left = fit(path, At(**FREEZES[request.param]))
    return request.param, rows(path), spy, left


def test_what_freezes_has_moved_all_the_same(frozen):
    """J_0(θ_t − θ_0) and the distances are over all that trained at step 0. float32 training: differences to 1e-3."""
    case, found, spy, left = frozen
    _, alone = fit(None, At(**FREEZES[case]), watched=False)
    assert all(torch.equal(a, b) for a, b in zip(left, alone, strict=True))
    assert [row.step for row in found] == list(range(0, 21, 2))
    start = spy.states[0]
    J0, f0 = jacobian(start, EVERY), outputs(start)
    for row in found[1:]:
        now, values = spy.states[row.step], row.probes["train"]
        moved = flat(now, EVERY) - flat(start, EVERY)
        change = outputs(now) - f0
        error = float((J0 @ moved[:, None] - change).square().sum() / change.square().sum())
        assert float(values["anchored_linearization_error"]) == pytest.approx(error, rel=5e-3, abs=1e-6), row.step
        assert float(values["parameter_distance"]) == pytest.approx(float(moved.norm()), rel=1e-4)
        layers = [float((flat(now, names) - flat(start, names)).norm()) for names in (EVERY[:2], EVERY[2:])]
        assert values["layer_parameter_distance"] == pytest.approx(layers, rel=1e-4, abs=1e-7)


def test_kernels_of_different_parameters_are_not_compared(frozen):
    """The kernel itself is that of what trains now, the layers' shares too; a distance to another kernel is withheld."""
    case, found, spy, _ = frozen
    earlier = None
    for row in found:
        now, values = spy.states[row.step], row.probes["train"]
        names = [n for n in EVERY if trains_at(case, n, row)]
        J = jacobian(now, names)
        kernel = J @ J.T
        np.testing.assert_allclose(values["kernel"][:, :, 0, 0], kernel, atol=1e-5 * float(kernel.max()))
        parts = [
            sum(float(jacobian(now, [n]).square().sum()) for n in names if n.startswith(layer))
            for layer in ("body", "head")
        ]
        np.testing.assert_allclose(values["layer_share"], np.array(parts) / sum(parts), rtol=1e-4, atol=1e-7)
        if set(names) != set(EVERY):
            assert not set(OF_KERNELS) & set(values)
            assert "the kernel is of other parameters than at step 0 (without" in row.message
        elif row.step:
            J0 = jacobian(spy.states[0], EVERY)
            first = J0 @ J0.T
            change = float((kernel - first).norm() / first.norm())
            assert float(values["relative_kernel_change"]) == pytest.approx(change, rel=1e-3)
        assert ("kernel_angular_velocity" in values) == (earlier is not None and set(names) == set(earlier))
        earlier = names


def trains_at(case, name, row):
    """By hand: which parameters train in the epoch of a row (its update's; the last row's is the last epoch)."""
    epoch = row.step // 4 if row.step < 20 else 4
    frozen = {
        "a weight": {2: ["body.0.weight"]},
        "a layer": {2: ["body.0.weight", "body.0.bias"]},
        "the head": {1: ["head.weight", "head.bias"]},
        "one after the other": {1: ["body.0.bias"], 3: ["body.0.bias", "head.weight", "head.bias"]},
        "and thaws it again": {1: ["body.0.weight", "body.0.bias"], 3: []},
    }[case]
    return name not in next((frozen[e] for e in sorted(frozen, reverse=True) if e <= epoch), [])


@pytest.mark.parametrize("params", [None, EVERY], ids=str)
def test_a_layer_that_thaws_had_its_place_from_the_start(tmp_path, params):
    """Frozen it has share 0. The columns are of one size whoever trains, and so are what their names say."""
    acts = {"epoch2": thaw(lambda m: m.body), "epoch3": freeze(lambda m: m.head)}
    trained = {0: EVERY[2:], 1: EVERY[2:], 2: EVERY, 3: EVERY[:2], 4: EVERY[:2]}
    own = {"observables": ["layer_share", "layer_kernel"], "params": params}
    spy, _ = fit(tmp_path / "run.h5", Begins(freeze(lambda m: m.body)), At(**acts), **own)
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.probes["train"].settings["layers"] == ["body.0", "head"]
        found = list(archive)
    assert {row.status for row in found} == {"ok"}
    for row in found:
        names = trained[min(row.step // 4, 4)]
        parts = []
        for layer in ("body", "head"):
            own_names = [n for n in names if n.startswith(layer)]
            J = jacobian(spy.states[row.step], own_names) if own_names else torch.zeros(N, 1).double()
            parts.append(J @ J.T)
        values, total = row.probes["train"], float(sum(parts).trace())
        np.testing.assert_allclose(values["layer_share"], [float(p.trace()) / total for p in parts], rtol=1e-4)
        for kernel, part in zip(values["layer_kernel"], parts, strict=True):
            np.testing.assert_allclose(kernel[:, :, 0, 0], part, atol=1e-5 * float(sum(parts).max()))


def test_a_run_is_resumed_whose_named_parameters_have_frozen(tmp_path):
    """The names were checked when the run began. Frozen they have share 0, and the rows before are as they were."""
    own = {"params": ["body.0.weight", "head.weight"], "observables": ["layer_share"]}
    keep = At(epoch2=lambda trainer, module: trainer.save_checkpoint(tmp_path / "8.ckpt"))
    spy, _ = fit(tmp_path / "run.h5", keep, epochs=3, **own)
    fit(tmp_path / "run.h5", Begins(freeze(lambda m: m.body)), ckpt=tmp_path / "8.ckpt", **own)
    found = rows(tmp_path / "run.h5")
    assert [row.step for row in found][:7] == list(range(0, 13, 2))
    for row in found:
        parts = (
            [float(jacobian(spy.states[row.step], [n]).square().sum()) for n in own["params"]] if row.step < 8 else []
        )
        expected = [part / sum(parts) for part in parts] or [0, 1]
        np.testing.assert_allclose(row.probes["train"]["layer_share"], expected, rtol=1e-4)


def add_to_optimizer(trainer, module):
    torch.manual_seed(7)
    module.added = nn.Linear(6, 1)
    trainer.optimizers[0].add_param_group({"params": list(module.added.parameters()), "lr": 0.1})


def replace_head(width):
    def act(trainer, module):
        torch.manual_seed(8)
        module.head = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 1))
        trainer.optimizers[0].add_param_group({"params": list(module.head.parameters()), "lr": 0.1})

    return act


def another_activation(trainer, module):
    module.body[1] = nn.ReLU()


CHANGES = {
    "thaws": (
        freeze(lambda m: m.body),
        {"epoch2": thaw(lambda m: m.body)},
        "parameters train that did not at step 0: body",
    ),
    "thaws and freezes": (
        freeze(lambda m: m.body),
        {"epoch2": thaw(lambda m: m.body), "epoch3": freeze(lambda m: m.body)},
        "something else than the trained parameters has moved since step 0",
    ),
    "adds": (None, {"epoch2": add_to_optimizer}, "parameters train that did not at step 0: added.weight, added.bias"),
    "replaces": (
        None,
        {"epoch2": replace_head(5)},
        "parameters of the initial network are gone: head.weight, head.bias",
    ),
    "computes otherwise": (
        None,
        {"epoch2": another_activation},
        "something else than the trained parameters has moved",
    ),
}


class Begins(pl.Callback):
    def __init__(self, act):
        self.act = act

    def on_fit_start(self, trainer, pl_module):
        if self.act:
            self.act(trainer, pl_module)


def chosen_with(case):
    """Every change with all parameters, two with a part of them; the rest in the nightly run."""
    for params in (None, ["head.weight"], "the head's"):
        quick = params is None or (case, params) in (("replaces", ["head.weight"]), ("thaws", "the head's"))
        yield pytest.param(case, params, marks=() if quick else pytest.mark.nightly, id=f"{case}-{params}")


@pytest.mark.parametrize(("case", "params"), [each for case in CHANGES for each in chosen_with(case)])
def test_what_cannot_be_compared_is_missing_and_says_why(tmp_path, case, params):
    begin, acts, why = CHANGES[case]
    chosen = params if isinstance(params, list | None) else is_of_the_head

    def callbacks():
        return Begins(begin), At(**acts)

    _, left = fit(tmp_path / "run.h5", *callbacks(), params=chosen)
    _, alone = fit(None, *callbacks(), watched=False)
    assert all(torch.equal(a, b) for a, b in zip(left, alone, strict=True))
    found = rows(tmp_path / "run.h5")
    assert [row.step for row in found] == list(range(0, 21, 2))
    for row in found:
        changed = row.step >= (12 if case == "thaws and freezes" else 8)
        if not changed:
            assert ("anchored_linearization_error" in row.probes["train"]) == (0 < row.step < 8)
        elif case == "replaces" and params == ["head.weight"]:
            assert (row.status, row.probes) == ("failed", {})
            assert "no parameter trains that the kernel of train is of" in row.message
        else:
            assert "anchored_linearization_error" not in row.probes["train"]
            assert why.split(":")[0] in row.message
    same_kernel = case in ("thaws and freezes", "computes otherwise") or (case != "replaces" and params is not None)
    assert ("relative_kernel_change" in found[-1].probes.get("train", {})) == same_kernel


def is_of_the_head(name):
    return name.startswith("head")


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(
    ("params", "on_error"),
    [
        (None, "raise"),
        (["head.weight", "head.bias"], "warn"),
        pytest.param(None, "warn", marks=pytest.mark.nightly),
        pytest.param(["head.weight", "head.bias"], "raise", marks=pytest.mark.nightly),
    ],
)
def test_backbone_finetuning(tmp_path, params, on_error):
    """Lightning's own callback, with the tracker's default settings and with the parameters of the head."""

    def callback():
        return pl.callbacks.BackboneFinetuning(unfreeze_backbone_at_epoch=2, backbone_initial_lr=0.01)

    own = {"observables": "default", "params": params, "on_error": on_error}
    spy, left = fit(tmp_path / "run.h5", callback(), **own)
    _, alone = fit(None, callback(), watched=False)
    assert all(torch.equal(a, b) for a, b in zip(left, alone, strict=True))
    found = rows(tmp_path / "run.h5")
    assert [(row.step, row.status) for row in found] == [(step, "ok") for step in range(0, 21, 2)]
    for row in found:
        names = EVERY if row.step >= 8 and params is None else EVERY[2:]
        J = jacobian(spy.states[row.step], names)
        kernel = row.probes["train"]["kernel"][:, :, 0, 0]
        np.testing.assert_allclose(kernel, J @ J.T, atol=1e-5 * kernel.max())


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@pytest.mark.parametrize("params", [None, ["head.weight"]], ids=str)
def test_where_nothing_trains_there_is_a_row_without_a_kernel(tmp_path, params):
    act = freeze(lambda m: m) if params is None else freeze(lambda m: m.head)
    _, left = fit(tmp_path / "run.h5", At(epoch2=act), params=params)
    _, alone = fit(None, At(epoch2=act), watched=False)
    assert all(torch.equal(a, b) for a, b in zip(left, alone, strict=True))
    found = rows(tmp_path / "run.h5")
    assert {row.step: row.status for row in found if row.step <= 6} == dict.fromkeys((0, 2, 4, 6), "ok")
    assert {row.status for row in found if row.step >= 8} == {"failed"}
    assert "no parameter trains that the kernel of train is of" in found[-1].message
