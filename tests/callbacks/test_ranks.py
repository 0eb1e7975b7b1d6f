"""Two processes that train together: DDP and FSDP2 over gloo, on the CPU.

Oracles: the same training without the tracker, bit for bit on each rank; the kernel by plain autograd of the network as
rank zero had it, in one process; and for failures the clock, against a time-out of 60 s.
"""

import json
from pathlib import Path

import pytest

from tests.tiers import later
from tests.two_ranks import ran

FOLDER = Path(__file__).parent
SCENARIOS = (
    "under_ddp", "under_fsdp2", "leader_fails", "follower_fails", "leader_warns", "follower_warns", "archive_fails",
    "archive_exists", "clocks_differ", "overhead", "random_data", "too_small", "tensor_parallel",
    "ddp_resumed", "fsdp2_resumed", "adam_ddp", "adam_fsdp2", "out_of_memory",
)  # fmt: skip
#: A leader that fails unheard is seen by a follower that goes on, and a follower's failure by the leader's rows. A run is resumed
#: where its parameters are sharded; where every rank has the whole, what goes on is what goes on in one process.
NIGHTLY = {"leader_warns", "follower_fails", "ddp_resumed"}
#: Far below the process group's time-out, far above what a failing run of six steps takes on a busy machine.
NO_HANG_SECONDS = 40


@pytest.fixture(scope="module")
def ranks(request, tmp_path_factory):
    """Scenarios' results by name, one for each rank; they run one after the other in the same two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    asked = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    names = [name for name in SCENARIOS if name not in NIGHTLY or name in asked]
    ran(FOLDER / "ranks_job.py", *names, folder=folder, timeout=400, NODE_RANK="0")
    return {name: [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in range(2)] for name in names}


#: The rows of docs/setups.md that these scenarios are.
LABELS = {
    **dict.fromkeys(("under_ddp", "leader_warns", "ddp_resumed"), "DDP, two processes"),
    **dict.fromkeys(("under_fsdp2", "fsdp2_resumed"), "FSDP2 (ModelParallelStrategy), two processes"),
}


def claim(column, *names):
    """As in test_setups: what the table's column says of these scenarios."""

    def decorate(test):
        test.column = column
        return pytest.mark.parametrize("name", [later(name) if name in NIGHTLY else name for name in names])(test)

    return decorate


@claim("transparent", "under_ddp", "under_fsdp2")
def test_training_is_bit_identical_on_each_rank(ranks, name):
    assert [found["differences"] for found in ranks[name]] == [[], []]


@claim("resumed equal to uninterrupted", "ddp_resumed", "fsdp2_resumed")
def test_a_resumed_run_continues_its_archive(ranks, name):
    assert [found["unequal"] for found in ranks[name]] == [[], []]


@claim("measured equal to the reference", "under_ddp", "under_fsdp2")
def test_the_kernel_is_that_of_rank_zero_whole_and_exact(ranks, name):
    """float32 products of up to a hundred terms: 1e-6 of the trace. The ranks' BatchNorm statistics differ by far more."""
    errors = ranks[name][0]["errors"]
    assert sorted(errors) == ["0", "1", "2", "3", "4", "5"]
    assert max(errors.values()) < 1e-6
    first, second = (found["running means"]["4"] for found in ranks[name])
    assert max(abs(a - b) for a, b in zip(first, second, strict=True)) > 1e-2


@pytest.mark.parametrize(("name", "failing"), [("leader_fails", 0), later(("follower_fails", 1))])
def test_a_measurement_that_fails_on_one_rank_fails_on_all_with_its_cause(ranks, name, failing):
    for rank, found in enumerate(ranks[name]):
        own = not found["error"].startswith(f"RankError: rank {failing} failed with ")
        assert own == (rank == failing)
        assert "ValueError: forward gave up" in found["error"]
        assert found["seconds"] < NO_HANG_SECONDS
    assert [(step, status) for step, status, _ in ranks[name][0]["rows"]] == [(0, "ok"), (1, "ok")]


