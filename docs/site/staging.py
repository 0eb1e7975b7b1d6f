"""The pages as Sphinx reads them: the Markdown of docs/, with what only a site has added where it belongs.

The pages themselves stay plain Markdown, which the repository's host shows as it is. A copy of them gets its contents
(every page in one tree), the pictures of the gallery, the observables as cards, and the reference of the interface.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import api_pages
import gallery_pictures
import observable_cards

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent

#: Caption → pages, in the order of the side bar; "api/" stands for the pages of the reference.
CONTENTS: Mapping[str, tuple[str, ...]] = {
    "Begin": ("tutorial", "faq", "comparison"),
    "How to": (
        "how-to/tracker", "how-to/did-my-decay-do-anything", "how-to/any-loop", "how-to/fabric", "how-to/hugging-face",
        "how-to/kernel-from-elsewhere", "how-to/infinite-width",
        "how-to/standard-probes", "how-to/loggers", "how-to/notebooks",
        "how-to/hydra-and-slurm", "how-to/lightning-cli", "how-to/resume", "how-to/several-processes", "how-to/share",
        "how-to/command-line", "how-to/summary", "how-to/analyses", "how-to/digits", "how-to/transformer", "how-to/graphs",
        "how-to/add-an-observable", "how-to/add-a-figure",
    ),
    "Understand": ("concepts/questions", "notation", "concepts/stages", "concepts/methods-and-cost"),
    "Look up": ("gallery", "observables", "api/index", "format", "setups", "platforms"),
    "Measured": (
        "demo", "benchmarks", "benchmarks-gpu", "benchmarks-overhead", "benchmarks-archive", "benchmarks-many-archives",
        "benchmarks-long-runs", "benchmarks-analyses",
        "forecast-calibration",
    ),
    "Studies": (
        "studies/README", "studies/summary", "studies/digits", "studies/spectrum-alignment/README",
        "studies/alignment-contrast/README", "studies/alignment-speed/README", "studies/width-sweep/README",
        "studies/natural-gradient/README", "studies/uncertainty/README", "studies/bandits/README",
        "studies/continual-learning/README",
        "studies/real-networks/README", "studies/conjugate-kernel/README", "studies/biased-ntk/README",
        "studies/linear-and-infinite/README", "studies/adversarial-kernel/README", "studies/grokking/README",
        "studies/fine-tuning/README",
        "studies/fast-ntk/README",
    ),
    "Project": ("project/contributing", "project/changelog"),
}  # fmt: skip


def stage(source: Path, demo: Path) -> None:
    """Write every page of the site into ``source``, which is emptied first.

    Args:
        source: the folder that Sphinx reads.
        demo: where ``kerneltrack demo --out`` wrote its two archives; the gallery is drawn from them.
    """
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("site", "__pycache__"))
    _append(source / "index.md", contents())
    (source / "project").mkdir()
    for name in ("CONTRIBUTING", "CHANGELOG"):
        text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
        (source / "project" / f"{name.lower()}.md").write_text(text.replace("](docs/", "](../"), encoding="utf-8")
    for page in source.rglob("*.md"):
        page.write_text(_with_project_links(page, source), encoding="utf-8")
    observable_cards.write(source / "observables.md")
    gallery_pictures.write(source / "gallery.md", demo)
    api_pages.write(source / "api")
    for page in source.rglob("*.md"):
        page.write_text(whole_fractions(page.read_text(encoding="utf-8")), encoding="utf-8")


def whole_fractions(text: str) -> str:
    """The text with a word joiner behind the slash of a fraction as 2N/η, where browsers break a line; code stays as it is."""
    return re.sub(
        r"```.*?```|`[^`]*`|(?<=\w)/(?=[α-ω])",
        lambda found: "/\u2060" if found[0] == "/" else found[0],
        text,
        flags=re.DOTALL,
    )


def contents() -> str:
    """The tree of all pages, as Sphinx's directives; the side bar shows it, the page does not."""
    return "".join(
        "\n```{toctree}\n:hidden:\n:caption: " + caption + "\n\n" + "\n".join(pages) + "\n```\n"
        for caption, pages in CONTENTS.items()
    )


def _with_project_links(page: Path, source: Path) -> str:
    """The text of a page, its links to the pages at the repository's root led to their places in the site."""
    up = "../" * (len(page.relative_to(source).parts) - 1)
    return re.sub(
        r"\]\((?:\.\./)+(CONTRIBUTING|CHANGELOG)\.md",
        lambda found: f"]({up}project/{found[1].lower()}.md",
        page.read_text(encoding="utf-8"),
    )


def _append(page: Path, text: str) -> None:
    page.write_text(page.read_text(encoding="utf-8") + text, encoding="utf-8")
