"""Run what a page says, as a reader would."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page, language):
    """The fenced blocks of a page in one language, in their order; the page by its path in docs/, without the ending."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / f"{page}.md").read_text(encoding="utf-8"), flags=re.DOTALL)


def run(page, **names):
    """Run a page's Python, block by block, in one namespace; returns it."""
    names |= {"__name__": page}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), names)
    return names
