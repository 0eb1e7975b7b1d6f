"""The benchmark tells a wrong kernel from a right one, has the known floor, and runs from end to end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import kerneltrack as kt

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from device import lines_of, page  # noqa: E402
from floor import floor_flops  # noqa: E402
from measure import error  # noqa: E402
from prepare import truth_block  # noqa: E402
from report import write_report  # noqa: E402
from workloads import WORKLOADS, Workload, mlp, resnet18  # noqa: E402


def problem_and_truth(kind):
    """A random Gram matrix of 4 samples and 3 outputs, of which the first and the last sample are checked."""
    rows = np.random.default_rng(0).standard_normal((4, 3, 20))
    kernel = np.einsum("nap,mbp->namb", rows, rows)
    if kind == "trace":
        kernel = np.einsum("nama->nm", kernel)
    which = np.array([0, 3])
    truth = kernel[which][:, :, which] if kind == "full" else kernel[np.ix_(which, which)]
    workload = SimpleNamespace(samples=4, outputs=3, kind=kind)
    return SimpleNamespace(workload=workload, which=which, truth=truth), kernel.astype(np.float32)


@pytest.mark.parametrize("kind", ["full", "trace"])
def test_the_check_tells_right_from_wrong(kind):
    """float32 of the truth is off by 6e-8; a factor, a transpose and a swap of samples by far more."""
    problem, kernel = problem_and_truth(kind)
    assert error(kernel, problem) < 1e-6
    wrongs = [kernel / 3, kernel[[1, 0, 2, 3]], kernel + 1e-3 * kernel.max()]
    if kind == "full":
        wrongs.append(kernel.transpose(0, 3, 2, 1))
    for wrong in wrongs:
        assert error(wrong, problem) > 1e-4
    with pytest.raises(ValueError, match="shape"):
        error(kernel[:3], problem)


@pytest.mark.parametrize(
    ("build", "samples", "shape", "outputs", "published"),
    [
        (lambda: mlp(784, 1024, 1024, 1024, 10), 512, (784,), 10, 106e9),
        (lambda: mlp(2, 256, 256, 256, 256, 256, 256, 1), 10_000, (2,), 1, 321e9),
        (resnet18, 128, (3, 32, 32), 10, 5.06e12),
    ],
    ids=["mlp", "deep-mlp", "resnet"],
)
def test_the_floor_is_the_known_one(build, samples, shape, outputs, published):
    """Oracle: three totals worked out by hand from the formulas of the module's docstring, to 5 %."""
    floor = floor_flops(Workload(build, samples, shape, outputs, "full", ""))
    assert floor == pytest.approx(published, rel=0.05)


@pytest.mark.parametrize(
    ("widths", "outputs", "expected"),
    [((784, 100, 10), 10, 4 * (78_400 + 1000) + 4 * 10 * (100 + 10)), ((4, 3, 50), 50, 10 * (12 + 150))],
    ids=["by what was left", "by passes"],
)
def test_the_floor_of_a_product(widths, outputs, expected):
    """Oracle: 4 P + 4 O Σ d_o and 10 P a sample, by hand; the smaller one."""
    workload = Workload(lambda: mlp(*widths), 8, (widths[0],), outputs, "product", "")
    assert floor_flops(workload) == 8 * expected


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap loops over attention, which is as right
@pytest.mark.parametrize("name", [name for name, workload in WORKLOADS.items() if workload.needs])
def test_what_a_peer_maps_is_the_same_network(name):
    """Oracle: the network's own forward pass, on padded ids; and its kernel is a double loop's, in float64."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    workload = WORKLOADS[name]
    model, x = workload.model().double(), workload.inputs()[:4]
    assert (x == 0).any()
    one = torch.func.vmap(lambda ids: model(ids[None], mapped=True)[0])
    assert torch.allclose(one(x), model(x), rtol=0, atol=1e-12)
    kernel = kt.empirical_ntk(model, x, output=workload.kind).double().numpy()
    axes = (0, 2, 1, 3) if workload.kind == "full" else (0, 1)
    assert np.abs(kernel.transpose(axes) - truth_block(model, x, workload.kind)).max() < 1e-10 * np.abs(kernel).max()


def test_a_wrong_row_is_marked_and_not_compared_with(tmp_path):
    """A wrong peer that is ten times faster must not be the best one."""
    np.savez(tmp_path / "tiny-mlp.npz", floor=1e6)
    row = {"workload": "tiny-mlp", "version": "1", "memory": 2**20}
    rows = [
        row | {"peer": "kerneltrack", "method": "auto", "times": [1.0], "busy": [1.0], "error": 1e-7},
        row | {"peer": "honest", "method": "m", "times": [3.0], "busy": [1.0], "error": 1e-7},
        row | {"peer": "hasty", "method": "m", "times": [0.1], "busy": [1.0], "error": 0.5},
        {"workload": "tiny-mlp", "peer": "greedy", "method": "m", "failed": "out of memory"},
    ]
    about = {"when": "now", "processor": "one", "threads": 1, "device": "cpu", "missing": ["absent"]}
    write_report({**about, "rows": rows, "rates": {"tiny-mlp": 1e9}}, tmp_path, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "3.00× as fast as the best peer (honest · m)" in page
    assert "hasty · m | 100 ms" in page
    assert page.count("**wrong**") == 1
    assert "greedy · m | out of memory" in page
    assert "Not installed where this was run: absent" in page


@pytest.mark.nightly
def test_it_runs_from_end_to_end(tmp_path):
    """The smallest workload, in fresh processes as in earnest; the row is there, and right."""
    page = tmp_path / "page.md"
    options = ["--workloads", "tiny-product", "--peers", "kerneltrack", "--seconds", "0.01"]
    command = [sys.executable, str(HERE / "run.py"), *options, "--cache", str(tmp_path), "--output", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "kerneltrack · product" in page.read_text()
    assert "**wrong**" not in page.read_text()


def test_the_page_of_the_gpu_is_what_was_measured():
    """Oracle: its lines. A page that was changed by hand, or not made again, differs."""
    docs = HERE.parents[1] / "docs"
    written = (docs / "benchmarks-gpu.md").read_text(encoding="utf-8")
    assert page(lines_of(docs / "benchmarks-gpu.jsonl")) == written


def test_a_slower_row_says_so():
    """The best peer is the fastest that ran, not the first; one that failed is none."""
    common = {"workload": "M2", "low": 1.0, "high": 1.0, "n": 3}
    lines = [
        {"about": "here"},
        common | {"who": "kt", "median": 2.0, "err": 1e-7, "note": ["1048576 bytes"]},
        {"profile": "M2", "busy_ms": 1.0},
        common | {"who": "torch_func", "median": 9.0},
        common | {"who": "asdfghjkl", "median": 1.0},
        {"workload": "M2", "who": "nngeometry", "error": "out of memory"},
    ]
    assert "**Slower**: M2 (0.5×)" in page(lines)
    assert "| asdfghjkl |" in page(lines)
    assert "| 1 MiB |" in page(lines)
