"""Control runs of a loop of Lightning Fabric. Oracle: the training from scratch whose rate never changes, to the bit."""

import pytest
from lightning.fabric import Fabric
from torch.utils.data import DistributedSampler

import kerneltrack as kt
from kerneltrack.errors import ForkError
from tests.tracking.forked_runs import Run, dataset, network, optimizer_of, same

CHANGE = 17


class FabricRun(Run):
    """The same training where Fabric wraps model, optimizer and loader."""

    def __init__(self, *given, precision="32-true", **options):
        super().__init__(*given, **options)
        self.fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
        self.model, self.optimizer = self.fabric.setup(self.model, self.optimizer)
        self.loader = self.fabric.setup_dataloaders(self.loader)

    def update(self, model, optimizer, batch):
        x, y = batch
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        self.fabric.backward(loss)
        optimizer.step()
        return loss


def by_epoch():
    """A sampler whose order depends on the epoch that Fabric tells it, as that of a training of several processes."""
    return {"sampler": DistributedSampler(dataset(), num_replicas=1, rank=0, seed=3), "shuffle": False}


@pytest.mark.parametrize(
    "loader", [dict, lambda: {"generator": 5}, by_epoch],
    ids=["torch's generator", "a generator of the loader's", "an order by epoch"],
)  # fmt: skip
def test_weights_are_those_of_a_run_whose_rate_never_changes(tmp_path, loader):
    """After 1 and 10 updates, beyond the end of the epoch; and the loader counts its epochs as before."""
    never = FabricRun(None, CHANGE + 10, **loader())
    never.train(body=never.update)
    run = FabricRun(CHANGE, CHANGE + 14, **loader())  # two epochs beyond the fork's, so that the wrapper has counted on
    run.tracked(tmp_path / "run.h5", body=run.update)
    begun = run.loader._num_iter_calls
    kept = {}

    def body(model, optimizer, batch):
        loss = run.update(model, optimizer, batch)
        kept[len(kept) + 1] = {name: value.clone() for name, value in model.state_dict().items()}
        return loss

    path = kt.control_run(run.kept.forks[0], body, steps=10)
    assert all(same(kept[count], never.seen[CHANGE + count]) for count in (1, 10))
    assert not same(run.seen[CHANGE + 1], never.seen[CHANGE + 1])  # negative control: the change did something
    with kt.open_archive(path) as archive:
        assert archive.attrs["batches"] == "same_batches"
    assert run.loader._num_iter_calls == begun
    assert "_get_iterator" not in vars(run.loader._dataloader)


def test_under_mixed_precision_the_control_s_model_is_wrapped_as_well(tmp_path):
    """A bare copy would train in float32, and its other rounding would pass for what the rate did."""
    never = FabricRun(None, CHANGE + 2, precision="bf16-mixed")
    never.train(body=never.update)
    run = FabricRun(CHANGE, CHANGE + 2, precision="bf16-mixed")
    run.tracked(tmp_path / "run.h5", body=run.update)
    with pytest.raises(ForkError, match=r"bf16-mixed under Fabric's wrapper.*fabric\.setup"):
        kt.control_run(run.kept.forks[0], run.update, steps=2)
    model = network()
    model, optimizer = run.fabric.setup(model, optimizer_of(model))
    kt.control_run(run.kept.forks[0], run.update, steps=2, model=model, optimizer=optimizer)
    assert same(dict(model.state_dict()), never.seen[-1])
