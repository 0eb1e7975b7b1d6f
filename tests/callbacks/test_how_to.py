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


@pytest.mark.parametrize("page", ["digits.md", "transformer.md", "tracker.md", "graphs.md"])
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
