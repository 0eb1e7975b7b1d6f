"""After a loss of power every acknowledged snapshot is there. The power cut is simulated.

A model of the disk watches every call that changes files. What the model keeps over a cut is only what POSIX promises:
the bytes of a file as of its last fsync, the names in a folder as of the folder's last fsync. What was not synced is
gone, or has reached the disk by chance: each cut is tried in several ways (nothing unsynced survived; all names but no
bytes did; a random choice of both). Oracle: the acknowledged snapshots. A writer that forgets one kind of fsync loses
some of them, which shows that the model would notice.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from pathlib import Path

import pytest

from kerneltrack.archive import ArchiveWriter, open_archive

WATCHED = (
    "open",
    "close",
    "pwrite",
    "ftruncate",
    "posix_fallocate",
    "fsync",
    "replace",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
)


class Disk:
    """What would be left of a folder if the power failed now.

    Files and folders are nodes; ``names`` maps each folder's node to what it holds now, ``safe_names`` to what it held
    at its last fsync, ``safe_bytes`` each file's node to its bytes at its last fsync.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, forget: str = "") -> None:
        self.root, self.forget = root, forget
        self.path_of: dict[int, Path] = {}
        self.folders: dict[int, dict[str, int]] = {0: {}}
        self.safe_names: dict[int, dict[str, int]] = {0: {}}
        self.safe_bytes: dict[int, bytes] = {}
        self._numbers = itertools.count(1)
        self.after_each = lambda name: None
        for name in WATCHED:
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name, call):
        def watched(*arguments, **options):
            path = None if name in ("close", "fsync", "pwrite", "ftruncate", "posix_fallocate") else Path(arguments[0])
            if path is not None and self.root not in (path, *path.parents):
                return call(*arguments, **options)
            moved = self._node(path) if name in ("rename", "replace") else None
            result = call(*arguments, **options)
            if name == "open":
                self.path_of[result] = path
                if arguments[1] & os.O_CREAT:
                    self._name(path)
            elif name == "close":
                self.path_of.pop(arguments[0], None)
            elif name == "fsync":
                self._synced(arguments[0])
            elif name in ("replace", "rename"):
                self._folder(path).pop(path.name)
                self._name(Path(arguments[1]), moved)
            elif name == "mkdir":
                node = self._name(path)
                self.folders[node], self.safe_names[node] = {}, {}
            elif name in ("unlink", "rmdir"):
                self._folder(path).pop(path.name, None)
            if name not in ("open", "close", "pwrite"):
                self.after_each(name)
            return result

        return watched

    def _node(self, path):
        """The node at a path; a file that was made behind the model's back gets one now."""
        known = self._folder(path).get(path.name) if path != self.root else 0
        return self._name(path) if known is None else known

    def _folder(self, path):
        node = 0
        for part in path.parent.relative_to(self.root).parts:
            node = self.folders[node][part]
        return self.folders[node]

    def _name(self, path, node=None):
        node = next(self._numbers) if node is None else node
        self._folder(path)[path.name] = node
        return node

    def _synced(self, descriptor):
        path = self.path_of.get(descriptor)
        if path is None:
            return
        node = self._node(path)
        if node in self.folders:
            if self.forget != "folders":
                self.safe_names[node] = dict(self.folders[node])
        elif self.forget != "files":
            self.safe_bytes[node] = path.read_bytes()

    def cut(self, target: Path, mode: str, draw: random.Random) -> None:
        """Lay out in ``target`` what is left."""
        shutil.rmtree(target, ignore_errors=True)
        self._lay_out(0, target, self.root, mode, draw)

    def _lay_out(self, node, target, now, mode, draw):
        target.mkdir()
        unsynced_names = mode == "names survive" or (mode == "by chance" and draw.random() < 0.5)
        for name, child in (self.folders if unsynced_names else self.safe_names)[node].items():
            if child in self.folders:
                self._lay_out(child, target / name, now / name, mode, draw)
            else:
                (target / name).write_bytes(self.safe_bytes.get(child, b""))


MODES = ("nothing else survives", "names survive", "by chance")


def faults_of_a_run(tmp_path, monkeypatch, make, forget="", every=1):
    """Append, join, close, resume, append; cut the power after every call (or every so many) in two ways; what was lost."""
    root, left = tmp_path / "disk", tmp_path / "left"
    root.mkdir()
    draw = random.Random(0)
    faults, cuts, acknowledged = [], [0], []
    with monkeypatch.context() as patched:
        disk = Disk(root, patched, forget)
        seen = {}

        def examine(call):
            state = repr((disk.folders, disk.safe_names, {k: hash(v) for k, v in disk.safe_bytes.items()}))
            if not acknowledged or seen.get(state) == len(acknowledged):
                return
            seen[state] = len(acknowledged)
            if len(seen) % every:
                return
            disk.after_each = lambda name: None
            for mode in (MODES[0], draw.choice(MODES[1:])):
                disk.cut(left, mode, draw)
                cuts[0] += 1
                try:
                    with open_archive(left / "deep" / "run.h5", all_segments=True) as archive:
                        lost = set(acknowledged) - set(archive.steps.tolist())
                        torn = [s.step for s in archive[-1:] if not make.same(s, make.snapshot(s.step))]
                        faults.extend([f"{mode}, {call}: lost {lost}, torn {torn}"] if lost or torn else [])
                except OSError as error:
                    faults.append(f"{mode}, {call}: {error}")
            disk.after_each = examine

        disk.after_each = examine
        path = root / "deep" / "run.h5"
        writer = ArchiveWriter(path, probes=[make.probe], provenance=make.run)
        for step in range(1, 10):
            writer.append(make.snapshot(step))
            acknowledged.append(step)
            examine("append")
        writer.close()
        examine("close")
        with ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=9) as writer:
            writer.append(make.snapshot(10))
            acknowledged.append(10)
            examine("append")
        examine("close")
    return faults, cuts[0]


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.nightly)])
def test_nothing_acknowledged_is_lost(tmp_path, monkeypatch, make, every):
    """The quick run's cuts are a fifth of all."""
    faults, cuts = faults_of_a_run(tmp_path, monkeypatch, make, every=every)
    assert not faults, faults[:5]
    assert cuts > 30


@pytest.mark.parametrize("forgotten", ["files", pytest.param("folders", marks=pytest.mark.nightly)])
def test_a_writer_that_forgets_an_fsync_loses_something(tmp_path, monkeypatch, make, forgotten):
    """Negative control: the same run, with the model told that one kind of fsync never happened."""
    faults, _ = faults_of_a_run(tmp_path, monkeypatch, make, forgotten)
    assert any("lost" in fault or "no such archive" in fault or "damaged" in fault for fault in faults)
