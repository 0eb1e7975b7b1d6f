"""The documentation as a reader on the repository's host sees it: pages, the links in them, the anchors of their headings."""

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
AT_THE_ROOT = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")


def pages():
    """Every Markdown page of the repository that is written for readers."""
    return [ROOT / name for name in AT_THE_ROOT] + sorted((ROOT / "docs").rglob("*.md"))


@cache
def inline_tokens(path):
    """(what the inline text belongs to, its line, its tokens) of a page."""
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))
    kinds = ["", *(token.type for token in tokens)]
    return [
        (kind, token.map[0] + 1, token.children) for kind, token in zip(kinds, tokens, strict=False) if token.children
    ]


def links(path):
    """(line, target) of every link and picture of a page, as they are written."""
    found = []
    for _, line, tokens in inline_tokens(path):
        for token in tokens:
            target = token.attrGet("href") or token.attrGet("src")
            if target is not None:
                found.append((line, unquote(str(target))))
    return found


@cache
def anchors(path):
    """The anchors that the host gives to a page's headings: lower case, punctuation off, hyphens for spaces, twins counted."""
    found: dict[str, int] = {}
    result = set()
    for kind, _, tokens in inline_tokens(path):
        if kind != "heading_open":
            continue
        text = "".join(token.content for token in tokens if token.type in ("text", "code_inline"))
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        result.add(slug if slug not in found else f"{slug}-{found[slug]}")
        found[slug] = found.get(slug, 0) + 1
    return result


def dead(path):
    """What is wrong with a page's links, one line each."""
    problems = []
    for line, target in links(path):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        goal = (path.parent / file).resolve() if file else path
        if not goal.exists():
            problems.append(f"{path.name}:{line}: there is no {target}")
        elif anchor and anchor not in anchors(goal):
            problems.append(f"{path.name}:{line}: {goal.name} has no heading #{anchor}")
    return problems
