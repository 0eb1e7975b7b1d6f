"""What the package says of itself, as far as nothing has to be built: `make release-check` builds it.

Oracles: the README's files on disk, the interpreters that pip would admit, and the lists of other people.
"""

from __future__ import annotations

import configparser
import re
import runpy

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tests.lowest import ROOT

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
absolute = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["absolute"]
described = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["long_description"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def lines(section, option):
    return [line for line in SETUP[section][option].splitlines() if line and not line.startswith("#")]


def test_every_folder_of_code_is_a_package():
    """Oracle: the folders on disk. One that is not listed is missing from the wheel."""
    where = {"kerneltrack": "kerneltrack", "callbacks": "kerneltrack.callbacks", "analysis": "kerneltrack.analysis"}
    found = {
        ".".join([where[folder], *path.parent.relative_to(ROOT / folder).parts])
        for folder in where
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(lines("options", "packages")) == found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[a](docs/a.md)", "[a](S/blob/v1/docs/a.md)"),
        ("[a](./docs/a.md#part)", "[a](S/blob/v1/docs/a.md#part)"),
        ("![a](docs/a.PNG)", "![a](S/raw/v1/docs/a.PNG)"),
        ("[![a](docs/a.png)](docs/b.html)", "[![a](S/raw/v1/docs/a.png)](S/blob/v1/docs/b.html)"),
        ('[a](docs/a.md "title")', '[a](S/blob/v1/docs/a.md "title")'),
        ('<img src="docs/a.svg" width="80">', '<img src="S/raw/v1/docs/a.svg" width="80">'),
        ("<a href='docs/a.md'>", "<a href='S/blob/v1/docs/a.md'>"),
        ("[a]: docs/a.md", "[a]: S/blob/v1/docs/a.md"),
        ("[`x`](docs/a.md)", "[`x`](S/blob/v1/docs/a.md)"),
        *((same, same) for same in (
            "[a](https://x.org/y)", "[a](#here)", "[a](mailto:a@x.org)", "[a](/root)", "`x[0](y)`",
            "```python\nf[0](y)\n```", "text (in brackets)",
        )),
    ],
)  # fmt: skip
def test_relative_links_become_absolute(given, expected):
    assert absolute(given, "S", "1") == expected


def test_the_long_description_has_no_relative_link():
    """And what its links name at the tag is in the checkout."""
    source = dict(line.split(" = ") for line in lines("metadata", "project_urls"))["Source"]
    text = re.sub(r"```.*?```", "", described(ROOT), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert [target for target in targets if not re.match(r"https://|#|mailto:", target)] == []
    own = re.compile(rf"{re.escape(source)}/(?:blob|raw)/v{re.escape(SETUP['metadata']['version'])}/([^#]+)")
    named = [found[1] for target in targets if (found := own.fullmatch(target.partition("#")[0]))]
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_pythons_are_those_that_pip_admits():
    said = {c.rpartition(" ")[2] for c in lines("metadata", "classifiers") if re.search(r":: 3\.\d+$", c)}
    admitted = SpecifierSet(SETUP["options"]["python_requires"])
    assert said == {f"3.{minor}" for minor in range(8, 14) if f"3.{minor}" in admitted}


def test_windows_is_not_promised():
    """docs/platforms.md says what works there."""
    systems = {c for c in lines("metadata", "classifiers") if c.startswith("Operating System")}
    assert systems == {"Operating System :: POSIX :: Linux", "Operating System :: MacOS"}
    assert "Windows" in (ROOT / "docs" / "platforms.md").read_text(encoding="utf-8")


def test_the_address_stands_in_one_place():
    """Whoever gives the project an address changes setup.cfg and nothing else."""
    host = SETUP["metadata"]["project_urls"].split("://", 1)[1].partition("/")[0]
    tracked = [path for pattern in ("*.md", "*.cff", "docs/**/*.md", "paper/*") for path in ROOT.glob(pattern)]
    assert len(tracked) > 20
    assert [str(path) for path in tracked if host in path.read_text(encoding="utf-8")] == []


def test_the_citation_is_of_this_version_and_names_the_four_papers():
    """Oracle: PyYAML and the papers' own identifiers; `make release-check` asks the format's schema."""
    assert (CITATION["cff-version"], CITATION["type"]) == ("1.2.0", "software")
    assert (CITATION["version"], CITATION["license"]) == (SETUP["metadata"]["version"], "MIT")
    named = {r.get("doi") or r["identifiers"][0]["value"] for r in CITATION["references"]}
    papers = {"10.1007/978-3-030-61616-8_14", "arXiv:2310.00137", "arXiv:2511.07272", "arXiv:2206.08720"}
    assert named == papers
    assert all(r["title"] and r["year"] and r["authors"] for r in CITATION["references"])
    assert re.search(r"^# doi: 10\.", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    bibliography = (ROOT / "paper" / "paper.bib").read_text(encoding="utf-8")
    assert [paper for paper in papers if paper.removeprefix("arXiv:") not in bibliography] == []


def test_every_extra_says_why():
    """A comment above each extra's first requirement, and no extra is empty."""
    text = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    section = text.partition("[options.extras_require]")[2].partition("\n[")[0]
    extras = re.findall(r"((?:^#.*\n)*)^(\w+) =\n((?:^[ ]+.+\n)+)", section, re.MULTILINE)
    assert {"transformers", "cluster", "dev"} <= {name for _, name, _ in extras}
    for comment, name, needed in extras:
        assert comment or name == "dev", name
        assert needed.strip(), name
