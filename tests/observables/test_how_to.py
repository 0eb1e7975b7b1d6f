"""The how-to's code runs as written, in its order. Oracle: the assertions it contains."""

import re
from pathlib import Path

import numpy as np
import pytest

from kerneltrack import observables
from kerneltrack.archive import ArchiveWriter
from kerneltrack.observables import registry
from kerneltrack.snapshot import ProbeRecord, Snapshot

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-an-observable.md"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))

    def run(text, count):
        blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        assert len(blocks) == 4
        names = {}
        for block in blocks[:count]:
            exec(compile(block, str(PAGE), "exec"), names)

    return run


def test_the_page_runs_as_written(run):
    run(PAGE.read_text(encoding="utf-8"), 4)
    assert "modes_for_target" in observables.catalogue()


def test_a_page_with_a_wrong_answer_would_be_seen(run):
    # The negative control. A bare assert in executed code has no message.
    wrong = PAGE.read_text(encoding="utf-8").replace('["modes_for_target"] == 2', '["modes_for_target"] == 3')
    with pytest.raises(AssertionError, match=r"^$"):
        run(wrong, 3)


def test_the_notation_s_code_runs_on_an_archive(problem, tmp_path, monkeypatch):
    # Oracle: the distance of the two kernels that the archive did not keep.
    monkeypatch.chdir(tmp_path)
    first = problem.state("trace")
    problem.jacobian = problem.jacobian + 0.3 * np.random.default_rng(0).standard_normal(problem.jacobian.shape)
    last = problem.state("trace")
    record = ProbeRecord(name="probe", fingerprint="sha256:" + "0" * 64, count=7, targets=problem.targets)
    with ArchiveWriter("run.h5", probes=[record]) as writer:
        for step, state in enumerate((first, last)):
            writer.append(Snapshot(step=step, probes={"probe": observables.measurement(state, top_k=5)}))
    text = (PAGE.parents[1] / "notation.md").read_text(encoding="utf-8")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, "notation.md", "exec"), names)
    assert names["low"] <= 1 - observables.kernel_distance(first.kernel, last.kernel) <= names["high"]


@pytest.mark.parametrize("page", ["notation.md", "how-to/add-an-observable.md", "observables.md"])
def test_links_lead_to_files(page):
    path = PAGE.parents[1] / page
    missing = [
        link
        for link in re.findall(r"\]\(([^)#:]+)[^)]*\)", path.read_text(encoding="utf-8"))
        if not (path.parent / link).exists()
    ]
    assert not missing


def test_the_notation_names_only_observables_that_exist():
    text = (PAGE.parents[1] / "notation.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text))
    known = set(observables.catalogue()) | {"mode_sums", "mean_trace_factor", "stability_scope", "probe_in_training"}
    needs = set(observables.NEEDS)
    assert named <= known | needs, named - known - needs
