"""What two ranks do in tests/tracking/test_ranks.py: DistributedDataParallel or FSDP2 over gloo."""

import json
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

sys.path.insert(0, str(Path(__file__).parents[2]))  # run by path, a file's own folder comes first, not the root

import kerneltrack as kt
from tests.tracking.untracked import Untracked
from tests.two_ranks import as_each_rank

RANK = 0  # until this process knows which one it is
X = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
Y = X[:, :1].sin()
PROBE = kt.Probe(X[:6], Y[:6])


def whole(tensor):
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def train(path, *, sharded=False, between=False):
    """Four updates, each rank on its half of a batch; the state where each begins, and the last one."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1))
    if sharded:
        model = plain
        mesh = init_device_mesh("cpu", (2,))
        fully_shard(plain[0], mesh=mesh)
        fully_shard(plain, mesh=mesh)
    else:
        model = nn.parallel.DistributedDataParallel(plain)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    given = {"probe": PROBE, "loss": "mse", "schedule": 2, "log": False, "keep_kernel": "all", "observables": "trace"}
    states = []
    with kt.Tracker(path, model, optimizer, **given) if path else Untracked() as tracker:
        for step in range(4):
            batch = tuple(part[step % 2 * 8 + RANK * 4 :][:4] for part in (X, Y))
            loss = (model(batch[0]) - batch[1]).square().mean() if between else None
            states.append({name: whole(value) for name, value in plain.state_dict().items()})
            tracker.before(batch)
            loss = loss if between else (model(batch[0]) - batch[1]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            tracker.after(loss)
    return [*states, {name: whole(value) for name, value in plain.state_dict().items()}]


def scenario(name, **options):
    tracked, plain = train(f"{name}.h5", **options), train(None, **options)
    equal = all(torch.equal(a[key], b[key]) for a, b in zip(tracked, plain, strict=True) for key in a)
    distributed.barrier()
    with kt.open_archive(f"{name}.h5") as archive:
        found = {s.step: torch.from_numpy(s.probes["probe"]["kernel"]) for s in archive}
        samples = [s.samples_seen for s in archive]
    errors = []
    for step, kernel in sorted(found.items()):
        alone = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1)).eval()
        alone.load_state_dict(tracked[step])
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(alone(x[None]).squeeze(), list(alone.parameters()))])
            for x in PROBE.inputs
        ]
        expected = torch.stack(rows) @ torch.stack(rows).T
        errors.append(float((kernel[:, :, 0, 0] - expected).abs().max() / expected.diagonal().sum()))
    return {"equal": equal, "steps": sorted(found), "samples": samples, "errors": errors}


def main(rank):
    global RANK
    RANK = rank
    distributed.init_process_group("gloo")
    results = {
        "ddp": scenario("ddp"),
        "ddp, between": scenario("between", between=True),
        "fsdp2": scenario("fsdp2", sharded=True),
    }
    Path(f"{RANK}.json").write_text(json.dumps(results), encoding="utf-8")
    distributed.destroy_process_group()


if __name__ == "__main__":
    as_each_rank(main)
