"""Standard probes: their bytes from another reader, one's own copy in every layout, and every copy that is refused.

Oracles: SHA-256 by hashlib over arrays made here from scikit-learn, from a double loop, and from the real 256 images of
Fashion-MNIST (tests/standard_probes/data).
"""

import gzip
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import kerneltrack as kt
from kerneltrack.errors import ProbeError
from kerneltrack.observables import in_training
from kerneltrack.standard_probes import StandardProbe, catalogue, read, standard_name
from tests.docs import running

REAL = np.load(Path(__file__).parent / "data" / "fashion_mnist_256.npz")
FASHION = catalogue()["fashion-mnist-256"]
IMAGES, LABELS = FASHION.files


def hashed(inputs, targets=None):
    """The fingerprint of docs/format.md, by hand."""
    digest = hashlib.sha256()
    for key, array in (("inputs/", inputs), *([] if targets is None else [("targets", targets)])):
        digest.update(f"{key}\0{array.dtype}\0{array.shape}\0".encode() + np.ascontiguousarray(array).tobytes())
    return f"sha256:{digest.hexdigest()}"


def idx(array):
    """An IDX file, by its definition: two zeros, 8 for unsigned bytes, the number of axes, each length in four bytes."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def whole():
    """The test split with the real bytes where the probe looks, and nothing elsewhere."""
    images, labels = np.zeros((10_000, 28, 28), np.uint8), np.zeros(10_000, np.uint8)
    images[list(FASHION.indices)], labels[list(FASHION.indices)] = REAL["images"], REAL["labels"]
    return images, labels


def copy(folder, images, labels):
    """One's own copy: bytes of both files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / IMAGES).write_bytes(images)
    (folder / LABELS).write_bytes(labels)
    return folder


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    probe, raw = kt.Probe.standard("digits-256"), load_digits()
    indices = probe.identity["indices"]
    pixels = np.array([raw.data[i].reshape(1, 8, 8) / 16 for i in indices], dtype="f4")  # sixteenths are exact
    assert probe.fingerprint == hashed(pixels, raw.target[indices].astype("i8"))
    assert probe.target_encoding == "one-hot"
    np.testing.assert_array_equal(probe.inputs.numpy(), pixels)


@pytest.mark.parametrize("n", [16, 32])
def test_a_grid_is_the_centres_of_its_cells(n):
    expected = np.array([[(i + 0.5) / n, (j + 0.5) / n] for i in range(n) for j in range(n)], dtype="f4")
    probe = kt.Probe.standard(f"grid-{n}x{n}")
    assert probe.fingerprint == hashed(expected)
    assert probe.targets is None


@pytest.mark.parametrize("where", ["", "FashionMNIST/raw"])
@pytest.mark.parametrize("zipped", [False, True])
def test_fashion_mnist_is_read_from_a_copy_of_ones_own(whole, tmp_path, where, zipped):
    """The real bytes have the fingerprint of the catalogue, which was taken from whole files."""
    pixels = (REAL["images"][:, None] / np.float32(255)).astype("f4")
    assert hashed(pixels, REAL["labels"].astype("i8")) == FASHION.fingerprint
    for name, array in zip((IMAGES, LABELS), whole, strict=True):
        path = tmp_path / where / (name + ".gz" * zipped)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(idx(array), 1) if zipped else idx(array))
    probe = kt.Probe.standard("fashion-mnist-256", root=tmp_path, name="fashion")
    assert (probe.name, probe.fingerprint) == ("fashion", FASHION.fingerprint)
    assert in_training(probe.identity) == "no"


def one_more(array, place):
    changed = array.copy()
    changed[place] += 1
    return changed


@pytest.mark.parametrize("what", ["pixel", "label", "order", "another set"])
def test_a_copy_with_other_bytes_is_refused(whole, tmp_path, what):
    """One pixel, one label, two images exchanged, or another set in files of the same names, as MNIST has them."""
    images, labels = whole
    first, second = FASHION.indices[:2]
    swapped = images.copy()
    swapped[[first, second]] = images[[second, first]]
    other = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
    images, labels = {
        "pixel": (one_more(images, (first, 3, 3)), labels),
        "label": (images, one_more(labels, second)),
        "order": (swapped, labels),
        "another set": (other, labels),
    }[what]
    with pytest.raises(ProbeError, match="this copy of Fashion-MNIST is another one") as refused:
        kt.Probe.standard("fashion-mnist-256", root=copy(tmp_path, idx(images), idx(labels)))
    assert refused.value.expected == FASHION.fingerprint
    assert "unchanged copy" in refused.value.remedy


def test_what_the_probe_does_not_name_may_differ(whole, tmp_path):
    """Negative control: the check is of the probe's samples, and other images of the file are nobody's business."""
    images, labels = whole
    other = next(i for i in range(10_000) if i not in FASHION.indices)
    folder = copy(tmp_path, idx(one_more(images, (other, 0, 0))), idx(labels))
    assert kt.Probe.standard("fashion-mnist-256", root=folder).fingerprint == FASHION.fingerprint


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-1], "IDX format"),
        (lambda data: data + b"x", "more bytes"),
        (lambda data: b"", "begin with nothing"),
        (lambda data: b"\0\0\x0d" + data[3:], "unsigned bytes"),  # floats
        (lambda data: data[:4] + (9_999).to_bytes(4, "big") + data[8:], "shape"),
    ],
)
def test_a_damaged_file_is_refused(whole, tmp_path, damage, said):
    images, labels = map(idx, whole)
    with pytest.raises(ProbeError, match=said) as refused:
        kt.Probe.standard("fashion-mnist-256", root=copy(tmp_path, damage(images), labels))
    assert refused.value.where.endswith(IMAGES)


