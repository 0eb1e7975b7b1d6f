"""A plain loop on two processes: DistributedDataParallel and FSDP2 over gloo, on the CPU.

Oracles: the same loop without a tracker, bit for bit on each rank, and the kernel by plain autograd of rank zero's network.
"""

import json
from pathlib import Path

import pytest

from tests.two_ranks import ran


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    ran(Path(__file__).parent / "ranks_job.py", folder=folder, timeout=200, WORLD_SIZE="2")
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", ["ddp", "ddp, between", "fsdp2"])
def test_two_processes_measure_and_train_as_one_would(ranks, name):
    for found in (result[name] for result in ranks):
        assert found["equal"]
        assert found["steps"] == [0, 2, 4]
        assert found["samples"] == [0, 16, 32]
    # sums of a few dozen products in float32, relative to the trace
    assert max(ranks[0][name]["errors"]) < 1e-5
    assert max(ranks[1][name]["errors"]) > 1e-3  # negative control: rank one has statistics of BatchNorm of its own
