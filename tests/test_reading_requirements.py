"""requirements-reading.txt is setup.cfg less torch and Lightning. Oracles: ``packaging``, and the imports of the source."""

from __future__ import annotations

import ast
import sys

from packaging.requirements import Requirement

from tests.reading_requirements import ROOT, TRAINING, requirements
from tests.test_layering import SOURCES
from tests.test_lowest import requirements as required

#: What pip calls otherwise than Python.
CALLED = {
    "fontTools": "fonttools",
    "PIL": "pillow",
    "pytorch_lightning": "pytorch-lightning",
    "lightning": "pytorch-lightning",
    "array_api_compat": "array-api-compat",
}


def written():
    lines = (ROOT / "requirements-reading.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def test_the_file_is_setup_cfgs_without_what_trains():
    """Fails where a bound changes there and not here: python tests/reading_requirements.py writes it."""
    needed = [r for r in required("options", "install_requires") if r.name not in TRAINING]
    assert list(map(str, written())) == list(map(str, needed))
    assert len(needed) == len(required("options", "install_requires")) - len(TRAINING)
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert (ROOT / "requirements-reading.txt").read_text(encoding="utf-8") == requirements(setup)


def test_everything_that_the_source_imports_is_required():
    """An import of a package that nothing brings. Oracle: the syntax trees of all files, functions included."""
    names = {r.name for r in required("options", "install_requires")}
    found = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                modules = [node.module] if node.level == 0 else []
            else:
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "kerneltrack":
                    found.setdefault(CALLED.get(top, top), str(path))
    # dask, scikit-learn and transformers, which brings safetensors, are used where they are there; markupsafe is what jinja2
    # is made of, and pandas names a type of what xarray makes by it
    optional = {"dask", "distributed", "markupsafe", "pandas", "safetensors", "sklearn", "transformers"}
    assert set(found) - names <= optional, found


def test_the_pages_say_the_same_line():
    """The one line for the lab next door names every package of the file, and no other."""
    for page in ("platforms.md", "format.md"):
        said = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert "pip install -r requirements-reading.txt && pip install --no-deps kerneltrack" in said
    line = next(line for line in said_in("platforms.md") if line.startswith("pip install --no-deps kerneltrack &&"))
    assert line.split("&& pip install ")[1].split() == [r.name for r in written()]


def said_in(page):
    return (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
