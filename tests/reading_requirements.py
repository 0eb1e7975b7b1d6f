"""Prints what reading and analysis need of what setup.cfg requires: all but torch and Lightning, requirements-reading.txt.

python tests/reading_requirements.py > requirements-reading.txt
"""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAINING = ("torch", "pytorch-lightning")
HEAD = """\
# What reading and analysing archives needs, without torch and Lightning:
#     pip install -r requirements-reading.txt && pip install --no-deps kerneltrack
# Written by tests/reading_requirements.py from setup.cfg, and a test compares them."""


def requirements(text: str) -> str:
    """requirements-reading.txt of a setup.cfg, with its bounds and in its order."""
    options = configparser.ConfigParser()
    options.read_string(text)
    lines = [line for line in options["options"]["install_requires"].splitlines() if line and not line.startswith("#")]
    return "\n".join([HEAD, *(line for line in lines if line.partition(">=")[0] not in TRAINING)]) + "\n"


if __name__ == "__main__":
    print(requirements((ROOT / "setup.cfg").read_text(encoding="utf-8")), end="")
