"""Make the files that strangers may send: ``python hostile.py FOLDER`` writes each one and prints its name.

Every file starts as a good archive (the argument ``good``) and has one thing done to it. Nothing here is dangerous to
make; to read them carelessly is.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from kerneltrack.archive import ArchiveWriter
from kerneltrack.snapshot import ProbeRecord, Snapshot

FILES = {}
EIGENVALUES = "probes/train/eigenvalues"


def hostile(refusal):
    """Register a way to spoil an open file; ``refusal`` is what the reader must say."""

    def register(spoil):
        FILES[spoil.__name__] = (spoil, refusal)
        return spoil

    return register


def good(path):
    probe = ProbeRecord(name="train", fingerprint="sha256:0", count=4, targets=np.ones((4, 1)))
    with ArchiveWriter(path, probes=[probe]) as writer:
        for step in range(3):
            writer.append(Snapshot(step=step, probes={"train": {"eigenvalues": np.arange(4.0)[::-1]}}))


def replace(file, name, dtype="f8", shape=(3, 4), **options):
    """Put another dataset in the place of one, with the dimensions that the old one had."""
    dims = file[name].attrs["dimensions"] if name in file else "snapshot mode"
    del file[name]
    data = file.create_dataset(name, shape=shape, dtype=dtype, **options)
    data.attrs["dimensions"] = dims
    return data


def created(file, name, plist, shape=(3, 4), kind=h5t.NATIVE_DOUBLE):
    del file[name]
    identifier = h5d.create(file.id, name.encode(), kind, h5s.create_simple(shape), plist)
    h5py.Dataset(identifier).attrs["dimensions"] = "snapshot mode"


# -- out of the file --------------------------------------------------------------------------------------------------


@hostile("a soft, external or user-defined link")
def external_link(file):
    del file[EIGENVALUES]
    file[EIGENVALUES] = h5py.ExternalLink("/etc/passwd", "/x")


@hostile("a soft, external or user-defined link")
def external_link_to_itself(file):
    file["extra"] = h5py.ExternalLink(file.filename, "/extra")


@hostile("a soft, external or user-defined link")
def external_link_in_an_unknown_place(file):
    file["extra/deep"] = h5py.ExternalLink("other.h5", "/")


@hostile("a soft, external or user-defined link")
def soft_link(file):
    del file["step"]
    file["step"] = h5py.SoftLink("/epoch")


@hostile("a soft, external or user-defined link")
def dangling_soft_link(file):
    file["probes/val"] = h5py.SoftLink("/nowhere")


@hostile("a soft, external or user-defined link")
def soft_links_in_a_circle(file):
    file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")


@hostile("raw data in another file")
def external_raw_data(file):
    replace(file, EIGENVALUES, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


@hostile("raw data in another file")
def external_raw_steps(file):
    replace(file, "step", "i8", (3,), external=[("/proc/self/environ", 0, 24)])


@hostile("raw data in another file")
def external_raw_text(file):
    replace(file, "provenance/run", "S1", (100,), external=[("/etc/hostname", 0, 100)])


@hostile("a virtual dataset")
def virtual_dataset(file):
    layout = h5py.VirtualLayout((3, 4), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 4))
    del file[EIGENVALUES]
    file.create_virtual_dataset(EIGENVALUES, layout)


@hostile("a virtual dataset")
def virtual_dataset_of_many_files(file):
    space = h5s.create_simple((3, 4), (h5s.UNLIMITED, 4))
    space.select_hyperslab((0, 0), (h5s.UNLIMITED, 1), (1, 4), (1, 4))
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_virtual(space, b"/dev/fd/%b", b"x", h5s.create_simple((1, 4)))
    del file[EIGENVALUES]
    h5d.create(file.id, EIGENVALUES.encode(), h5t.NATIVE_DOUBLE, space, plist)


# -- code -------------------------------------------------------------------------------------------------------------


def filtered(file, code, values=()):
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk((1, 4))
    plist.set_filter(code, h5py.h5z.FLAG_OPTIONAL, values)
    created(file, EIGENVALUES, plist)


@hostile("an unknown filter")
def plug_in_filter(file):
    filtered(file, 32015)


@hostile("an unknown filter")
def unregistered_filter(file):
    filtered(file, 60000, (1, 2, 3))


@hostile("an unknown filter")
def lzf(file):
    replace(file, EIGENVALUES, chunks=(1, 4), compression="lzf")


@hostile("an unknown filter")
def scale_offset(file):
    replace(file, "step", "i8", (3,), chunks=(3,), scaleoffset=0)


# -- too much ---------------------------------------------------------------------------------------------------------


@hostile("more rows are declared than the file holds")
def a_trillion_rows(file):
    for name, data in list(file.items()):
        if isinstance(data, h5py.Dataset) and data.attrs.get("dimensions", b"").startswith(b"snapshot"):
            shape = (2**40, *data.shape[1:])
            replace(file, name, data.dtype, shape, chunks=(1, *data.shape[1:]), maxshape=(None, *data.shape[1:]))
    replace(file, EIGENVALUES, shape=(2**40, 4), chunks=(1, 4))


@hostile("one row is larger than the data that are there")
def a_row_of_eight_terabytes(file):
    replace(file, EIGENVALUES, shape=(3, 2**40), chunks=(1, 4))


@hostile("one row is larger than the data that are there")
def a_row_of_gigabytes_with_one_chunk(file):
    replace(file, EIGENVALUES, shape=(3, 2**24), chunks=(1, 4096))[0, :4] = 1


@hostile("a chunk is too large")
def one_chunk_of_a_gigabyte(file):
    replace(file, EIGENVALUES, shape=(3, 2**27), chunks=(1, 2**27), compression="gzip")


@hostile("a text is too long")
def text_of_two_gigabytes_deflated(file):
    size = 1 << 25
    packed = zlib.compress(bytes(size), 9)
    data = replace(file, "provenance/run", "S1", (64 * size,), chunks=(size,), compression="gzip")
    for number in range(64):
        data.id.write_direct_chunk((number * size,), packed)


@hostile("a dataset declares more than the file holds")
def text_of_a_terabyte_unwritten(file):
    replace(file, "provenance/metadata", "S1", (2**40,), chunks=(1,))


@hostile("a dataset declares more than the file holds")
def contiguous_terabyte(file):
    replace(file, "probes/train/targets", shape=(2**37, 1))


@hostile("groups are nested too deeply")
def deep_groups(file):
    file.create_group("/".join("abcdefghij"))


@hostile("an object has two names, or a group contains itself")
def group_that_contains_itself(file):
    file["probes/loop"] = file["probes"]


@hostile("an object has two names, or a group contains itself")
def root_within(file):
    file["again"] = file["/"]


@hostile("an object has two names, or a group contains itself")
def dataset_with_two_names(file):
    file["probes/train/outputs"] = file[EIGENVALUES]


@hostile("there are too many objects")
def thirty_thousand_groups(file):
    home = file.create_group("many")
    for number in range(30_000):
        h5py.h5g.create(home.id, b"%d" % number)


@hostile("an attribute is too large")
def attribute_of_a_megabyte(file):
    file.attrs["title"] = np.bytes_(b"x" * 60_000)
    file["step"].attrs["long_name"] = np.zeros(2**20, "u1")


@hostile("too many attributes")
def a_thousand_attributes(file):
    for number in range(1000):
        file["step"].attrs[f"a{number}"] = number


@hostile("too many dimensions")
def nine_dimensions(file):
    file.create_dataset("nine", shape=(1,) * 9, dtype="f4")


@hostile("does not follow the format")
def json_in_two_dimensions(file):
    replace(file, "provenance/run", "S1", (10, 10))


def inflated(file, name, rows, dtype="f8", inner=(), data=b""):
    """Rows of the same bytes, a thousand to one: nothing of them is missing, and all of it is nothing."""
    dims = file[name].attrs["dimensions"] if name in file else "sample output"
    if name in file:
        del file[name]
    itemsize = int(np.prod(inner, dtype=int)) * np.dtype(dtype).itemsize
    chunk = min(rows, max(1, (1 << 24) // itemsize))
    dataset = file.create_dataset(name, (rows, *inner), dtype, chunks=(chunk, *inner), compression="gzip")
    dataset.attrs["dimensions"] = dims
    packed = deflated(chunk * itemsize, data)
    for start in range(0, rows, chunk):
        dataset.id.write_direct_chunk((start, *(0 for _ in inner)), packed)


@functools.cache
def deflated(size, data):
    """So many bytes, of the same ones again and again: most files of this kind hold the same chunks of zeros."""
    return zlib.compress((data * (size // len(data) + 1))[:size] if data else bytes(size), 9)


@hostile("more rows are declared than the file holds")
def sixteen_million_rows_deflated(file):
    del file[EIGENVALUES]
    for name, data in list(file.items()):
        if isinstance(data, h5py.Dataset) and "dimensions" in data.attrs:
            inflated(file, name, 1 << 24, data.dtype, data.shape[1:])


@hostile("/segments has more than 100000 restarts")
def a_million_restarts(file):
    for name in ("number", "resumed_from_step", "started"):
        inflated(file, f"segments/{name}", 1 << 20, file[f"segments/{name}"].dtype)


@hostile("more would be read at once than the archive holds")
def targets_of_many_probes(file):
    for number in range(8):
        name = f"probes/p{number}"
        file.copy("probes/train", name)
        del file[f"{name}/targets"], file[f"{name}/eigenvalues"]
        file[name].attrs["count"] = 1 << 24
        inflated(file, f"{name}/targets", 1 << 24, inner=(1,))


@hostile("the rows are larger than the file")
def forty_columns_of_a_large_row(file):
    for number in range(40):
        name = f"probes/train/large{number}"
        inflated(file, name, 3, inner=(1 << 20,))
        file[name].attrs["dimensions"] = "snapshot large"


@hostile("an attribute is too large")
def attribute_of_megabytes_elsewhere(file):
    file.attrs.create("title", "x" * 5_000_000, dtype=h5py.string_dtype())


# -- other kinds of thing ---------------------------------------------------------------------------------------------


def typed(dtype):
    def spoil(file):
        replace(file, EIGENVALUES, dtype)

    return spoil


NEITHER = "elements that are neither numbers nor bytes of text"
for _name, _dtype in {
    "compound": np.dtype([("a", "f8")]),
    "object_references": h5py.ref_dtype,
    "region_references": h5py.regionref_dtype,
    "variable_strings": h5py.string_dtype(),
    "variable_arrays": h5py.vlen_dtype("f8"),
    "booleans": np.dtype(bool),
    "opaque": np.dtype("V8"),
    "complex_numbers": np.dtype(complex),
    "arrays_of_arrays": np.dtype(("f8", (2,))),
    "long_strings": np.dtype("S200"),
    "long_doubles": np.dtype("longdouble"),
}.items():
    FILES[_name] = (typed(_dtype), NEITHER)


@hostile("an object that is neither a group nor a dataset")
def named_type(file):
    file["kind"] = np.dtype("f8")


@hostile("a named data type")
def dataset_of_a_named_type(file):
    file["kind"] = np.dtype("f8")
    replace(file, EIGENVALUES, file["kind"])
    del file["kind"]


@hostile("an attribute that is neither numbers nor text")
def reference_attribute(file):
    file.attrs["title"] = file["step"].ref


@hostile("an attribute that is neither numbers nor text")
def compound_attribute(file):
    file["step"].attrs["x"] = np.zeros(2, [("a", "f8"), ("b", "O")][:1])


@hostile("an attribute that is neither numbers nor text")
def variable_array_attribute(file):
    values = np.empty(1, object)
    values[0] = np.arange(3)
    file["step"].attrs.create("x", values, dtype=h5py.vlen_dtype("i8"))


@hostile("a dataset without extent")
def no_extent(file):
    del file[EIGENVALUES]
    file[EIGENVALUES] = h5py.Empty("f8")


@hostile("a name holds control characters")
def name_with_escape_sequence(file):
    file.create_group("probes/\x1b[2Jtrain")


@hostile("a name holds control characters")
def attribute_name_with_line_feed(file):
    file["step"].attrs["a\nb"] = 1


# -- not an archive ---------------------------------------------------------------------------------------------------


@hostile("is not a probe")
def probe_named_by_markup(file):
    file.create_group("probes/<img src=x>")


@hostile("is float16, not f8")
def float16_eigenvalues(file):
    replace(file, EIGENVALUES, "f2")


@hostile("is >f8, not f8 .little endian")
def big_endian_eigenvalues(file):
    replace(file, EIGENVALUES, ">f8")


@hostile("/step is float64, not i8")
def steps_as_floats(file):
    replace(file, "step", "f8", (3,))


@hostile("/step is not a dataset|/step is missing")
def steps_as_a_group(file):
    del file["step"]
    file.create_group("step")


@hostile("/probes is not a group")
def probes_as_a_dataset(file):
    del file["probes"]
    file["probes"] = 1.0


@hostile("/provenance is missing")
def provenance_as_a_dataset(file):
    del file["provenance"]
    file["provenance"] = 1.0


@hostile("/segments is missing or empty")
def no_segments(file):
    del file["segments"]


@hostile("/epoch has 2 along snapshot, not 3")
def rows_that_disagree(file):
    replace(file, "epoch", "i4", (2,))


@hostile("dimensions")
def dimensions_that_lie(file):
    file[EIGENVALUES].attrs["dimensions"] = "snapshot \x1b]0;owned\x07 " * 100


@hostile("@count is not a integer")
def count_as_text(file):
    file["probes/train"].attrs["count"] = "4"


@hostile("targets has 4 along sample, not 1000000")
def count_too_large(file):
    file["probes/train"].attrs["count"] = 1_000_000


@hostile("newer format.*got 2.0.*Install a newer")
def newer_major_version(file):
    file.attrs["format_version"] = "2.0"


@hostile("newer format")
def version_of_nonsense(file):
    file.attrs["format_version"] = "\x1b[31m"


@hostile("not a kerneltrack archive")
def another_format(file):
    file.attrs["format"] = "nwb"


@hostile("not a kerneltrack archive, or it is damaged")
def json_that_is_not(file):
    replace(file, "provenance/run", "S1", (4,), data=np.frombuffer(b"{{{{", "S1"))


@hostile("not a kerneltrack archive, or it is damaged")
def json_nested_without_end(file):
    replace(file, "provenance/run", "S1", (100_000,), data=np.frombuffer(b"[" * 100_000, "S1"))


@hostile("not a kerneltrack archive, or it is damaged")
def json_of_another_shape(file):
    replace(file, "probes/train/input_shapes", "S1", (3,), data=np.frombuffer(b"[1]", "S1"))


def rewritten(file, name, value):
    """Put another JSON text in the place of one; bytes as they are."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    replace(file, name, "S1", (len(data),), data=np.frombuffer(data, "S1"))