@claim("transparent, also when a measurement raises", "leader_warns", "follower_warns")
def test_a_failure_that_is_a_row_is_one_for_all_ranks(ranks, name):
    leader, follower = ranks[name]
    assert [found["error"] for found in ranks[name]] == [None, None]
    assert [found["differences"] for found in ranks[name]] == [[], []]
    assert [(step, status) for step, status, _ in leader["rows"]] == [
        (0, "ok"),
        (1, "ok"),
        (2, "failed"),
        (3, "failed"),
        (4, "failed"),
        (5, "failed"),
        (6, "failed"),
    ]
    assert all("forward gave up" in message for _, status, message in leader["rows"] if status == "failed")
    assert any("could not measure step 2" in warning for warning in leader["warnings"])
    assert follower["warnings"] == []


def test_an_archive_that_cannot_be_written_stops_all_ranks(ranks):
    leader, follower = ranks["archive_fails"]
    assert leader["error"].startswith("ArchiveError: the snapshot cannot be stored")
    assert follower["error"].startswith("RankError: rank 0 failed with ArchiveError: the snapshot cannot be stored")
    assert max(leader["seconds"], follower["seconds"]) < NO_HANG_SECONDS
    assert [step for step, _, _ in leader["rows"]] == [0]


def test_an_archive_that_is_there_already_stops_all_ranks(ranks):
    leader, follower = ranks["archive_exists"]
    assert leader["error"].startswith("ArchiveExistsError")
    assert follower["error"].startswith("RankError: rank 0 failed with ArchiveExistsError")


def test_the_leader_decides_where_clocks_differ(ranks):
    """On rank one no second passes, so by itself it would measure once."""
    leader, follower = ranks["clocks_differ"]
    assert [step for step, _, _ in leader["rows"]] == [0, 1, 2, 3, 4, 5, 6]
    assert leader["differences"] == follower["differences"] == []


def test_the_leader_decides_what_costs_too_much(ranks):
    leader, follower = ranks["overhead"]
    assert [step for step, _, _ in leader["rows"]] == [0, 1, 6]
    assert leader["differences"] == follower["differences"] == []


def test_a_probe_is_drawn_once_for_all_ranks(ranks):
    """Every look at the dataset gives other numbers, and the ranks' generators differ."""
    leader, follower = ranks["random_data"]
    assert leader["fingerprint"] == follower["fingerprint"]


def test_a_probe_of_fewer_samples_than_ranks_is_measured(ranks):
    leader, _ = ranks["too_small"]
    assert {status for _, status, _ in leader["rows"]} == {"ok"}
    assert leader["differences"] == []


def test_tensor_parallelism_is_refused_before_the_first_batch(ranks):
    for found in ranks["tensor_parallel"]:
        assert found["error"].startswith("UnsupportedModelError: parameter 'layers.0.weight' is sharded for tensor")
        assert found["rows"] == []


def test_adam_preconditions_with_its_whole_second_moments(ranks):
    """Oracle: the same training under DDP, where moments are whole. Lanczos: four digits."""
    expected, found = ranks["adam_ddp"][0], ranks["adam_fsdp2"][0]
    later = [step for step in expected if int(step) >= 3]
    assert len(later) >= 3
    for step in later:
        assert expected[step] > 0
        assert found[step] == pytest.approx(expected[step], rel=1e-3)


def test_all_ranks_take_smaller_tiles_where_one_runs_out_of_memory(ranks):
    for found in ranks["out_of_memory"]:
        assert found["error"] is None
        assert found["differences"] == []
        assert found["budgets"] == ["1GiB", str(2**29), str(2**28)]
    rows = ranks["out_of_memory"][0]["rows"]
    assert {status for _, status, _ in rows} == {"ok"}
    assert "out of memory: measured again in tiles of 256.0 MiB" in rows[0][2]
