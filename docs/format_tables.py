"""Print the schema's tables into docs/format.md: ``python docs/format_tables.py`` rewrites them, ``--check`` compares.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; everything else in the page is written by hand.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from kerneltrack import schema
from kerneltrack.schema import Field

PAGE = Path(__file__).with_name("format.md")
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fields(rows: Iterable[Field]) -> str:
    return table(
        ("dataset", "dimensions", "dtype", "unit", "need", "rows in a chunk", "meaning"),
        [
            (
                f"`{field.name}`",
                ", ".join(field.dims),
                " or ".join(field.dtypes),
                field.units or "text",
                "MUST" if field.required else "MAY",
                rows_in_a_chunk(field),
                field.long_name,
            )
            for field in rows
        ],
    )


def rows_in_a_chunk(field: Field) -> str:
    """How many rows layout.chunk_shape puts into a chunk: a number, or a quotient of sizes that a run decides."""
    inner = field.dims[1:]
    size = math.prod([np.dtype(field.dtypes[-1]).itemsize, *(schema.FIXED_SIZES.get(dim, 1) for dim in inner)])
    unknown = [dim for dim in inner if dim not in schema.FIXED_SIZES]
    if not unknown:
        return str(min(schema.MAX_CHUNK_ROWS, schema.CHUNK_BYTES // size))
    bytes_of_a_row = " · ".join([("(4 or 8)" if len(field.dtypes) > 1 else str(size)), *unknown])
    return f"{schema.CHUNK_BYTES >> 10} KiB / ({bytes_of_a_row})"


def attributes(rows: Mapping[str, tuple[str, str, str]]) -> str:
    return table(
        ("attribute", "type", "need", "meaning"),
        [(f"`{name}`", kind, need, meaning) for name, (kind, need, meaning) in rows.items()],
    )


def texts(rows: Mapping[str, str]) -> str:
    return table(("dataset", "meaning"), [(f"`{name}`", meaning) for name, meaning in rows.items()])


def dimensions() -> str:
    size = {name: str(value) for name, value in schema.FIXED_SIZES.items()}
    home = dict.fromkeys(schema.ROOT_DIMENSIONS, "root")
    return table(
        ("dimension", "belongs to", "size", "meaning"),
        [
            (f"`{name}`", home.get(name, "probe"), size.get(name, ""), meaning)
            for name, meaning in schema.DIMENSIONS.items()
        ],
    )


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


TABLES = {
    "dimensions": dimensions,
    "root_attributes": lambda: attributes(schema.ROOT_ATTRIBUTES),
    "rows": lambda: fields(schema.ROOT_FIELDS),
    "segments": lambda: fields(schema.SEGMENT_FIELDS),
    "provenance": lambda: texts(schema.PROVENANCE_TEXTS),
    "probe_attributes": lambda: attributes(schema.PROBE_ATTRIBUTES),
    "probe_texts": lambda: texts(schema.PROBE_TEXTS),
    "probe": lambda: fields(schema.PROBE_FIELDS),
    "measurements": lambda: fields(schema.MEASUREMENT_FIELDS),
}


def rendered(page: str) -> str:
    """The page with every table as the schema has it."""
    return BLOCK.sub(lambda block: block[1] + TABLES[block[2]]() + block[3], page)


if __name__ == "__main__":
    current = PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        sys.exit(None if rendered(current) == current else "docs/format.md is not what the schema says")
    PAGE.write_text(rendered(current), encoding="utf-8")
