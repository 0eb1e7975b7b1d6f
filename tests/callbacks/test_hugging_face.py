"""The tracker in transformers' Trainer.

Oracles: the same Trainer without a tracker, bit for bit; and the archive of a plain loop with kt.Tracker that makes the
same updates (tests/callbacks/hugging_face.py), byte for byte by tests/archive/same.py. That the loop makes the same updates
is told by its losses.
"""

import inspect
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback

import kerneltrack as kt
from kerneltrack.archive import check
from kerneltrack.callbacks import NTKTracker
from kerneltrack.callbacks.sample_counts import SampleCounts
from kerneltrack.callbacks.transformers import NTKTrackerCallback
from kerneltrack.errors import KerneltrackError, ProbeError, TrackerError
from tests.archive.same import differences as unequal_archives
from tests.callbacks import lightning_runs
from tests.callbacks.comparisons import differences, same, unequal
from tests.callbacks.hugging_face import Loop, Overflowing, Words, left, sentences, trainer, watching
from tests.callbacks.test_arguments import WRONG
from tests.tiers import later

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")


def bert():
    config = BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3,
        max_position_embeddings=8,
    )  # fmt: skip
    return BertForSequenceClassification(config)


SETUPS = {
    "whole epochs": {},
    "accumulation, a ragged last window": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 3},
    "max_steps in mid-epoch": {"max_steps": 9},
    "half precision, skipped updates": {"scaler": Overflowing, "max_steps": 6},
    "bf16, whose autocast is in the model": {"bf16": True, "max_steps": 4},
    "AdamW, no clipping": {"optim": "adamw_torch", "max_grad_norm": 0.0, "max_steps": 4},
    "gradient checkpointing": {"model": bert, "max_steps": 3, "activation_checkpointing": True},
    "losses and norms handed over": {"hands_over": True, "max_grad_norm": 0.1, "gradient_accumulation_steps": 2},
}


def trained(folder, path=None, *others, hands_over=False, **arguments):
    """A training, with a tracker where there is a path for its archive."""
    tracker = [] if path is None else [watching(path)]
    made = trainer(folder, *tracker, *others, hands_over=tracker[0] if tracker and hands_over else None, **arguments)
    made.train()
    return made


#: What another set-up here, or the same option of Lightning's Trainer (setups.py), shows as well.
NIGHTLY = {"max_steps in mid-epoch", "AdamW, no clipping", "gradient checkpointing"}


@pytest.mark.parametrize("name", [later(name) if name in NIGHTLY else name for name in SETUPS])
def test_the_archive_is_a_plain_loops_and_the_training_its_own(tmp_path, name):
    given, archives = SETUPS[name], (tmp_path / "trainer.h5", tmp_path / "loop.h5")
    tracked, alone = trained(tmp_path, archives[0], **given), trained(tmp_path, **given)
    assert differences(left(tracked), left(alone)) == []
    loop = Loop(tmp_path, **given)
    loop.run(loop.tracker(archives[1]))
    assert same(loop.losses, tracked.losses)  # the loop makes the Trainer's updates
    assert unequal_archives(*archives) == []
    assert check(archives[0]) == []


#: The row of docs/setups.md, see tests/callbacks/setups_table.py.
test_the_archive_is_a_plain_loops_and_the_training_its_own.loop = lambda given: "Hugging Face's Trainer"


def test_the_page_of_set_ups_lists_them_all():
    """`make setups` writes it; a set-up that was added since is missing there."""
    text = (Path(__file__).parents[2] / "docs" / "setups.md").read_text(encoding="utf-8")
    assert [name for name in SETUPS if name not in text] == []


def rows(path):
    with kt.open_archive(path) as archive:
        return list(archive)


def test_what_the_rows_say(tmp_path):
    """Oracles: the schedule by hand, 26 samples in batches of 3, two to an update, the ninth batch alone."""
    path = tmp_path / "run.h5"
    trained(tmp_path, path, **SETUPS["accumulation, a ragged last window"])
    found = rows(path)
    assert [row.samples_seen for row in found] == [0, 6, 12, 18, 24, 26, 32, 38, 44, 50, 52]
    assert [row.batch for row in found] == [0, 2, 4, 6, 8, 9, 11, 13, 15, 17, 18]
    assert [row.epoch for row in found] == [0] * 5 + [1] * 5 + [2]
    np.testing.assert_allclose([row.learning_rates[0] for row in found[:-1]], 0.3 * (1 - np.arange(10) / 10))
    assert all(row.update_applied for row in found[:-1])
    assert np.isnan([row.training_loss for row in found]).all()
    assert all("training_loss: the loop handed no loss over" in row.message for row in found[:-1])


def test_a_skipped_update_was_not_applied(tmp_path):
    trained(tmp_path, tmp_path / "run.h5", **SETUPS["half precision, skipped updates"])
    applied = [row.update_applied for row in rows(tmp_path / "run.h5")]
    assert applied[0] is False
    assert applied[5] is True


