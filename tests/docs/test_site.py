"""The built site, as a reader opens it: from its files, without a network. ``make docs-check`` builds it and runs these.

Oracles: headless Chromium (what it lays out, what it asks the network for, what the search shows), and the files themselves.
"""

import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from kerneltrack.analysis.figures import registered
from kerneltrack.observables import catalogue
from tests.docs.pages import ROOT, pages
from tests.docs.site_in_chromium import CHROMIUM, READER, SITE, linked_copy, visit

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")]


@pytest.fixture(scope="module", autouse=True)
def built():
    assert (SITE / "index.html").exists(), "there is no site: make docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return linked_copy(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def browsers_own(tmp_path_factory):
    """Hosts that the browser itself calls (the time, its updates), seen with an empty page."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "empty.html").write_text(f"<!doctype html><title>empty</title><body>{READER}</body>")
    hosts = {urlsplit(url).hostname for url in visit(folder / "empty.html", folder)[1]}
    assert not any(re.search("fonts|cdn|jsdelivr|unpkg", host) for host in hosts)
    return {*hosts, "clients2.google.com", "accounts.google.com", "android.clients.google.com", "redirector.gvt1.com"}


@pytest.mark.parametrize(
    "page", ["index", "tutorial", "gallery", "observables", "notation", "api/kerneltrack", "faq", "studies/digits"]
)
@pytest.mark.parametrize("width", [1200, 500])
def test_a_page_asks_for_nothing_and_fits(site, browsers_own, tmp_path, page, width):
    """500 is the narrowest window that Chromium opens."""
    seen, asked = visit(site / f"{page}.html", tmp_path, width=width)
    assert seen["requests"] == []
    assert {urlsplit(url).hostname for url in asked} <= browsers_own
    assert seen["broken"] == []
    assert seen["overflow"] <= 0


def test_a_request_is_seen(tmp_path):
    """Negative control: a picture from elsewhere, and a font."""
    extra = '<img src="https://fonts.example.org/a.png"><link rel="stylesheet" href="https://styles.example.org/a.css">'
    seen, asked = visit(linked_copy(tmp_path, extra) / "faq.html", tmp_path)
    assert {"https://fonts.example.org/a.png", "https://styles.example.org/a.css"} <= {*asked, *seen["requests"]}
    assert seen["broken"] == ["https://fonts.example.org/a.png"]


@pytest.mark.parametrize(("page", "fractions"), [("notation", 3), ("concepts/methods-and-cost", 2)])
def test_formulas_are_laid_out(site, tmp_path, page, fractions):
    """A fraction's numerator lies above its denominator: a browser that showed the source would have neither."""
    seen, _ = visit(site / f"{page}.html", tmp_path)
    assert len(seen["fractions"]) >= fractions
    assert all(seen["fractions"])
    text = (SITE / f"{page}.html").read_text(encoding="utf-8")
    assert not re.search(r"\\frac|\$\$", text)


@pytest.mark.parametrize(
    ("word", "page"),
    [("laziness", "tutorial.html"), ("empirical_ntk", "api/kerneltrack.html"), ("slurm", "hydra-and-slurm.html")],
)
def test_the_search_finds(site, browsers_own, tmp_path, word, page):
    seen, asked = visit(site / "search.html", tmp_path, f"?q={word}")
    assert any(page in href for _, href in seen["found"])
    assert seen["requests"] == []
    assert {urlsplit(url).hostname for url in asked} <= browsers_own


def test_the_search_does_not_find_everything(site, tmp_path):
    """Negative control."""
    assert visit(site / "search.html", tmp_path, "?q=xylophone")[0]["found"] == []


class Links(HTMLParser):
    """Of a page: where its links and files lead, and the anchors that it has."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.anchors, self.loaded = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors.update(filter(None, (given.get("id"), given.get("name"))))
        target = given.get("href") if tag in ("a", "link") else given.get("src")
        if target:
            self.targets.append(unquote(target))
            if tag != "a" and given.get("rel") not in ("canonical",):
                self.loaded.append(target)


def test_no_link_or_anchor_of_the_site_is_dead():
    """Raw HTML and the theme's own links too, which Sphinx does not look at. Oracle: the files and the anchors in them."""
    known = {page.resolve(): Links(page.read_text(encoding="utf-8")) for page in SITE.rglob("*.html")}
    dead = []
    for page, found in known.items():
        assert [target for target in found.loaded if re.match(r"(https?:)?//", target)] == [], page
        for target in found.targets:
            if re.match(r"(\w+:|#$|#!)", target):
                continue
            file, _, anchor = target.partition("#")
            goal = (page.parent / file.partition("?")[0]).resolve() if file else page
            if not goal.exists() or (anchor and goal in known and anchor not in known[goal].anchors):
                dead.append(f"{page.relative_to(SITE)}: {target}")
    assert dead == []
    assert sum(len(found.targets) for found in known.values()) > 1000


def test_every_page_figure_observable_and_public_name_is_there():
    for page in pages():
        if page.is_relative_to(ROOT / "docs"):
            assert (SITE / page.relative_to(ROOT / "docs").with_suffix(".html")).exists()
    gallery = (SITE / "gallery.html").read_text(encoding="utf-8")
    assert [name for name in registered() if f'alt="The figure {name}"' not in gallery] == []
    cards = (SITE / "observables.html").read_text(encoding="utf-8")
    assert [name for name in catalogue() if f">{name}</span></code>" not in cards] == []
    assert cards.count('<dl class="card') == len(catalogue())
    for name in ("kerneltrack.Probe", "kerneltrack.callbacks.NTKTracker", "kerneltrack.analysis.load"):
        assert any(f'id="{name}"' in page.read_text(encoding="utf-8") for page in (SITE / "api").glob("*.html"))
