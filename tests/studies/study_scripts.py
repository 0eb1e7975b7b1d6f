"""The scripts of docs/studies as modules."""

import importlib.util
import sys
from pathlib import Path

STUDIES = Path(__file__).parents[2] / "docs" / "studies"


def script(name):
    """A study's study.py, under a name of its own; the modules beside it can be imported from then on."""
    sys.path[:0] = [str(STUDIES), str(STUDIES / name)]
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), STUDIES / name / "study.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def committed_page_is_of_its_results(name, page):
    """README.md beside a study is what ``page`` makes of the results.json beside it, which are those of desk size."""
    from results import Results

    results = Results.read(STUDIES / name / "results.json")
    assert results.size == "desk"
    assert (STUDIES / name / "README.md").read_text(encoding="utf-8") == page(results)


def made_of_results_alone(results, page, figure, folder):
    """What was measured and what its file holds give the same page, without a NaN; the figure is drawn of the file."""
    results.write(folder / "results.json")
    read = type(results).read(folder / "results.json")
    text = page(read)
    assert text == page(results)
    assert "nan" not in text
    figure(read, folder / "figure.png")
    assert (folder / "figure.png").stat().st_size > 10_000
