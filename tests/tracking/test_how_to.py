"""The page on loops of one's own runs as written. Oracle: the assertions in it, and each of them turned round."""

import re
import warnings

import pytest

from kerneltrack.archive import check
from tests.callbacks.test_how_to import HOW_TO, run

TEXT = (HOW_TO / "any-loop.md").read_text(encoding="utf-8")


def test_the_page_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = run(TEXT, "any-loop.md")
    for archive in ("run.h5", "accumulated.h5", "clipped.h5", "resumed.h5"):
        assert not list(check(tmp_path / archive))
    *_, last = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    _, looks = last.split('with kt.open_archive("resumed.h5")')
    assert "[0, 2, 4, 6, 7]" in looks
    with pytest.raises(AssertionError, match=r"^$"):  # the negative control
        exec('with kt.open_archive("resumed.h5")' + looks.replace("[0, 2, 4, 6, 7]", "[0, 2, 4, 5, 6, 7]"), names)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")
def test_the_page_on_fabric_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (HOW_TO / "fabric.md").read_text(encoding="utf-8")
    names = run(text, "fabric.md")
    assert not list(check(tmp_path / "run.h5"))
    _, looks, _ = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    with pytest.raises(AssertionError, match=r"^$"):  # the negative control
        exec(looks.replace("[0, 5, 10, 15, 18]", "[0, 5, 10, 15]"), names)


def test_the_page_on_transformers_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (HOW_TO / "hugging-face.md").read_text(encoding="utf-8")
    names = run(text, "hugging-face.md")
    for archive in ("run.h5", "handed.h5"):
        assert not list(check(tmp_path / archive))
    *_, looks, _, _ = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    with pytest.raises(AssertionError, match=r"^$"):  # the negative control
        exec(looks.replace("== 6 * 16", "== 6 * 8"), names)


@pytest.mark.parametrize("page", ["any-loop.md", "fabric.md", "hugging-face.md"])
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#:]+)[^)]*\)", (HOW_TO / page).read_text(encoding="utf-8"))
    assert links
    assert all((HOW_TO / link).exists() for link in links)
