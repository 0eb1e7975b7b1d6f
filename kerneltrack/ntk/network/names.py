"""Names of a module's parameters, buffers and submodules: its own, and those in the tree of the function around it."""

from __future__ import annotations

#: What the function calls the module.
_MODULE = "model"


def in_tree(own: str) -> str:
    """The name in the tree of what the module calls ``own``."""
    return f"{_MODULE}.{own}"


def own_name(name: str) -> str:
    """What the module itself calls what has this name in the tree; "" for the module."""
    return name.removeprefix(_MODULE).removeprefix(".") if is_of_module(name) else name


def is_of_module(name: str) -> bool:
    """Whether it is the module, or in it, and not in what a forward brings along."""
    return name == _MODULE or name.startswith(f"{_MODULE}.")
