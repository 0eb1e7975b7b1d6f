"""docs/format.md is what the schema says, and its short ways to read an archive work as written."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from kerneltrack import schema
from kerneltrack.archive import ArchiveWriter, layout, open_archive

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "format.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("format_tables", DOCS / "format_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_the_schemas(tables):
    assert tables.rendered(PAGE) == PAGE, "run: python docs/format_tables.py"
    assert set(re.findall(r"<!-- table: (\w+) -->", PAGE)) == set(tables.TABLES)


def test_the_comparison_sees_a_change(tables):
    """Negative control."""
    changed = PAGE.replace("optimizer updates applied before the measurement", "epochs")
    assert changed != PAGE
    assert tables.rendered(changed) == PAGE


@pytest.mark.parametrize("field", [*schema.ROOT_FIELDS, *schema.MEASUREMENT_FIELDS], ids=lambda field: field.name)
def test_the_chunks_are_as_the_page_says(tables, field):
    """The table's column, with sizes put in. Oracle: the shape that the writer gives to HDF5."""
    for size in (1, 3, 40, 700):
        shape = tuple(schema.FIXED_SIZES.get(dim, size) for dim in field.dims[1:])
        for dtype in field.dtypes:
            said = tables.rows_in_a_chunk(field).replace("KiB", "* 1024").replace("·", "*")
            said = said.replace("(4 or 8)", dtype[1:])
            for dim in sorted(field.dims[1:], key=len, reverse=True):
                said = said.replace(dim, str(size))
            written = layout.chunk_shape(layout.Column(dataclasses.replace(field, dtype=dtype), shape), 10**6)[0]
            assert written == max(1, min(1024, int(eval(said)))), (said, shape)


def test_the_page_has_the_formats_version():
    """In its title, with a date, in what one cites, and first among what each version brought."""
    assert f"version {schema.FORMAT_VERSION}" in PAGE.splitlines()[0]
    version, date = re.search(r"^\*\*Version (\S+), (\d{4}-\d\d-\d\d)\.\*\* Cite it as:", PAGE, re.MULTILINE).groups()
    assert version == schema.FORMAT_VERSION
    assert f"version {version}*, {date[:4]}" in PAGE
    brought = re.findall(r"^### (\d+\.\d+), (\d{4}-\d\d-\d\d)$", PAGE, re.MULTILINE)
    assert brought[0] == (version, date)
    assert sorted(brought, reverse=True) == brought


def test_every_version_that_the_tests_keep_stands_there():
    """Oracle: the golden files."""
    kept = {path.stem.removeprefix("format-") for path in (Path(__file__).parent / "data").glob("format-*.h5")}
    assert kept <= set(re.findall(r"^### (\d+\.\d+), ", PAGE, re.MULTILINE))


def test_what_came_since_is_what_the_tables_say():
    """What the tables mark "since 1.1" is named in that version's list."""
    since = re.findall(r"^\| `(\w+)` \|.*since 1\.1", PAGE, re.MULTILINE)
    brought = PAGE.partition("### 1.1")[2].partition("###")[0]
    assert "probe_in_training" in since
    assert [name for name in since if f"`{name}`" not in brought] == []


@pytest.mark.parametrize("number", [0, 1], ids=["h5py", "xarray"])
def test_the_short_ways_to_read_work(tmp_path, monkeypatch, make, number):
    """The page's own code, on a file in which every row is canonical. Oracle: open_archive."""
    with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe]) as writer:
        for step in (0, 10, 20):
            writer.append(make.snapshot(step))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[number], names)
    with open_archive("run.h5") as archive:
        whole = archive.column("probes/train/eigenvalues")
        if number == 0:
            np.testing.assert_array_equal(names["eigenvalues"], whole)
            assert names["step"].tolist() == [0, 10, 20]
            assert names["trigger"] == [make.snapshot(0).trigger] * 3
            assert names["settings"] == make.probe.settings
            assert names["run"] == archive.provenance.run
        else:
            np.testing.assert_array_equal(names["largest"], whole[:, 0])
            assert names["largest"].step.values.tolist() == [0, 10, 20]