class Stops(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_a_training_that_goes_on_from_its_checkpoint(tmp_path):
    """Oracle: the run that was not interrupted, number for number; dropout's generators are in the Trainer's checkpoint."""
    given = {"save_strategy": "steps", "save_steps": 3, "gradient_accumulation_steps": 2}
    whole = trained(tmp_path / "whole", tmp_path / "whole.h5", **given)
    first = watching(tmp_path / "run.h5")
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "out", first, Stops(5), **given).train()
    first.close()
    assert [row.step for row in rows(tmp_path / "run.h5")] == [0, 1, 2, 3, 4]
    (tmp_path / "moved").mkdir()
    (tmp_path / "run.h5").rename(tmp_path / "moved" / "run.h5")
    again = trainer(tmp_path / "out", watching(tmp_path / "moved" / "run.h5"), **given)
    again.train(resume_from_checkpoint=True)
    assert differences(left(again), left(whole, losses=again.losses)) == []
    with kt.open_archive(tmp_path / "whole.h5") as expected, kt.open_archive(tmp_path / "moved" / "run.h5") as found:
        assert unequal(expected, found) == []


def test_without_the_trackers_state_a_training_that_goes_on_is_a_new_run(tmp_path):
    given = {"save_strategy": "steps", "save_steps": 3, "max_steps": 5}
    trained(tmp_path, **given)
    made = trainer(tmp_path, watching(tmp_path / "run.h5"), **given)
    with pytest.warns(UserWarning, match=r"goes on from step 3, and no state of the tracker.*load_state_dict"):
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert [row.step for row in rows(tmp_path / "run.h5")] == [4, 5]  # of the state at step 3 no schedule asks


def test_an_archive_of_another_run_is_not_touched(tmp_path):
    trained(tmp_path, tmp_path / "run.h5", max_steps=1)
    before = (tmp_path / "run.h5").read_bytes()
    with pytest.raises(kt.errors.ArchiveExistsError):
        trained(tmp_path, tmp_path / "run.h5", max_steps=1)
    assert (tmp_path / "run.h5").read_bytes() == before


def test_the_last_state_is_that_of_the_last_update(tmp_path):
    """Not the best one, which the Trainer puts in its place at the end. Oracle: the archive without that."""
    evaluated = {
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "greater_is_better": True,
    }  # the larger loss is the first epoch's
    paths = [tmp_path / "best.h5", tmp_path / "last.h5"]
    for path, best in zip(paths, (True, False), strict=True):
        tracker = watching(path)
        made = trainer(tmp_path, tracker, load_best_model_at_end=best, eval_data=sentences()[:6], **evaluated)
        made.train()
        assert (made.state.best_global_step == 7) is best
    assert unequal_archives(*paths) == []


class Logs(TrainerCallback):
    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **_):
        self.seen.append((state.global_step, dict(logs)))


def test_the_numbers_are_there_for_the_loggers_that_follow(tmp_path):
    after, before = Logs(), Logs()
    tracker = watching(tmp_path / "run.h5", log=True)
    trainer(tmp_path, before, tracker, after, logging_strategy="steps", logging_steps=3, max_steps=6).train()
    traces = {row.step: float(row.probes["train"]["trace"]) for row in rows(tmp_path / "run.h5")}
    assert [(step, logs.get("ntk/trace")) for step, logs in after.seen] == [
        (3, traces[2]),
        (6, traces[5]),
        (6, traces[6]),
    ]
    assert not any("ntk/trace" in logs for _, logs in before.seen)
    assert tracker.scalars["ntk/trace"] == traces[6]


def test_an_evaluation_and_what_is_logged_can_ask_for_states(tmp_path):
    """Oracle: the state after each logged loss that is another one; every second update logs one."""
    path = tmp_path / "run.h5"
    made = trainer(tmp_path, logging_strategy="steps", logging_steps=2, max_steps=6)
    made.add_callback(watching(path, schedule=kt.schedule.OnMetricChange("loss", by=1.000001)))
    made.train()
    assert [row.step for row in rows(path)] == [0, 2, 4, 6]


def test_arguments_are_those_of_ntk_tracker_and_so_are_their_messages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours, theirs = (dict(inspect.signature(kind.__init__).parameters) for kind in (NTKTrackerCallback, NTKTracker))
    del theirs["log_figures"]  # of Lightning's loggers
    assert {n: p.default for n, p in ours.items()} == {n: p.default for n, p in theirs.items()}
    for argument, values in ((name, values) for name, values in WRONG.items() if name in ours):
        for value, _ in values:
            given = {"archive": "run.h5", argument: value}
            said = []
            for kind in (NTKTrackerCallback, NTKTracker):
                with pytest.raises(KerneltrackError) as found:
                    kind(**given)
                said.append(str(found.value))
            assert said[0] == said[1]


