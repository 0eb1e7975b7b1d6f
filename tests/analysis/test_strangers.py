"""Strangers' archives of the right form with insane values: every offline command ends in order.

Oracle: what a person must be able to rely on. An exit code of 0, 1 or 2; on failure one printable line and no file; on
success the file that was asked for and no other; nothing of a text out of the archive acts in a terminal, a page or an
SVG. Nothing is said of the numbers: they are the stranger's.
"""

import json
import os
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import markdown_it
import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    """What came of every command that is planned for a case."""
    return lived(tmp_path_factory.mktemp("strangers"))


def lived(folder, *options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "foreign_archives.py"), str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3600, check=False)
    assert done.returncode == 0, done.stderr
    return list(map(json.loads, done.stdout.splitlines()))


def acting(text):
    """Characters that a terminal would not show but obey."""
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}


class Tags(HTMLParser):
    """What a browser would make of a page: the tags, and the attributes that run something."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.handlers = set(), set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.handlers |= {name for name, _ in attrs if name.startswith("on")}


def active(path):
    """Tags of a page or a drawing that come from a text, and attributes that run something."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = markdown_it.MarkdownIt().render(text)
    if path.suffix == ".svg":
        items = list(ElementTree.fromstring(text).iter())
        tags = {item.tag.rpartition("}")[2] for item in items}
        return {name for name in tags if name in ("script", "evil-tag")} | {
            name for item in items for name in item.attrib if name.startswith("on")
        }
    found = Tags(text)
    return ({"evil-tag", *(["img"] if path.suffix == ".md" else [])} & found.tags) | found.handlers


def faults(life):
    """What is wrong with one command on one archive."""
    found = []
    if life["code"] not in (0, 1, 2):
        found.append(f"exit code {life['code']}: {life['stderr'][-400:]}")
    elif life["code"] and life["command"] != "check":
        lines = life["stderr"].splitlines()
        if len(lines) != 1 or not lines[0].startswith("kerneltrack: ") or len(lines[0]) > 5000:
            found.append(f"not one line: {life['stderr'][:400]!r}")
    elif life["stderr"]:
        found.append(f"said aside: {life['stderr'][:400]!r}")
    found += [f"{c!r} in {name}" for name in ("stdout", "stderr") for c in acting(life[name])]
    own = f"/{life['case']}/{life['command']}/"
    found += [f"wrote {path}" for path in life["written"] if own not in path or life["code"]]
    for path in map(Path, life["written"]):
        if path.suffix in (".html", ".svg", ".md"):
            found += [f"{what} in {path.name}" for what in active(path)]
        if path.suffix in (".html", ".svg", ".md", ".cff"):
            found += [f"{c!r} in {path.name}" for c in acting(path.read_text(encoding="utf-8")) - {"\t"}]
    if life["megabytes"] > 1024 or life["seconds"] > 30:
        found.append(f"{life['megabytes']} MB, {life['seconds']:.0f} s")
    return [f"{life['case']}, {life['command']}: {fault}" for fault in found]


def test_every_command_ends_in_order(lives):
    assert [fault for life in lives for fault in faults(life)] == []


@pytest.mark.nightly
def test_every_command_ends_in_order_on_every_archive(tmp_path):
    assert [fault for life in lived(tmp_path, "--every") for fault in faults(life)] == []


def test_the_honest_archive_passes_every_command(lives):
    """Negative control: they do not refuse everything, and a page is made of texts that are insane."""
    good = {life["command"]: life["code"] for life in lives if life["case"] == "good"}
    assert good == dict.fromkeys(good, 0)
    assert {"check", "publish"} < set(good)
    assert [life["code"] for life in lives if life["command"] == "report"] == [0]


def test_the_judge_sees_each_fault(tmp_path):
    """Negative control of the judge itself."""
    page = tmp_path / "c" / "report" / "p.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p></script><evil-tag onload=alert(1)></p>\x1b")
    card = page.with_suffix(".md")
    card.write_text("a <evil-tag> ![b](c)")
    svg = page.with_suffix(".svg")
    svg.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>")
    life = {
        "case": "c",
        "command": "report",
        "code": 0,
        "stdout": "",
        "stderr": "",
        "written": [],
        "seconds": 1,
        "megabytes": 1,
    }
    assert faults(life) == []
    for change, said in (
        ({"code": 99, "stderr": "Traceback"}, "exit code 99"),
        ({"code": -9}, "exit code -9"),
        ({"code": 2, "stderr": "kerneltrack: a\nb\n"}, "not one line"),
        ({"stderr": "Warning: x"}, "said aside"),
        ({"stdout": "\x1b[31m"}, "in stdout"),
        ({"stdout": "\u202e"}, "in stdout"),
        ({"written": ["/etc/x"]}, "wrote /etc/x"),
        ({"code": 1, "stderr": "kerneltrack: no\n", "written": [str(page)]}, "wrote"),
        ({"seconds": 31}, "31 s"),
        ({"written": [str(page)]}, "evil-tag in p.html"),
        ({"written": [str(page)]}, "onload in p.html"),
        ({"written": [str(page)]}, "'\\x1b' in p.html"),
        ({"written": [str(svg)]}, "script in p.svg"),
        ({"written": [str(card)]}, "evil-tag in p.md"),
        ({"written": [str(card)]}, "img in p.md"),
    ):
        assert any(said in fault for fault in faults(life | change)), said
