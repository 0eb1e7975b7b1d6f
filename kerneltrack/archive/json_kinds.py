"""Type checks for an archive's JSON texts; every view relies on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kerneltrack.archive.header import Header
from kerneltrack.archive.layout import Column
from kerneltrack.archive.printable import printable
from kerneltrack.snapshot import Json

Rule = tuple[str, Callable[[Any], bool]]


def _is_mapping(value: Json) -> bool:
    return isinstance(value, Mapping)


def _is_list_of_mappings(value: Json) -> bool:
    return isinstance(value, list) and all(map(_is_mapping, value))


def _is_text(value: Json) -> bool:
    return value is None or isinstance(value, str)


def _is_count(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


_MAPPING: Rule = ("a mapping", _is_mapping)
_TEXT: Rule = ("a text", _is_text)
_COUNT: Rule = ("a non-negative integer", lambda value: value is None or _is_count(value))
_COUNTS: Rule = (
    "a list of non-negative integers",
    lambda value: isinstance(value, list) and all(map(_is_count, value)),
)
_TEXTS: Rule = (
    "a list of texts",
    lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
)
_MAPPINGS: Rule = ("a list of mappings", _is_list_of_mappings)

#: Keys that have a meaning wherever they appear; others may be anything.
_SETTINGS: Mapping[str, Rule] = {
    "output": _TEXT,
    "gauge": ("raw or softmax", lambda value: value in ("raw", "softmax")),
    "loss": _TEXT,
    "dtype": _TEXT,
    "stability_scope": _TEXT,
    "eigenpairs": _TEXT,
    "extension_of": _TEXT,
    "parameter_count": _COUNT,
    "top_k": _COUNT,
    "energy_k": _COUNTS,
    "layers": _TEXTS,
}
_RUN: Mapping[str, Rule] = {"versions": _MAPPING, "optimizers": _MAPPINGS, "model": _TEXT, "created": _TEXT}


def departures(header: Header, columns: Mapping[str, Column]) -> Iterator[str]:
    """Every text that has the wrong type, one line each."""
    provenance = header.provenance
    for name in ("run", "metadata", "private"):
        yield from _broken(f"/provenance/{name}", getattr(provenance, name), _MAPPING)
    yield from _broken("/provenance/parameters", provenance.parameters, _MAPPINGS)
    yield from _keys("/provenance/run", provenance.run, _RUN)
    for optimizer in provenance.run.get("optimizers", []) if _is_mapping(provenance.run) else []:
        groups = optimizer.get("groups", []) if _is_mapping(optimizer) else []
        yield from _broken("/provenance/run: an optimizer's groups", groups, _MAPPINGS)
    for probe, record in header.probes.items():
        where = f"/probes/{probe}"
        yield from _broken(f"{where}/settings", record.settings, _MAPPING)
        yield from _keys(f"{where}/settings", record.settings, _SETTINGS)
        if record.identity is not None:
            yield from _broken(f"{where}/identity", record.identity, _MAPPING)
        yield from _lengths(probe, record.settings, columns)


def _keys(where: str, value: Json, rules: Mapping[str, Rule]) -> Iterator[str]:
    if _is_mapping(value):
        for key, rule in rules.items():
            if key in value:
                yield from _broken(f"{where}: {key}", value[key], rule)


def _broken(where: str, value: Json, rule: Rule) -> Iterator[str]:
    kind, holds = rule
    if not holds(value):
        yield f"{printable(where)} is not {kind}"


def _lengths(probe: str, settings: Json, columns: Mapping[str, Column]) -> Iterator[str]:
    """The settings name the coordinates of two dimensions; there must be as many as the dimension has."""
    sizes = {
        dim: size
        for path, column in columns.items()
        if path.startswith(f"probes/{probe}/")
        for dim, size in zip(column.field.dims[1:], column.shape, strict=True)
    }
    for key, dim in (("energy_k", "energy_k"), ("layers", "layer")):
        named = settings.get(key) if _is_mapping(settings) else None
        if isinstance(named, list) and dim in sizes and len(named) != sizes[dim]:
            yield f"/probes/{printable(probe)}/settings: {key} has {len(named)} entries for {sizes[dim]} along {dim}"
