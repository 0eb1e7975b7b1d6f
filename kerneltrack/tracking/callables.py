"""Whether two callables are the same one, told in two processes: by what they are made of, where that is plain."""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Iterator, Mapping, Set
from typing import Any

import torch
from torch import nn

Identity = Mapping[str, str]


class _CannotBeTold(Exception):  # nothing failed: the message says what is not plain
    pass


def identity(given: Any) -> Identity:
    """A callable as a checkpoint keeps it: its name, and a digest of its code or why there is none.

    The digest is of the byte code with its constants, defaults, closure, bound arguments and attributes, tensors in them
    included. What a function reads from globals, or calls by name, is not looked into.
    """
    found = {"name": name(given), "python": str(sys.implementation.cache_tag)}
    digest = hashlib.sha256()
    try:
        for part in _parts(given, ()):
            digest.update(part + b"\0")
    except _CannotBeTold as why:
        return {**found, "code": "", "why": f"it holds {why}"}
    return {**found, "code": digest.hexdigest()}


def name(given: Any) -> str:
    """What messages call it."""
    return str(getattr(given, "__qualname__", type(given).__qualname__))


def differs(then: Identity | None, now: Identity) -> bool | str:
    """Whether a callable is another one than then; why it cannot be told, where it cannot."""
    if then is None:
        return "the checkpoint does not hold its code"
    if not then["code"] or not now["code"]:
        return then.get("why") or now.get("why") or "its code is unknown"
    if then["code"] == now["code"]:
        return False
    return True if then["python"] == now["python"] else "byte code of two versions of Python is not compared"


def _parts(value: Any, inside: tuple[int, ...]) -> Iterator[bytes]:
    """Everything that a value is made of, as bytes."""
    if id(value) in inside:  # a function whose closure holds itself
        yield b"itself"
        return
    inside = (*inside, id(value))
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype, torch.device)):
        yield f"{type(value).__name__} {value!r}".encode()
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, (type, types.BuiltinFunctionType, types.ModuleType)):
        yield f"{getattr(value, '__module__', '')} {getattr(value, '__qualname__', value.__name__)}".encode()
    else:
        yield type(value).__qualname__.encode()
        for child in _children(value):
            yield from _parts(child, inside)


def _children(value: Any) -> list[Any]:
    if isinstance(value, types.CodeType):
        return [value.co_code, value.co_names, value.co_freevars, *value.co_consts]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__code__, value.__defaults__, value.__kwdefaults__, *cells]
    if isinstance(value, types.MethodType):
        return [value.__func__, type(value.__self__)]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, nn.Module):
        plain = {k: v for k, v in vars(value).items() if not k.startswith("_") and k != "training"}
        return [type(value).forward, plain, dict(value.state_dict()), list(value.children())]
    if isinstance(value, Mapping):
        return [part for key in sorted(value, key=repr) for part in (key, value[key])]
    if isinstance(value, Set):
        return sorted(value, key=repr)
    if isinstance(value, (tuple, list)):
        return list(value)
    call = vars(type(value)).get("__call__")
    if isinstance(call, types.FunctionType):
        return [call, dict(vars(value))]
    raise _CannotBeTold(f"a {type(value).__qualname__}")