@pytest.mark.parametrize("given", [{"keep_forks": True}, {"keep_forks": kt.ForkLimits(count=1), "fork_at": [3]}])
def test_forks_that_no_control_could_go_on_from_are_refused(given):
    with pytest.raises(TrackerError, match=r"keep_forks in the Trainer of transformers: .*a fork of it, got .*Tracker"):
        NTKTrackerCallback("run.h5", **given)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"probe": {"val": 4}}, TrackerError, r"shows its callbacks no evaluation data.*get_eval_dataloader\(\), 4"),
        ({"params": ["head.wight"]}, KerneltrackError, "head.wight"),
        ({"split": lambda batch: batch}, ProbeError, "split: expected a callable batch"),
    ],
)
def test_what_needs_the_data_is_refused_before_the_first_update(tmp_path, options, error, match):
    made = trainer(tmp_path, watching(tmp_path / "run.h5", **options))
    with pytest.raises(error, match=match):
        made.train()
    assert made.state.global_step == 0
    assert not (tmp_path / "run.h5").exists()


class TwoLabels(Words):
    def forward(self, input_ids, attention_mask, labels=None, more_labels=None):
        return super().forward(input_ids, attention_mask, labels)


def test_of_several_labels_none_is_chosen(tmp_path):
    data = [{**sentence, "more_labels": 1} for sentence in sentences()]
    with pytest.raises(ProbeError, match=r"several labels: expected one of labels, more_labels.*split="):
        trained(tmp_path, tmp_path / "run.h5", model=TwoLabels, data=data)


@pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*")
def test_lightnings_trainer_is_told_which_tracker_is_its_own(tmp_path):
    with pytest.raises(TrackerError, match=r"got Lightning's\. kerneltrack\.callbacks\.NTKTracker"):
        lightning_runs.trainer(watching(tmp_path / "run.h5"), max_steps=1)


def test_where_no_update_was_made_it_says_so(tmp_path):
    made = trainer(tmp_path, watching(tmp_path / "run.h5"), num_train_epochs=0)
    with pytest.warns(UserWarning, match=r"nothing was measured.*num_train_epochs"):
        made.train()
    assert not (tmp_path / "run.h5").exists()


def test_the_model_is_measured_without_the_autocast_that_accelerate_puts_into_it(tmp_path):
    """Oracle: the trace of the first state in float32, by kt.empirical_ntk. Negative control: through the wrapped forward."""
    made = trained(tmp_path, tmp_path / "run.h5", bf16=True, max_steps=1)
    row, again = rows(tmp_path / "run.h5")[-1], made.model.eval()
    with kt.open_archive(tmp_path / "run.h5") as archive:
        indices = archive.probes["train"].identity["indices"]
    inputs = {n: torch.stack([sentences()[i][n] for i in indices]) for n in ("input_ids", "attention_mask")}
    assert again.forward != again._original_forward
    with torch.no_grad():
        wrapped = again(**inputs).logits
        again.forward = again._original_forward
        plain = again(**inputs).logits
    np.testing.assert_allclose(row.probes["train"]["outputs"], plain.numpy(), rtol=1e-6, atol=1e-7)
    assert not np.allclose(row.probes["train"]["outputs"], wrapped.numpy(), rtol=1e-6, atol=1e-7)


def sampler_of(even, drop=False, split=False):
    from accelerate.data_loader import BatchSamplerShard

    inner = torch.utils.data.BatchSampler(range(26), 4, drop)
    return BatchSamplerShard(inner, 2, 1, split_batches=split, even_batches=even)


@pytest.mark.parametrize(
    "batches",
    [torch.utils.data.BatchSampler(range(26), 4, drop) for drop in (False, True)]
    + [sampler_of(True), sampler_of(True, split=True), sampler_of(False, drop=True)],
)
def test_samples_are_counted_as_the_loader_gives_them(batches):
    """Oracle: the batches themselves, of one process, and of the second of two."""
    counts = SampleCounts.of(torch.utils.data.DataLoader(range(26), batch_sampler=batches))
    assert [counts.of_batch(i) for i, _ in enumerate(batches)] == [len(batch) for batch in batches]


@pytest.mark.parametrize("batches", [sampler_of(False), [[0, 1], [2]]])
def test_samples_that_nobody_knows_are_not_counted(batches):
    assert SampleCounts.of(torch.utils.data.DataLoader(range(26), batch_sampler=batches)).of_batch(0) == -1


@pytest.mark.nightly
def test_two_processes_measure_and_train_as_without_a_tracker(tmp_path):
    """Oracles: each rank's own training without a tracker, bit for bit; the trace by kt.empirical_ntk of the last weights."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    job = [sys.executable, "-W", "ignore", Path(__file__).parent / "hugging_face_ranks.py"]
    started = [
        subprocess.Popen(
            job, cwd=tmp_path, text=True, stderr=subprocess.PIPE,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        errors = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(e[-3000:] for e in errors)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [result["unequal"] for result in found] == [[], []]
    expected = found[0]["trace"]
    last = rows(tmp_path / "run.h5")
    assert [row.samples_seen for row in last] == [
        0,
        8,
        16,
        24,
        32,
    ]  # the last batches are filled up: accelerate's even_batches
    assert float(last[-1].probes["train"]["trace"]) == pytest.approx(expected, rel=1e-5)
