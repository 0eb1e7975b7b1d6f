"""``publish --card``: what a dataset hub shows beside an archive, made offline and from the published copy.

Oracles: ``sha256sum -c``; PyYAML for the head and the citation; markdown-it for what a hub makes of the body; the code of
the card, run as it stands, against ``open_archive``.
"""

import dataclasses
import hashlib
import re
import shutil
import subprocess
from types import SimpleNamespace

import markdown_it
import numpy as np
import pytest
import yaml

from kerneltrack.analysis.cli import main
from kerneltrack.analysis.commands import publish as publishing
from kerneltrack.analysis.commands.checksums import sums
from kerneltrack.analysis.text import markdown, quoted
from kerneltrack.archive import ArchiveWriter, check, open_archive
from kerneltrack.snapshot import ProbeRecord, Provenance, Snapshot

FILES = ["CITATION.cff", "README.md", "SHA256SUMS"]
SECRETS = ("/home/marie", "lab-7", "my-secret-command")
ATTACK = "</td>\n---\n# a: b\n```\n<script>alert(1)</script>![x](https://evil.example/p.png) [y](javascript:z) \x1b[2J‮|&lt;\"'$x$"


def archive(path, *, metadata=None, identity=None, model="nets.MLP", name="train"):
    draw = np.random.default_rng(0)
    record = ProbeRecord(
        name=name, fingerprint="sha256:00", count=4, identity=identity, targets=draw.normal(size=(4, 1)),
        settings={"output": "trace", "energy_k": [1, 2], "layers": ["a_b*c"]},
    )  # fmt: skip
    run = {
        "run_id": "r",
        "model": model,
        "optimizers": [{"class": "SGD", "groups": [{"lr": 0.1}]}],
        "versions": {"torch": "2"},
    }
    private = {"host": "lab-7", "user": "marie", "command": "my-secret-command"}
    provenance = Provenance(run=run, metadata=metadata or {"data": "/home/marie/data"}, private=private)
    with ArchiveWriter(path, probes=[record], provenance=provenance) as writer:
        for step in range(3):
            values = {"eigenvalues": -np.sort(-draw.normal(size=4)), "outputs": draw.normal(size=(4, 1))}
            writer.append(Snapshot(step=step, learning_rates=(0.1,), probes={name: values}))
    return path


def published(source, target, *, licence="CC-BY-4.0", authors=("Marie Curie", "Emmy Noether")):
    words = [word for author in authors for word in ("--author", author)]
    code = main(
        [
            "publish",
            str(source),
            "-o",
            str(target),
            "--licence",
            licence,
            *words,
            "--contact",
            "a@example.org",
            "--card",
        ]
    )
    folder = target.parent
    if code:
        return SimpleNamespace(code=code, folder=folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    _, head, body = card.split("---\n", 2)
    citation = (folder / "CITATION.cff").read_text(encoding="utf-8")
    return SimpleNamespace(
        code=code, folder=folder, card=card, head=yaml.safe_load(head), body=body, text=citation,
        citation=yaml.safe_load(citation),
    )  # fmt: skip


def acting(body):
    """What a hub's page would hold: tags, links and pictures, by kind and target."""
    found = set()
    for token in markdown_it.MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(body):
        for item in (token, *(token.children or [])):
            if item.type in ("html_block", "html_inline"):
                found.add(("html", item.content))
            elif item.type in ("image", "link_open"):
                found.add((item.type, str(item.attrs.get("src") or item.attrs.get("href"))))
    return found


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    return published(archive(folder / "run.h5"), folder / "public" / "run.h5")


def test_three_files_stand_beside_the_copy(public):
    assert sorted(path.name for path in public.folder.iterdir()) == [*FILES, "run.h5"]
    assert check(public.folder / "run.h5") == []


def test_the_checksums_are_those_that_sha256sum_finds(public):
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=public.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["run.h5: OK", "README.md: OK", "CITATION.cff: OK"]
    assert done.stderr == ""


def test_a_changed_file_is_found(public, tmp_path):
    """Negative control."""
    shutil.copytree(public.folder, tmp_path / "public")
    (tmp_path / "public" / "README.md").write_text("other")
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "public", capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "README.md: FAILED" in done.stdout


@pytest.mark.parametrize("name", ["a b.h5", "-x.h5", "*x.h5", " x.h5", "ü.h5", "a\\b.h5", "a\nb.h5", "a\rb\\nc.h5"])
def test_any_name_of_a_file_is_taken(tmp_path, name):
    """Oracle: sha256sum itself, which escapes line ends and backslashes with a backslash in front of the line."""
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / "SHA256SUMS").write_bytes(sums({name: hashlib.sha256(b"x").hexdigest()}))
    done = subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=tmp_path, check=False)
    assert done.returncode == 0


def test_the_head_is_what_hubs_read(public):
    assert public.head["license"] == "cc-by-4.0"
    assert {"kerneltrack", "hdf5", "neural-tangent-kernel"} <= set(public.head["tags"])
    assert public.head["size_categories"] == ["n<1K"]
    assert public.head["viewer"] is False
    assert "run r" in public.head["pretty_name"]


