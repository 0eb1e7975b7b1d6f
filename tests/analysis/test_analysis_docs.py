"""Every command and figure is documented, and the documented recipe for a figure works. Oracle: the registries."""

import re
from pathlib import Path

import pytest
import typer

from kerneltrack.analysis import load
from kerneltrack.analysis.cli import app
from kerneltrack.analysis.figures import Scene, choose, registered, registry

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


@pytest.mark.parametrize("command", sorted(typer.main.get_command(app).commands))
def test_every_command_is_documented(command):
    assert f"| `kerneltrack {command} " in (HOW_TO / "command-line.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list(registered()))
def test_every_figure_is_documented(name):
    assert f"`{name}`" in (HOW_TO / "add-a-figure.md").read_text(encoding="utf-8")


def test_no_figure_is_documented_that_does_not_exist():
    table = (HOW_TO / "add-a-figure.md").read_text(encoding="utf-8").partition("## The figures")[2]
    named = {
        name
        for row in table.splitlines()
        for name in re.findall(r"`([a-z-]+)`", row.partition("| ")[2].partition(" |")[0])
    }
    assert named == {*registered(), "runs"}


def test_the_recipe_works_as_written(archives, synthetic, truth, tmp_path, monkeypatch):
    (source,) = re.findall(
        r"```python\n(# "
        r"analysis/figures/gallery/mine\.py.*?)```",
        (HOW_TO / "add-a-figure.md").read_text("utf-8"),
        re.DOTALL,
    )
    registered()
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    exec(source, {})
    run = load(archives[0]).only
    with pytest.raises(registry.AnalysisError, match="needs 'condition_number'"):
        choose("condition")(Scene(run))
    values = run.dataset["trace"].rename("condition_number")
    import dataclasses

    whole = dataclasses.replace(run, dataset=run.dataset.assign(condition_number=values))
    drawn = choose("condition")(Scene(whole)).axes[0].lines[0].get_ydata()
    assert drawn.tolist() == [v.sum() for v in truth.eigenvalues.values()]


def test_every_observable_is_documented():
    from kerneltrack.observables import catalogue

    page = (HOW_TO.parent / "observables.md").read_text(encoding="utf-8")
    assert [name for name in catalogue() if f"| `{name}` |" not in page] == []


def test_every_page_of_the_docs_is_reached_from_the_index():
    """Oracle: the links of the pages themselves, followed from docs/index.md."""
    docs = HOW_TO.parent
    reached, waiting = set(), [docs / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)#]+\.md)", page.read_text(encoding="utf-8"))
        waiting += [target for link in links if (target := (page.parent / link).resolve()).exists()]
    assert set(docs.rglob("*.md")) <= reached
