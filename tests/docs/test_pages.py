"""The entrance's pages run as written. Oracles: the assertions in them, turned round once each, and the files that they leave."""

import csv
import glob
import importlib
import inspect
import re
import runpy
import shlex

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml

import kerneltrack as kt
from kerneltrack import open_archive
from kerneltrack.analysis.cli import main as kerneltrack
from kerneltrack.archive import check
from kerneltrack.callbacks import NTKTracker
from tests.docs.running import DOCS, blocks, run

QUIET = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*is smaller than the logging interval.*",
    "ignore:.*Checkpoint directory.*",
    "ignore:.*tensorboardX.*",
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(line):
    """Run one line of a page, ``kerneltrack …``, in this process; a pattern of file names means what it means in a shell."""
    name, *words = shlex.split(line)
    assert name == "kerneltrack"
    return kerneltrack([path for word in words for path in (sorted(glob.glob(word)) if "*" in word else [word])])


def contradicted(page, right, wrong, names):
    """Run a page's last block of Python with its assertion turned round."""
    *_, last = blocks(page, "python")
    assert right in last
    with pytest.raises(AssertionError, match=r"^$"):
        exec(last.replace(right, wrong), names)


def test_kernel_from_elsewhere(here, capsys):
    """Its assertions, the last one turned round, and an archive that check finds nothing wrong with."""
    page = "how-to/kernel-from-elsewhere"
    names = {"__name__": page}
    for block in (found for found in blocks(page, "python") if not found.startswith("# jax")):
        exec(compile(block, page, "exec"), names)
        for line in "".join(blocks(page, "bash")).splitlines() if "writer" in block else ():
            assert command(line) == 0
    assert (here / "numpy.html").exists()


def test_kernel_from_jax(here):
    """Oracle: JAX's kernel against the two closed-form parts of a one-hidden-layer network; float32, so 1e-4 of its size."""
    pytest.importorskip("jax")
    page = "how-to/kernel-from-elsewhere"
    (block,) = (found for found in blocks(page, "python") if found.startswith("# jax"))
    names = {"__name__": page, "kt": kt}
    exec(compile(block, page, "exec"), names)
    assert not list(check(here / "jax.h5"))
    x, p = (
        np.asarray(names["inputs"], np.float64),
        {k: np.asarray(v, np.float64) for k, v in names["parameters"].items()},
    )
    features = np.tanh(x @ p["hidden"])
    slopes = (1 - features**2)[:, None, :] * p["readout"].T
    expected = np.einsum("nh,mh,op->nmop", features, features, np.eye(2))
    expected += np.einsum("noh,mph,nm->nmop", slopes, slopes, x @ x.T)
    np.testing.assert_allclose(
        names["kernel_of"](names["parameters"], names["inputs"]), expected, rtol=0, atol=1e-4 * expected.max()
    )
    with open_archive(here / "jax.h5") as archive:
        assert archive.steps.tolist() == [0, 10, 20]


def test_infinite_width():
    """Its assertion, turned round as well; the parts sum to the kernel of the whole."""
    page = "how-to/infinite-width"
    names = run(page)
    contradicted(page, "max(wide) < min(narrow)", "max(wide) > min(narrow)", names)
    whole = kt.analytic.ntk(
        names["x"], depth=3, activation="tanh", weight_variance=names["WEIGHT"], bias_variance=names["BIAS"]
    )
    torch.testing.assert_close(names["limit"].sum(0), whole)


@QUIET
def test_tutorial(here, capsys):
    """Its three answers are asserted: lazy or not by the page itself, the edge and the decay from the archives here."""
    names = run("tutorial")
    contradicted("tutorial", "lazy < 0.01", "lazy > 0.01", names)
    ratios, losses = {}, {}
    for name in ("run", "control", "scaled"):
        assert not list(check(here / f"{name}.h5"))
        with open_archive(here / f"{name}.h5") as archive:
            data = archive.to_xarray().swap_dims(snapshot="step").load()
        ratios[name] = data.stability_ratio.sel(step=slice(None, 99)).max().item()
        losses[name] = [data.probe_loss.sel(step=step).item() for step in (100, 101)]
    assert ratios["run"] > 0.95 > 0.75 > ratios["scaled"]  # "rises to the edge"; "never comes near it"
    assert losses["run"][1] < losses["run"][0] * 0.6  # "has fallen to about half of what it was"
    assert losses["control"][1] > losses["control"][0] * 0.95  # "in the control it has not fallen"
    assert "#was-followed-by-and-effect" in (DOCS / "tutorial.md").read_text(encoding="utf-8")


@QUIET
def test_loggers(here):
    names = run("how-to/loggers")
    assert names["trainer"].global_step == 1  # without the callback it would be 6
    assert names["trainer"].max_steps == 6
    with open("logs/net/version_0/metrics.csv") as file:
        logged = {row["step"]: row for row in csv.DictReader(file)}
    with open_archive("run.h5") as archive:
        trace = archive.to_xarray().trace.values
    assert [float(logged[str(step)]["ntk/trace"]) for step in (0, 2, 4, 6)] == pytest.approx(trace, rel=1e-12)