def text(name, value, refusal):
    """Register a file in which one of the JSON texts says something of another kind."""
    FILES[f"{name.replace('/', '_')}_{sum(key.startswith(name.replace('/', '_')) for key in FILES)}"] = (
        lambda file: rewritten(file, name, value),
        refusal,
    )


OTHER_KIND = "a JSON text of the archive has the wrong type"
for _name in ("provenance/run", "provenance/metadata", "provenance/private", "probes/train/settings"):
    for _value in ([], None, 5, "<script>"):
        text(_name, _value, OTHER_KIND)
for _run in ({"versions": 5}, {"optimizers": [5]}, {"optimizers": [{"groups": 5}]}, {"model": ["\x1b[2J"]}):
    text("provenance/run", {"run_id": "r", **_run}, OTHER_KIND)
text("provenance/parameters", {"a": 1}, OTHER_KIND)
text("probes/train/identity", 5, OTHER_KIND)
for _settings in (
    {"energy_k": "abc"},
    {"energy_k": [10**30]},
    {"energy_k": [-1]},
    {"layers": 5},
    {"layers": [["x"]]},
    {"output": {"a": 1}},
    {"loss": 5},
    {"parameter_count": "many"},
):
    text("probes/train/settings", _settings, OTHER_KIND)
for _shapes in ({"": ["f4", "abc"]}, {"": [["f4"], 5]}, {"": ["f4", [-1]]}, {"": ["f4"]}):
    text("probes/train/input_shapes", _shapes, "damaged")
