"""The long description: README.md with absolute links, since an index shows it beside no files. All else is setup.cfg."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from setuptools import setup

#: Code, which stays as it is; or what a relative link stands behind in Markdown and in HTML, and the link.
_LINK = re.compile(
    r"^```.*?^```|`[^`\n]*`"
    r"|(?P<before>\]\(|^\[[^\]\n]+\]:[ ]+|\b(?:src|href)=[\"'])(?P<target>[^\s\"'<>)#:/][^\s\"'<>):]*)(?=[\s\"')]|$)",
    re.MULTILINE | re.DOTALL,
)
_PICTURES = (".png", ".svg", ".jpg", ".gif")


def absolute(text: str, source: str, version: str) -> str:
    """A page with its relative links made absolute: at the tag of its version, pictures as raw files.

    >>> absolute("[a](docs/a.md#b), ![c](d.png), [e](https://f.org), [g](#g)", "https://s.org/k", "1.0")
    '[a](https://s.org/k/blob/v1.0/docs/a.md#b), ![c](https://s.org/k/raw/v1.0/d.png), [e](https://f.org), [g](#g)'
    """

    def linked(found: re.Match[str]) -> str:
        if found["target"] is None:
            return found[0]
        target = found["target"].removeprefix("./")
        kind = "raw" if target.partition("#")[0].lower().endswith(_PICTURES) else "blob"
        return f"{found['before']}{source}/{kind}/v{version}/{target}"

    return _LINK.sub(linked, text)


def long_description(root: Path) -> str:
    """README.md of a checkout as an index shows it."""
    options = configparser.ConfigParser()
    options.read(root / "setup.cfg", encoding="utf-8")
    urls = dict(line.split(" = ") for line in options["metadata"]["project_urls"].split("\n") if line)
    readme = (root / "README.md").read_text(encoding="utf-8")
    return absolute(readme, urls["Source"], options["metadata"]["version"])


if __name__ == "__main__":
    setup(long_description=long_description(Path(__file__).parent))