@QUIET
def test_notebooks(here, capsys):
    names = run("how-to/notebooks")
    assert len(names["table"]) == 5
    assert names["figure"].axes[0].lines
    again = [block for block in blocks("how-to/notebooks", "python") if "trainer.fit" in block]
    exec(again[0], names)  # the cell can be run again


@QUIET
def test_a_slurm_array(here, monkeypatch, capsys):
    """Two tasks of the array, each with its own number; the other two are the same program."""
    (here / "train.py").write_text(blocks("how-to/hydra-and-slurm", "python")[0])
    for task in ("0", "2"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        runpy.run_path("train.py", run_name="__main__")
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["width-32-seed-0.h5", "width-8-seed-0.h5"]
    (commands,) = blocks("how-to/hydra-and-slurm", "sh")
    assert all(command(line) == 0 for line in commands.splitlines())
    assert "width 8 (n = 1)" in capsys.readouterr().out
    with open_archive(here / "runs/width-8-seed-0.h5") as one, open_archive(here / "runs/width-32-seed-0.h5") as two:
        assert one.probes["train"].fingerprint == two.probes["train"].fingerprint  # "measured on the same points"


def test_what_hydra_would_build(here):
    """Oracle: import paths and signatures. Hydra itself is not installed here; the page says with which it was tried."""
    (text,) = blocks("how-to/hydra-and-slurm", "yaml")
    config = yaml.safe_load(text.replace("${width}", "32").replace("${seed}", "0"))

    def built(node):
        if not isinstance(node, dict):
            return node
        arguments = {key: built(value) for key, value in node.items() if key != "_target_"}
        if "_target_" not in node:
            return arguments
        module, _, name = node["_target_"].rpartition(".")
        return getattr(importlib.import_module(module), name)(**arguments)

    assert isinstance(built(config["tracker"]), NTKTracker)
    compile(blocks("how-to/hydra-and-slurm", "python")[1], "main.py", "exec")
    with pytest.raises(TypeError, match="metadatas"):
        built({**config["tracker"], "metadatas": {}})


@QUIET
def test_sharing(here, capsys):
    """The public copy of a run that knows its host; the page's assertions, and the original where they must fail."""
    train = blocks("how-to/hydra-and-slurm", "python")[0]
    names = {"__name__": "train"}
    exec(train, names)
    names["train"](width=8, seed=0, folder=str(here))
    (here / "width-8-seed-0.h5").rename(here / "run.h5")
    publish, with_card, look = blocks("how-to/share", "sh")
    assert [command(publish), command(with_card)] == [0, 0]
    assert {path.name for path in (here / "public").iterdir()} == {"run.h5", "README.md", "CITATION.cff", "SHA256SUMS"}
    assert command(with_card) == 2  # nothing is replaced
    assert (here / "run.h5").exists()
    run("how-to/share")
    check_it, show_it, _ = look.splitlines()
    assert [command(check_it), command(show_it)] == [0, 0]
    (page,) = blocks("how-to/share", "python")
    with pytest.raises(KeyError, match="license"):
        exec(page.replace("public.h5", "run.h5"), {})


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def listed_arguments():
    """Argument → default, of the table on the tracker's page."""
    text = (DOCS / "how-to/tracker.md").read_text(encoding="utf-8")
    lines = text.partition("| argument | default |")[2].partition("\n\n")[0].splitlines()[2:]
    found = {}
    for line in lines:
        names, defaults, _ = line.strip("|").split("|")
        found |= zip(re.findall(r"`(\w+)`", names), [each.strip(" `") for each in defaults.split(",")], strict=True)
    return found


def test_the_arguments_of_the_tracker_are_listed_with_their_defaults():
    """Oracle: the signature. Arguments that share a row stand in the order of their defaults."""
    parameters = inspect.signature(NTKTracker).parameters
    listed = listed_arguments()
    assert set(listed) == set(parameters)
    wrong = {
        name: (text, parameters[name].default)
        for name, text in listed.items()
        if text and text.strip('"') != str(parameters[name].default)
    }
    assert wrong == {}


@QUIET
def test_the_trackers_page(here, capsys):
    """Every block of Python on it; the schedules and trackers are made, the first block trains."""
    x, y = torch.randn(8, 4), torch.arange(8) % 3
    kt.Probe(x, y).save("probe.npz")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
    run("how-to/tracker", model=Classifier(), train_loader=loader, x=x, y=y)
    with open_archive("run.h5") as archive:
        assert archive.steps[-1] == 10


def test_every_python_of_the_new_pages_is_run():
    """A block in another language than the tests look for would never run."""
    fences = {
        fence
        for page in ("tutorial", "faq", "how-to/loggers", "how-to/notebooks", "how-to/hydra-and-slurm", "how-to/share")
        for fence in re.findall(r"^```(\w*)$", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert fences == {"", "python", "sh", "bash", "text", "yaml"}
    assert set(inspect.signature(NTKTracker).parameters) >= {"keep_kernel", "max_overhead", "if_exists", "probe_seed"}