text("provenance/metadata", b'{"a": NaN}', "damaged.*NaN is not a number of JSON")
text("provenance/metadata", b'{"a": 1e999}', "damaged.*1e999 is not a number of JSON")
text("provenance/metadata", b'{"a": "\\ud800"}', "damaged.*surrogates not allowed")
text("provenance/metadata", b'{"a": "\xff"}', "damaged")
text("provenance/metadata", b'{"a": ' + b"9" * 5000 + b"}", "damaged")


def measured(name, dims, shape):
    """Register a file with a measurement of its own name and dimensions."""

    def spoil(file):
        data = file.create_dataset(f"probes/train/{name}", data=np.ones(shape))
        data.attrs["dimensions"] = dims

    FILES[f"measured_{len(FILES)}"] = (spoil, "a name that an observable cannot have|a dimension .* it cannot have")


for _name in ("step", "learning_rate", "status", "targets2/x", "<b>bold<", "=cmd|' calc'!A0", "x" * 65, "trigger"):
    measured(_name.replace("/", " "), "snapshot", (3,))
for _dims in ("snapshot", "step", "targets", "<img", "a,b", "sample sample", "\x1b[2J"):
    measured("weird", f"snapshot {_dims}", (3, 4, 4) if " " in _dims else (3, 4))