@pytest.mark.parametrize(
    "data",
    [b"no gzip", gzip.compress(b"x" * 10_000)[:-9], gzip.compress(b"x") + b"\0junk"],
    ids=[
        "no gzip",
        "cut off",
        "more behind it",
    ],  # the bytes have the time in them, and two processes must collect the same
)
def test_a_file_that_is_no_whole_gzip_is_refused(tmp_path, data):
    (tmp_path / f"{IMAGES}.gz").write_bytes(data)
    (tmp_path / LABELS).write_bytes(b"")
    with pytest.raises(ProbeError, match="file of images or labels"):
        kt.Probe.standard("fashion-mnist-256", root=tmp_path)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    """No more is asked of a gzip than the file should have, and one byte. Oracle: every read that is made."""
    asked = []
    real = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: asked.append(size) or real(self, size))
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(b"\0" * 20_000_000, 1))
    (tmp_path / LABELS).write_bytes(b"")
    with pytest.raises(ProbeError, match="more bytes"):
        kt.Probe.standard("fashion-mnist-256", root=tmp_path)
    assert asked == [16 + 10_000 * 28 * 28 + 1]


@pytest.mark.parametrize("root", ["missing", "file"])
def test_a_folder_without_the_files_is_refused(tmp_path, root):
    (tmp_path / "file").write_text("")
    with pytest.raises(ProbeError, match=f"finds no {IMAGES}") as refused:
        kt.Probe.standard("fashion-mnist-256", root=tmp_path / root)
    assert "root=" in refused.value.remedy


def test_a_folder_is_asked_for_where_it_is_needed_and_refused_where_it_is_not(tmp_path):
    with pytest.raises(ProbeError, match=r"expected root=.*your own copy"):
        kt.Probe.standard("fashion-mnist-256")
    for name in ("digits-256", "grid-16x16"):
        with pytest.raises(ProbeError, match="expected no root="):
            kt.Probe.standard(name, root=tmp_path)


@pytest.mark.parametrize("name", ["mnist-256", "cifar10-256", "digits", "", "../digits-256", "DIGITS-256"])
def test_an_unknown_name_says_which_there_are_and_how_another_is_added(name):
    with pytest.raises(ProbeError, match=r"standard-probes\.md") as refused:
        kt.Probe.standard(name)
    assert all(known in refused.value.expected for known in catalogue())
    assert (running.DOCS / "how-to" / "standard-probes.md").exists()


def test_without_scikit_learn_the_digits_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ProbeError, match="pip install scikit-learn"):
        kt.Probe.standard("digits-256")


def test_a_transform_is_after_the_check_and_in_the_identity():
    plain = kt.Probe.standard("digits-256")
    doubled = kt.Probe.standard("digits-256", transform=torch.nn.Flatten())
    assert torch.equal(doubled.inputs, plain.inputs.flatten(1))
    assert torch.equal(doubled.targets, plain.targets)
    assert doubled.identity == {**plain.identity, "transform": "Flatten"}
    assert standard_name(doubled.fingerprint) == ""
    assert doubled.fingerprint == kt.Probe.standard("digits-256", transform=lambda x: x.flatten(1)).fingerprint


@pytest.mark.parametrize("name", list(catalogue()))
def test_an_entry_is_in_order(name):
    """Its indices are different ones of the split, its fingerprint is found again, and its file is what it writes."""
    entry = catalogue()[name]
    assert (entry.name, standard_name(entry.fingerprint)) == (name, name)
    assert list(entry.indices) == sorted(set(entry.indices))
    assert all(0 <= i < entry.shape[0] for i in entry.indices)
    assert StandardProbe.from_json(entry.to_json()) == entry
    assert json.loads(json.dumps(entry.identity)) == entry.identity


def test_a_fingerprint_of_nobody_has_no_name():
    assert standard_name("sha256:" + "0" * 64) == ""


def test_the_probe_survives_its_file_and_its_record(tmp_path):
    probe = kt.Probe.standard("digits-256")
    probe.save(tmp_path / "probe.npz")
    for found in (kt.Probe.load(tmp_path / "probe.npz"), probe.record()):
        assert (found.fingerprint, found.identity) == (probe.fingerprint, probe.identity)


def test_the_page_runs_as_written(whole, tmp_path, monkeypatch, capsys):
    """With a copy that stands for MNIST's in ``data``; its entry reads that copy and no other."""
    monkeypatch.chdir(tmp_path)
    copy(tmp_path / "data" / "MNIST" / "raw", *map(idx, whole))
    names = running.run("how-to/standard-probes")
    printed = capsys.readouterr().out
    assert "finds no t10k-images-idx3-ubyte" in printed
    entry = StandardProbe.from_json(
        printed.splitlines()[-2] if not printed.splitlines()[-1] else printed.splitlines()[-1]
    )
    assert entry == names["entry"]
    inputs, targets = read(entry, "data")
    assert kt.Probe(inputs, targets).fingerprint == entry.fingerprint == hashed(inputs, targets)


def test_the_page_names_every_standard_probe():
    page = (running.DOCS / "how-to" / "standard-probes.md").read_text(encoding="utf-8")
    assert [name for name in catalogue() if f"`{name}`" not in page] == []
