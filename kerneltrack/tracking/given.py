"""Which arguments a user gave, where a signature shows its defaults to everybody."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, cast

P = ParamSpec("P")


def remembers(init: Callable[Concatenate[Any, P], None]) -> Callable[Concatenate[Any, P], None]:
    """An ``__init__`` that leaves the names of the arguments that were given in ``self._given``; its signature is the same."""
    signature = inspect.signature(init)
    defaults = {n: p.default for n, p in signature.parameters.items() if p.default is not inspect.Parameter.empty}

    @functools.wraps(init)
    def remembering(self: Any, *args: P.args, **kwargs: P.kwargs) -> None:
        init(self, *args, **kwargs)
        given = signature.bind(self, *args, **kwargs).arguments
        self._given = names({name: given[name] for name in list(given)[1:]}, defaults)

    return cast(Callable[Concatenate[Any, P], None], remembering)


def names(arguments: Mapping[str, Any], defaults: Mapping[str, Any]) -> frozenset[str]:
    """The arguments that were given.

    A tool that builds objects from a configuration (LightningCLI) passes every argument, the defaults too. Where every one
    is passed, those that equal their default count as not given.
    """
    if defaults.keys() <= arguments.keys():
        return frozenset(n for n, v in arguments.items() if n not in defaults or not _equals(v, defaults[n]))
    return frozenset(arguments)


def _equals(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and bool(value == default))
