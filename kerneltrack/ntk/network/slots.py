"""Slots: where a module keeps each of its tensors.

A slot is one attribute of one module object. A module that is registered under two names has its slots once: swapped
twice, a slot would be left with the replacement of the first swap. A tied tensor has several slots, and all are filled.
"""

from __future__ import annotations

from torch import nn


def slots(root: nn.Module) -> dict[str, str]:
    """Each slot's name → the first name of the tensor in it, parameters and buffers alike."""
    first: dict[int, str] = {}
    found: dict[str, str] = {}
    modules = list(root.named_modules())
    for kind in ("_parameters", "_buffers"):  # a parameter that is registered as a buffer too is a parameter
        for prefix, module in modules:
            for attribute, tensor in getattr(module, kind).items():
                if tensor is not None:
                    name = f"{prefix}.{attribute}" if prefix else attribute
                    found[name] = first.setdefault(id(tensor), name)
    return found
