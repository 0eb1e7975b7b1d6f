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


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)#:]+)[^)]*\)", TEXT)
    assert links
    assert all((HOW_TO / link).exists() for link in links)
