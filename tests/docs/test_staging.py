"""What the site is made of, without building it. Oracles: the pages in docs/, the registry of figures, the catalogue."""

import importlib
import shlex

import pytest

from kerneltrack.analysis.figures import registered
from tests.docs.pages import ROOT

DOCS = ROOT / "docs"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(DOCS / "site"))
    patch.syspath_prepend(str(DOCS))
    staging, observable_cards, gallery_page = map(
        importlib.import_module, ("staging", "observable_cards", "gallery_page")
    )


def test_every_page_stands_in_the_contents_once():
    listed = [page for pages in staging.CONTENTS.values() for page in pages]
    assert len(listed) == len(set(listed))
    written = {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md")}
    assert written - {"index"} == {page for page in listed if page.partition("/")[0] not in ("api", "project")}


def test_the_gallery_is_up_to_date():
    """Oracle: the registry; run `python docs/gallery_page.py`."""
    assert (DOCS / "gallery.md").read_text(encoding="utf-8") == gallery_page.markdown(registered())


def test_the_gallery_shows_every_figure_and_its_call():
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    assert [name for name in [*registered(), "runs"] if f"### `{name}`" not in text] == []
    for name in gallery_page.names():
        program, command, *words = shlex.split(gallery_page.call(name))
        assert (program, command) == ("kerneltrack", "plot")
        assert words[words.index("--figure") + 1] == name
        assert f"```sh\n{gallery_page.call(name)}\n```" in text
    assert set(gallery_page.ARCHIVES) <= {*registered(), "runs"}


def test_every_observable_has_a_card_with_its_reading(tmp_path):
    observable_cards.write(tmp_path / "observables.md")
    text = (tmp_path / "observables.md").read_text(encoding="utf-8")
    ours = observable_cards.built_in()  # not what another test registers
    assert len(ours) > 90
    assert text.count('<dl class="card">') == len(ours)
    for name, entry in ours.items():
        assert f"### `{name}`\n" in text
        parts = observable_cards.parts(entry.reading)
        assert all(parts.values())
        higher, typical, beside = parts.values()
        assert f"Higher: {higher}. Typical: {typical}. Beside it: {beside}." == entry.reading


def test_a_fraction_is_not_broken_behind_its_slash():
    """By hand: U+2060 stands behind the slash, but in code, which is copied, and in paths."""
    given = "2N/η, λ_1/ρ_t and `2N/η`, docs/site\n```py\n# 2N/η\n```\nx/η"
    assert staging.whole_fractions(given) == (
        "2N/\u2060η, λ_1/\u2060ρ_t and `2N/η`, docs/site\n```py\n# 2N/η\n```\nx/\u2060η"
    )


def test_a_reading_without_its_three_parts_is_told():
    """Negative control."""
    with pytest.raises(ValueError, match="three parts"):
        observable_cards.parts("Higher: more. Beside it: trace.")