@hostile("layers has 2 entries for 3 along layer")
def layers_that_are_not_there(file):
    rewritten(file, "probes/train/settings", {"layers": ["a", "b"]})
    data = file.create_dataset("probes/train/layer_share", data=np.ones((3, 3)))
    data.attrs["dimensions"] = "snapshot layer"


@hostile("does not have one entry for each of 4 samples")
def inputs_of_other_samples(file):
    data = file.create_dataset("probes/train/inputs", data=np.ones((3, 2)))
    data.attrs["dimensions"] = "sample input_axis_1"


@hostile("newer format")
def version_in_other_digits(file):
    file.attrs["format_version"] = "\u00b2.0"


@hostile("/@role is neither 'main' nor 'part'")
def another_role(file):
    file.attrs["role"] = "spare"


@hostile("/@run_id is missing")
def no_run_id(file):
    del file.attrs["run_id"]


@hostile("/provenance/metadata is missing")
def no_metadata(file):
    del file["provenance/metadata"]


@hostile("/probes/train/targets is not a dataset")
def targets_as_a_group(file):
    del file["probes/train/targets"]
    file.create_group("probes/train/targets").attrs["dimensions"] = "sample output"


@hostile("eigenvalues has dimensions .* in 2 axes, not")
def fewer_dimensions_than_axes(file):
    file[EIGENVALUES].attrs["dimensions"] = "snapshot"


