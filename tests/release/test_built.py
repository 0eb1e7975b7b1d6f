"""The judge of built files sees each fault. Oracle: archives made here, one thing wrong in each."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest

from tests.release import built, check

TRACKED = [
    "setup.cfg",
    "kerneltrack/a.py",
    "callbacks/b.py",
    "analysis/report/c.css",
    "docs/d.md",
    ".ci/run",
    ".gitignore",
]
GOOD = """\
Metadata-Version: 2.4
License-Expression: MIT
License-File: LICENSE
Project-URL: Source, https://x.org
Project-URL: Documentation, https://x.org
Project-URL: Changelog, https://x.org
Project-URL: Issues, https://x.org

[a](https://x.org/a) <img src="https://x.org/b.png"> [c](#c)
"""


@pytest.fixture(autouse=True)
def classifiers(monkeypatch):
    monkeypatch.setattr(
        built, "classifier_faults", lambda given: [f"unknown classifier {n}" for n in given if "!" in n]
    )


def sdist(path, names):
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"kerneltrack-1/{name}"), io.BytesIO())
    return path


def wheel(path, names, metadata=GOOD):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
        archive.writestr("kerneltrack-1.dist-info/METADATA", metadata)
    return path


def test_an_sdist_has_every_tracked_file(tmp_path):
    whole = ["setup.cfg", "kerneltrack/a.py", "callbacks/b.py", "analysis/report/c.css", "docs/d.md", "PKG-INFO"]
    assert list(built.sdist_faults(sdist(tmp_path / "a.tar.gz", whole), TRACKED)) == []
    for name in whole[:-1]:
        left = [other for other in whole if other != name]
        assert list(built.sdist_faults(sdist(tmp_path / "a.tar.gz", left), TRACKED)) == [f"the sdist has no {name}"]


def test_a_wheel_has_the_package_and_nothing_else(tmp_path):
    whole = ["kerneltrack/a.py", "kerneltrack/callbacks/b.py", "kerneltrack/analysis/report/c.css"]
    assert list(built.wheel_faults(wheel(tmp_path / "a.whl", whole), TRACKED)) == []
    assert list(built.wheel_faults(wheel(tmp_path / "a.whl", whole[:-1]), TRACKED)) == [f"the wheel has no {whole[-1]}"]
    found = list(built.wheel_faults(wheel(tmp_path / "a.whl", [*whole, "tests/x.py"]), TRACKED))
    assert found == ["the wheel has tests/x.py, which nobody tracks"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("", ""), []),
        (("License-Expression: MIT", "License: MIT"), ["the licence is None"]),
        (("License-File: LICENSE\n", ""), ["the licence is 'MIT', its file None"]),
        (("Project-URL: Issues, https://x.org\n", ""), ["no project URL Issues"]),
        (("(https://x.org/a)", "(docs/a.md)"), ["a relative link docs/a.md"]),
        (("https://x.org/b.png", "b.png"), ["a relative link b.png"]),
        (("License-File", "Classifier: none!\nLicense-File"), ["unknown classifier none!"]),
    ],
)
def test_what_an_index_would_show(tmp_path, change, said):
    found = list(built.metadata_faults(wheel(tmp_path / "a.whl", [], GOOD.replace(*change) if change[0] else GOOD)))
    assert len(found) == len(said)
    assert all(one.startswith(words) for one, words in zip(found, said, strict=True))


def test_an_environment_with_torch_is_no_environment_for_reading():
    """Also: a command that fails, and one that does not say what to install."""
    good = '{"command": "show", "code": 0, "stderr": ""}\n{"command": "demo", "code": 2, "stderr": "`pip install kerneltrack`"}'
    refused = '{"refused": [{"name": "x", "type": "MissingPackageError", "said": ""}]}'
    assert list(check.reading_faults(f"{good}\n{refused}")) == []
    for wrong in (good.replace('"code": 0', '"code": 1'), good.replace("`pip install kerneltrack`", "no torch")):
        assert len(list(check.reading_faults(wrong))) == 1
    assert len(list(check.reading_faults(refused.replace("MissingPackageError", "")))) == 1


def test_a_failing_command_fails_its_step():
    with pytest.raises(check.Failed, match="exit code 3"):
        check.run("sh", "-c", "exit 3")
