"""What `make lowest` installs is what setup.cfg promises. Oracle: the requirements as ``packaging`` reads them."""

from __future__ import annotations

import configparser
import re

from packaging.requirements import Requirement

from tests.lowest import ROOT, constraints


def requirements(section, option):
    options = configparser.ConfigParser()
    options.read(ROOT / "setup.cfg")
    lines = (line for line in options[section][option].splitlines() if line and not line.startswith("#"))
    return [Requirement(line) for line in lines]


def test_the_constraints_are_the_lower_bounds():
    """Fails where a bound of setup.cfg changes and constraints-lowest.txt does not: python tests/lowest.py writes it."""
    needed = requirements("options", "install_requires")
    bounded = [r for r in needed + requirements("options.extras_require", "dev") if r.specifier]
    assert all([specifier.operator for specifier in r.specifier] == [">="] for r in needed)
    written = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([^#=\s]+)==(\S+)$", written, re.M))
    assert pinned == {r.name: next(iter(r.specifier)).version for r in bounded}
    assert written == constraints((ROOT / "setup.cfg").read_text(encoding="utf-8"))


def test_the_part_of_the_suite_exists():
    """A file that is renamed leaves `make lowest`. Oracle: the folders."""
    named = re.search(r"^LOWEST_TESTS := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[1]
    patterns = named.replace("\\\n", " ").split()
    assert len(patterns) > 10
    assert [pattern for pattern in patterns if not list(ROOT.glob(pattern))] == []
