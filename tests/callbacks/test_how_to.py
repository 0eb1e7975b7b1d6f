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
        ("digits.md", "digits.h5", ("> 2 * fits_dice", "< 2 * fits_dice")),
        ("transformer.md", "sums.h5", ("[True, False, False, False]", "[True, True, False, False]")),
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


@pytest.mark.parametrize("page", ["digits.md", "transformer.md", "tracker.md"])
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#:]+)[^)]*\)", (HOW_TO / page).read_text(encoding="utf-8"))
    assert links
    assert all((HOW_TO / link).exists() for link in links)
