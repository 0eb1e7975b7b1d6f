"""The how-to pages run as written, block by block. Oracle: the assertions in them, and one that is made wrong."""

import re
from pathlib import Path

import pytest

from kerneltrack.archive import check

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def run(text, name):
    names = {"__name__": name}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, name, "exec"), names)
    return names


@pytest.mark.parametrize(
    ("page", "archive", "wrong"),
    [
        ("digits.md", "digits.h5", ("> 2 * by_chance", "< 2 * by_chance")),
        ("transformer.md", "sums.h5", ("[True, True, False, False]", "[True, False, False, False]")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval.*", "ignore:.*does not have many workers.*")
def test_a_page_runs_as_written(tmp_path, monkeypatch, capsys, page, archive, wrong):
    monkeypatch.chdir(tmp_path)
    text = (HOW_TO / page).read_text(encoding="utf-8")
    if page == "digits.md":
        pytest.importorskip("sklearn")
    names = run(text, page)
    assert not list(check(tmp_path / archive))
    *_, last = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert wrong[0] in last
    with pytest.raises(AssertionError, match=r"^$"):  # the negative control: the page's own assertion, turned round
        exec(last.replace(*wrong), names)


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*", "ignore:.*logging interval.*"
)
def test_the_page_on_decays_runs_as_written(tmp_path, monkeypatch, capsys):
    """From a Trainer to the sentence in twenty lines; the sentence speaks of an effect, and of its control."""
    monkeypatch.chdir(tmp_path)
    text = (HOW_TO / "did-my-decay-do-anything.md").read_text(encoding="utf-8")
    _, short, looks, _, _ = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len([line for line in short.splitlines() if line.strip()]) <= 20
    names = run(text, "did-my-decay-do-anything.md")
    said = capsys.readouterr()
    assert "at step 120: kerneltrack.callbacks.run_control(tracker.forks[0]," in said.err
    assert "at step 120: kt.control_run(tracker.forks[0], update)" in said.err
    assert "What did the change of the rate do?" in said.out
    assert "of the control's" in said.out
    for archive in ("run.h5", "run-control-120.h5", "loop.h5", "loop-control-120.h5"):
        assert not list(check(tmp_path / archive))
    assert names["forecast"].horizon
    with pytest.raises(AssertionError, match=r"^$"):  # the negative control
        exec(looks.replace("same_batches", "other_batches"), names)


@pytest.mark.parametrize(
    "page", ["digits.md", "transformer.md", "tracker.md", "graphs.md", "did-my-decay-do-anything.md"]
)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#:]+)[^)]*\)", (HOW_TO / page).read_text(encoding="utf-8"))
    assert links
    assert all((HOW_TO / link).exists() for link in links)


def test_the_page_on_graphs_runs_as_written():
    """Oracle: the page's own double loop over autograd. Its negative control: another graph has another kernel."""
    text = (HOW_TO / "graphs.md").read_text(encoding="utf-8")
    names = run(text, "graphs.md")
    bag, first = names["bag"].weight, names["theta"][0, 0]
    shares = names["tokens"][:3].bincount(minlength=len(bag)).double() / 3  # a bag's output is the mean of three rows
    assert (first.diagonal() - (shares**2).sum()).abs().max() < 1e-14
    *_, last = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    with pytest.raises(AssertionError, match=r"^$"):
        exec(last, names | {"edges": names["edges"].flip(0)})