@hostile("eigenvalues has nothing along mode")
def no_mode(file):
    replace(file, EIGENVALUES, shape=(3, 0))


@hostile("targets has nothing along output")
def no_output(file):
    replace(file, "probes/train/targets", shape=(4, 0))


@hostile("@count is not a number of samples")
def no_sample(file):
    replace(file, "probes/train/targets", shape=(0, 1))
    file["probes/train"].attrs["count"] = 0


@hostile("@count is not a number of samples")
def fewer_samples_than_none(file):
    file["probes/train"].attrs["count"] = -4


@hostile("the archive is not a main file")
def a_part_as_the_archive(file):
    file.attrs["role"] = "part"


def build(folder):
    """Write every file into ``folder``; return name -> what must be said."""
    folder = Path(folder)
    original = folder / "good.h5"
    good(original)
    said = {}
    for name, (spoil, refusal) in FILES.items():
        path = folder / f"{name}.h5"
        shutil.copy(original, path)
        with h5py.File(path, "r+", libver=("v110", "v110")) as file:
            spoil(file)
        said[name] = refusal
    damaged = {
        "empty_file": b"",
        "text_file": b"Dear reader, " * 100,
        "truncated": original.read_bytes()[:5000],
        "header_only": original.read_bytes()[:96],
        "zeros": bytes(10_000),
    }
    for name, data in damaged.items():
        (folder / f"{name}.h5").write_bytes(data)
        said[name] = "not a kerneltrack archive, or it is damaged"
    os.mkfifo(folder / "pipe.h5")
    (folder / "folder.h5").mkdir()
    return said | {"pipe": "not a regular file", "folder": "not a regular file"}


if __name__ == "__main__":
    for line in build(sys.argv[1]):
        sys.stdout.write(line + "\n")
