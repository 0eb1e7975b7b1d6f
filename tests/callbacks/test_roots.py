"""Both import roots and LightningCLI, in fresh interpreters. Oracle: the archives that the runs leave."""

import inspect
import subprocess
import sys

import pytest
import yaml

from kerneltrack import Probe, open_archive

TRAINING = """
import torch, warnings
warnings.filterwarnings("ignore")
import {root} as pl
from kerneltrack.callbacks import NTKTracker

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Linear(3, 1)
    def forward(self, x):
        return self.layers(x)
    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - batch[1]).square().mean() / 2
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
    def train_dataloader(self):
        x = torch.arange(24.0).reshape(8, 3).sin()
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x[:, :1]), batch_size=4)

def forward(model, x):
    return model(x)

def split(batch):
    return batch[0], batch[1]

quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
             accelerator="cpu", max_steps=4)
"""

RUN = """
tracker = NTKTracker("run.h5", probe=8, schedule=2, observables="trace", log=False)
assert isinstance(tracker, pl.Callback)
{check}
pl.Trainer(callbacks=tracker, **quiet).fit(Net())
"""

ALONE = "import sys; assert {other!r} not in sys.modules, 'the second root was imported only to subclass it'"


def python(code, folder, **environment):
    import os

    (folder / "training.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "training.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_tracker_made_with_both_roots_loaded_is_a_callback_of_both(tmp_path):
    check = "import lightning.pytorch; assert isinstance(tracker, lightning.pytorch.Callback)"
    code = "import lightning.pytorch\n" + TRAINING.format(root="pytorch_lightning") + RUN.format(check=check)
    python(code, tmp_path)
    with open_archive(tmp_path / "run.h5") as archive:
        assert len(archive) == 3


CLI = """
import sys
sys.modules["training"] = sys.modules["__main__"]  # the file that runs is the module that the YAML names
from {root}.cli import LightningCLI
sys.argv = ["training.py", "fit", "--config", "config.yaml"]
LightningCLI(Net, save_config_callback=None)
"""

CONFIG = """
trainer:
  max_steps: 4
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  callbacks:
    - class_path: kerneltrack.callbacks.NTKTracker
      init_args:
        archive: cli.h5
        probe: probe.npz
        schedule:
          class_path: kerneltrack.schedule.Every
          init_args: {n: 2}
        output: trace
        gauge: auto
        top_k: 3
        observables: [trace, target_energy]
        loss: half_mse
        keep_kernel: all
        metadata: {width: 4, seed: 3}
        max_overhead: 0.999
        log: false
        forward: training.forward
        if_exists: replace
        on_error: warn
        split: training.split
        probe_seed: 5
        keep_inputs: true
        method: jacobian
        params: [layers.weight]
        memory_budget: 1GiB
        eigenpairs: leading
        keep_forks: {count: 2, memory: 1GiB}
        fork_at: [2]
        log_figures: [target-energy, stability]
"""


#: Of two roots that are treated alike, the one that no other test trains with.
@pytest.fixture(
    scope="module", params=[pytest.param("pytorch_lightning", marks=pytest.mark.nightly), "lightning.pytorch"]
)
def alone(request, tmp_path_factory):
    """The folder of a process that knows one root: a training by hand, then one by LightningCLI."""
    import torch

    root, folder = request.param, tmp_path_factory.mktemp("alone")
    (other,) = {"pytorch_lightning", "lightning.pytorch"} - {root}
    x = torch.randn(5, 3)
    Probe(x, x[:, :1], name="mine").save(folder / "probe.npz")
    (folder / "config.yaml").write_text(CONFIG)
    by_hand = RUN.format(check=ALONE.format(other=other))
    python(TRAINING.format(root=root) + by_hand + CLI.format(root=root), folder)
    return folder


def test_each_root_alone(alone):
    with open_archive(alone / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 2, 4]


def test_lightning_cli_from_yaml(alone):
    with open_archive(alone / "cli.h5") as archive:
        assert archive.steps.tolist() == [0, 2, 4]
        record = archive.probes["mine"]
        assert record.settings["output"] == "trace"
        assert archive.provenance.metadata == {"width": 4, "seed": 3}
        assert archive[0].probes["mine"]["kernel"].shape[:2] == (5, 5)
        assert record.settings["forward"] == "forward"
        assert record.settings["parameters"] == ["layers.weight"]


def test_the_yaml_has_every_argument():
    from kerneltrack.callbacks import NTKTracker

    given = yaml.safe_load(CONFIG)["trainer"]["callbacks"][0]["init_args"]
    assert given.keys() == inspect.signature(NTKTracker.__init__).parameters.keys() - {"self"}
