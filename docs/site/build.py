"""Build the documentation's site, offline: ``python docs/site/build.py [--demo out] [--out build/site]``.

Open ``build/site/index.html``. Any warning is an error: a dead link, an anchor that no heading has, a page that stands in no list.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import main as sphinx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from staging import ROOT, stage  # noqa: E402 — beside this script


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "out", help="where `kerneltrack demo` wrote its archives")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="the folder of the site")
    given = parser.parse_args()
    source = given.out.with_name(given.out.name + "-source")
    stage(source, given.demo)
    shutil.rmtree(given.out, ignore_errors=True)
    doctrees = given.out.with_name(given.out.name + "-doctrees")
    options = ["--fail-on-warning", "--keep-going", "--fresh-env", "--quiet", "-b", "html"]
    failed = sphinx([*options, "-c", str(HERE), "-d", str(doctrees), str(source), str(given.out)])
    print(f"{given.out / 'index.html'}" if not failed else "the site has problems", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
