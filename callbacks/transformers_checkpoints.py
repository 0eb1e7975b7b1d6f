"""The tracker's state in the checkpoint folders of transformers' Trainer: a file beside theirs."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


def save(archive: Path, folder: Path, state: dict[str, Any]) -> None:
    """Write the state of the tracker of ``archive`` into a checkpoint; a warning where there is no such folder."""
    if not folder.is_dir():
        warnings.warn(
            f"kerneltrack: there is no {folder}, so the tracker's state is in no checkpoint. Save it yourself: "
            "torch.save(tracker.state_dict(), path).",
            stacklevel=3,
        )
        return
    path = folder / _name(archive)
    beside = path.with_suffix(".tmp")
    torch.save(state, beside)
    os.replace(beside, path)


def load(archive: Path, args: Any, step: int) -> dict[str, Any]:
    """The state that goes with the checkpoint which a Trainer goes on from at ``step``; {} and a warning where there is none."""
    folders = list(dict.fromkeys(_folders(args, step)))
    for folder in folders:
        path = folder / _name(archive)
        moved = sorted(folder.glob(f"kerneltrack-{archive.stem}-*.pt"))  # the archive's folder has another name now
        found = path if path.exists() else moved[0] if len(moved) == 1 else None
        if found is not None:
            state: dict[str, Any] = torch.load(found, map_location="cpu", weights_only=True)
            return state
    warnings.warn(
        f"kerneltrack: the Trainer goes on from step {step}, and no state of the tracker of {archive} is in "
        f"{' or '.join(map(str, folders))}, so this is a new run. If it is elsewhere: tracker.load_state_dict(torch.load(path)).",
        stacklevel=3,
    )
    return {}


def folder_of(args: Any, step: int) -> Path:
    """Where a Trainer saves the checkpoint of this step."""
    return Path(args.output_dir) / f"checkpoint-{step}"


def _folders(args: Any, step: int) -> Iterator[Path]:
    """Where a checkpoint that a Trainer goes on from may lie: it does not tell its callbacks."""
    named = getattr(args, "resume_from_checkpoint", None)
    if isinstance(named, (str, os.PathLike)) and str(named).lower() not in ("true", "false"):
        yield Path(named)
    yield folder_of(args, step)


def _name(archive: Path) -> str:
    """Two trackers of one Trainer differ by their archives' paths, as they were given."""
    return f"kerneltrack-{archive.stem}-{hashlib.blake2b(str(archive).encode(), digest_size=4).hexdigest()}.pt"
