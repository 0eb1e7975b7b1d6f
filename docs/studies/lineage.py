"""The code that makes a study's numbers: each definition that its sizes and its runs reach, in its folder and in this one.

It begins at SIZES and ``measure`` of study.py, and follows names through imports. What makes text of numbers or keeps them is not
followed (:data:`TEXT`): a test makes every page again from its results. Comments, docstrings and layout do not count, and neither
does the file in which a definition stands. A class counts whole. kerneltrack and other packages are not followed.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

BEGINNINGS = ("SIZES", "measure")
TEXT = re.compile(r"(page|pages|claims|results|command)$")
DOCUMENTED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
#: Of a file, the text that some commit has of it, or that it has now; None where it is not there.
Read = Callable[[Path], str | None]


def now(path: Path) -> str | None:
    """As the file is."""
    return path.read_text(encoding="utf-8") if path.exists() else None


def lineage(home: Path, read: Read = now) -> set[tuple[str, str]]:
    """Name and code of every definition that makes the numbers of the study in a folder."""
    modules: dict[Path, Module | None] = {}

    def module(path: Path) -> Module | None:
        if path not in modules:
            text = None if TEXT.search(path.stem) else read(path)
            modules[path] = None if text is None else Module.of(text)
        return modules[path]

    found: set[tuple[str, str]] = set()
    seen = dict.fromkeys((home / "study.py", name) for name in BEGINNINGS)
    waiting = list(seen)
    for path, name in waiting:  # grows meanwhile
        here = module(path)
        if here is None:
            continue
        for node in here.defined.get(name, ()):
            found.add((name, _code(node)))
            for step in _steps(here, path, node, module):
                if step not in seen:
                    seen[step] = None
                    waiting.append(step)
    return found


def fingerprint(home: Path) -> str:
    """Eight hexadecimal digits of it, as it is now."""
    return hashlib.sha256(repr(sorted(lineage(home))).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Module:
    """A file's definitions by name, and for each imported name the module and the name there; the whole module is None."""

    defined: dict[str, list[ast.stmt]]
    imported: dict[str, tuple[str, str | None]]

    @classmethod
    def of(cls, text: str) -> Module:
        tree = ast.parse(text)
        defined: dict[str, list[ast.stmt]] = {}
        for node in tree.body:
            for name in _bound(node):
                defined.setdefault(name, []).append(node)
        imported: dict[str, tuple[str, str | None]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported |= {a.asname or a.name: (node.module, a.name) for a in node.names}
            if isinstance(node, ast.Import):
                imported |= {a.asname or a.name: (a.name, None) for a in node.names}
        return cls(defined, imported)


def _bound(node: ast.stmt) -> list[str]:
    """The names that a statement of a file defines."""
    if isinstance(node, DOCUMENTED):
        return [node.name]
    one = [node.target] if isinstance(node, (ast.AnnAssign, ast.AugAssign)) else []
    targets = node.targets if isinstance(node, ast.Assign) else one
    return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]


def _steps(
    here: Module, path: Path, node: ast.stmt, module: Callable[[Path], Module | None]
) -> Iterator[tuple[Path, str]]:
    """Where the names lead that a definition uses."""
    for used in {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}:
        if used in here.defined:
            yield path, used
        elif used in here.imported:
            source, name = here.imported[used]
            for folder in (path.parent, path.parent.parent):
                there = module(folder / f"{source}.py")
                yield from (
                    (folder / f"{source}.py", each) for each in ([name] if name else there.defined if there else ())
                )


def _code(node: ast.stmt) -> str:
    """A definition without docstrings."""
    for part in ast.walk(node):
        if isinstance(part, DOCUMENTED) and ast.get_docstring(part, clean=False) is not None:
            del part.body[0]
    return ast.dump(node)