def test_a_licence_of_ones_own_is_called_so(tmp_path):
    source = archive(tmp_path / "run.h5")
    for i, licence in enumerate(("LicenseRef-Ours", "MIT OR CC-BY-4.0")):
        found = published(source, tmp_path / str(i) / "run.h5", licence=licence)
        assert (found.head["license"], found.head["license_name"]) == ("other", licence)
        assert "license" not in found.citation
        assert licence in found.text


def test_the_citation_has_what_its_schema_demands(public):
    """The four keys that the schema requires, and forms that it names; `make release-check` asks the schema itself."""
    cited = public.citation
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert (cited["cff-version"], cited["type"], cited["license"]) == ("1.2.0", "dataset", "CC-BY-4.0")
    assert [author["name"] for author in cited["authors"]] == ["Marie Curie", "Emmy Noether"]
    assert cited["contact"] == [{"name": "Marie Curie", "email": "a@example.org"}]
    digest = hashlib.sha256((public.folder / "run.h5").read_bytes()).hexdigest()
    with open_archive(public.folder / "run.h5") as archive:
        values = [f"urn:uuid:{archive.attrs['archive_id']}", f"sha256:{digest}"]
    assert [one["value"] for one in cited["identifiers"]] == values
    assert "# doi: " in public.text


def test_the_card_says_what_is_in_the_file_and_how_it_was_made(public):
    rendered = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).render(public.body)
    for said in (
        "3 snapshots",
        "probes/train/eigenvalues",
        "(T, 4)",
        "nets.MLP",
        "SGD",
        "torch",
        "a_b*c",
        "Emmy Noether",
    ):
        assert said in rendered, said


@pytest.mark.parametrize("number", [0, 1, 2], ids=["h5py", "xarray", "kerneltrack"])
def test_the_code_of_the_card_runs(public, monkeypatch, number):
    monkeypatch.chdir(public.folder)
    names = {}
    exec(re.findall(r"```python\n(.*?)```", public.body, re.DOTALL)[number], names)
    with open_archive("run.h5") as archive:
        whole = archive.column("probes/train/eigenvalues")
    read = names["measured"]["eigenvalues"] if number == 0 else names["data"].eigenvalues.values
    np.testing.assert_array_equal(read, whole)
    if number == 0:
        assert names["settings"]["output"] == "trace"


def test_nothing_private_is_in_any_file(public):
    for path in public.folder.iterdir():
        data = path.read_bytes()
        assert [secret for secret in SECRETS if secret.encode() in data] == [], path.name


def test_a_strangers_texts_do_nothing(tmp_path):
    """In metadata, identity, provenance and the author's name; nothing of them is markup, a key or a control."""
    source = archive(tmp_path / "run.h5", metadata={ATTACK: ATTACK}, identity={"x": ATTACK}, model=ATTACK)
    plain = published(archive(tmp_path / "plain.h5"), tmp_path / "plain" / "run.h5")
    found = published(source, tmp_path / "public" / "run.h5", authors=[ATTACK.replace("\n", " ")])
    assert acting(plain.body) == acting(found.body) == {("link_open", "CITATION.cff")}
    assert set(found.head) == set(plain.head)
    assert set(found.citation) == set(plain.citation)
    assert found.citation["authors"][0]["name"].startswith("</td> ---")
    for text in (found.card, found.text):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f‮]", text)
    assert [line for line in found.body.splitlines() if line.startswith("```")] == ["```python", "```"] * 3
    assert "alert(1)" in markdown_it.MarkdownIt().render(found.body)  # it is told, as text


def test_the_judge_sees_what_acts():
    """Negative control: the same text without the escapes is markup."""
    kinds = {kind for kind, _ in acting(f"x {ATTACK.replace(chr(10), ' ')}")}
    assert {"html", "image"} <= kinds
    assert acting(markdown(ATTACK)) == set()
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load(f"title: {ATTACK}")
    assert isinstance(yaml.safe_load(f"title: {quoted(ATTACK)}")["title"], str)


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_replaced(tmp_path, capsys, name):
    source = archive(tmp_path / "run.h5")
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / name).write_text("mine")
    assert published(source, tmp_path / "public" / "run.h5").code == 2
    assert "nothing was touched" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in (tmp_path / "public").iterdir()} == {name: "mine"}


@pytest.mark.parametrize("part", ["card", "citation", "sums"])
def test_nothing_is_left_when_one_of_them_fails(tmp_path, monkeypatch, part):
    source = archive(tmp_path / "run.h5")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publishing, part, full)
    assert published(source, tmp_path / "public" / "run.h5").code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run.h5"]


def test_the_card_of_a_run_without_rows(tmp_path):
    record = dataclasses.replace(
        ProbeRecord(name="p.1", fingerprint="sha256:00", count=4), settings={"output": "trace"}
    )
    ArchiveWriter(tmp_path / "run.h5", probes=[record], provenance=Provenance(run={"run_id": "r"})).close()
    found = published(tmp_path / "run.h5", tmp_path / "public" / "run.h5")
    assert found.code == 0
    assert "probes/p.1/settings" in found.body
