"""Every public name has an entry in the reference, and something to say there. Oracle: ``__all__``, and the docstrings."""

import importlib
import inspect
import sys
from pathlib import Path

import pytest

import kerneltrack
from tests.docs.pages import ROOT

sys.path.insert(0, str(ROOT / "docs" / "site"))
api_pages = importlib.import_module("api_pages")
sys.path.pop(0)

#: Every face, and the public modules that a face offers as names.
FACES = ["kerneltrack", "kerneltrack.callbacks", "kerneltrack.callbacks.transformers", "kerneltrack.analysis"] + [
    f"kerneltrack.{name}" for name in kerneltrack.__all__ if inspect.ismodule(getattr(kerneltrack, name))
]


def listed(page):
    return {name for names in api_pages.sections(page).values() for name in names}


def missing(page, names):
    """Public names without an entry on their page."""
    return sorted(set(names) - listed(page))


def test_every_face_has_a_page():
    assert {page.module for page in api_pages.PAGES.values()} == set(FACES)


@pytest.mark.parametrize("page", api_pages.PAGES.values(), ids=list(api_pages.PAGES))
def test_every_public_name_has_an_entry(page):
    module = api_pages.opened(page)
    names = set(api_pages.public_names(page))
    assert missing(page, names) == []
    assert listed(page) <= names, "an entry that is not public"
    for name in names:
        value = getattr(module, name)
        assert api_pages.VALUES.get(name) or inspect.getdoc(value), f"{name} says nothing"


def test_a_name_without_an_entry_is_told():
    """Negative control."""
    assert missing(api_pages.PAGES["kerneltrack"], {"Probe", "a_new_name"}) == ["a_new_name"]


def test_the_pages_are_written_with_every_name(tmp_path):
    """Oracle: the names, looked for in what Sphinx will read."""
    api_pages.write(tmp_path / "api")
    for name, page in api_pages.PAGES.items():
        text = (tmp_path / "api" / f"{name}.rst").read_text(encoding="utf-8")
        assert [each for each in listed(page) if f"{each}\n" not in text] == []
        assert "None" not in text


def test_methods_of_public_classes_say_what_they_do():
    """What a user calls on an object is documented as the object is; a method may inherit its docstring."""
    silent = [
        f"{value.__name__}.{method}"
        for page in api_pages.PAGES.values()
        for name in listed(page)
        if inspect.isclass(value := getattr(api_pages.opened(page), name))
        and value.__module__.startswith("kerneltrack")
        for method, found in tuple(vars(value).items())
        if inspect.isfunction(found)
        and not method.startswith("_")
        and method not in getattr(value, "__annotations__", {})
        if not inspect.getdoc(getattr(value, method))
    ]
    assert silent == []


def test_the_package_is_the_installed_one():
    assert Path(kerneltrack.__file__).is_relative_to(ROOT)
