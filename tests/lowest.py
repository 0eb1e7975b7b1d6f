"""Prints the lower bound of everything that setup.cfg bounds, as pip's constraints: constraints-lowest.txt.

python tests/lowest.py > constraints-lowest.txt
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = "# What `make lowest` installs: every lower bound of setup.cfg. Written by tests/lowest.py, and a test compares them."


def bounds(text: str) -> dict[str, str]:
    """Package → the version that its ``>=`` names, in the text of a setup.cfg: what is needed, and what develops it."""
    options = configparser.ConfigParser()
    options.read_string(text)
    needed = options["options"]["install_requires"] + options["options.extras_require"]["dev"]
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[.*\])?>=([\d.]+)$", needed, re.M))


def constraints(text: str) -> str:
    """constraints-lowest.txt of a setup.cfg: one line a package."""
    return "\n".join([HEAD, *(f"{name}=={version}" for name, version in sorted(bounds(text).items()))]) + "\n"


if __name__ == "__main__":
    print(constraints((ROOT / "setup.cfg").read_text(encoding="utf-8")), end="")
