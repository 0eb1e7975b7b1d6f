"""No page has a dead link or anchor, as plain Markdown on the repository's host. Oracle: the files, and their headings."""

import pytest

from tests.docs.pages import anchors, dead, links, pages


def test_no_link_is_dead():
    assert [problem for page in pages() for problem in dead(page)] == []


def test_many_links_were_looked_at():
    """A page without links would pass the test above."""
    found = [target for page in pages() for _, target in links(page)]
    assert len(found) > 100
    assert sum("#" in target for target in found) > 15


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("[a](b.md)", "page.md:3: there is no b.md"),
        ("![a](figures/none.png)", "page.md:3: there is no figures/none.png"),
        ("[a](other.md#nothing)", "page.md:3: other.md has no heading #nothing"),
        ("[a](#titles)", "page.md:3: page.md has no heading #titles"),
        ("| [a](b.md) |\n| --- |", "page.md:3: there is no b.md"),
    ],
)
def test_a_dead_link_is_told(tmp_path, link, problem):
    """Negative control, of every kind of link."""
    (tmp_path / "other.md").write_text("# Other\n")
    (tmp_path / "page.md").write_text(f"# Title\n\n{link}\n\n[there](other.md#other) and `[code](is-none.md)`\n")
    assert dead(tmp_path / "page.md") == [problem]


def test_anchors_are_those_of_the_host(tmp_path):
    """Oracle: what GitHub makes of these headings, read off its pages."""
    text = '# "Was followed by" and `E(φ, k)`\n\n## Twice\n\n## Twice\n\n## A-b: c, d_e (f)?\n'
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    assert anchors(tmp_path / "page.md") == {"was-followed-by-and-eφ-k", "twice", "twice-1", "a-b-c-d_e-f"}
