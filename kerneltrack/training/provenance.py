"""Where numbers come from: versions, machine, parameters. Plain JSON values for an archive's provenance."""

from __future__ import annotations

import getpass
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import torch
from torch import nn

from kerneltrack.snapshot import Json

#: The packages whose versions could change a number.
PACKAGES = ("kerneltrack", "torch", "pytorch-lightning", "lightning", "numpy", "scipy", "h5py")


def public_facts(module: nn.Module) -> dict[str, Json]:
    """What a stranger may know: time, versions, model class, device, arithmetic, seed and git revision."""
    device = next(module.parameters()).device
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version(), **_versions()},
        "model": f"{type(module).__module__}.{type(module).__qualname__}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": _matmul_precision(),
        "threads": torch.get_num_threads(),
        "seed": _seed(),
        "git_revision": _git("rev-parse", "HEAD"),
        "git_changed": None if (changes := _git("status", "--porcelain", "-uno")) is None else bool(changes),
    }


def private_facts() -> dict[str, Json]:
    """What ``kerneltrack publish`` leaves out: host, user, folder, command line."""
    return {
        "host": socket.gethostname(),
        "user": _user(),
        "directory": str(Path.cwd()),
        "command": sys.argv,
        "platform": platform.platform(),
    }


def parameter_table(module: nn.Module, groups: Mapping[str, int] = MappingProxyType({})) -> list[dict[str, Json]]:
    """Name, shape, dtype, whether it trains, layer (the name without its last part) and parameter group of each one.

    Args:
        module: the network.
        groups: parameter name to the index of its optimizer's parameter group; None in the table where there is none.
    """
    return [
        {
            "name": n,
            "shape": list(p.shape),
            "dtype": str(p.dtype).removeprefix("torch."),
            "trainable": p.requires_grad,
            "layer": n.rpartition(".")[0],
            "group": groups.get(n),
        }
        for n, p in module.named_parameters()
    ]


def _matmul_precision() -> str:
    """The word of ``torch.set_float32_matmul_precision`` for what torch does now.

    It is read off the newer switches: torch refuses to say the word where they were set one by one.
    """
    mkldnn: Any = torch.backends.mkldnn
    found = {torch.backends.cuda.matmul.fp32_precision, mkldnn.matmul.fp32_precision}
    return "medium" if "bf16" in found else "high" if "tf32" in found else "highest"


def _versions() -> dict[str, str]:
    found = {"hdf5": h5py.version.hdf5_version}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None  # type: ignore[no-untyped-call]
    libraries = {"cuda": torch.version.cuda, "cudnn": cudnn}
    return found | {name: str(version) for name, version in libraries.items() if version}


def _seed() -> int | None:
    """The seed that Lightning's ``seed_everything`` leaves in the environment, if it was called."""
    value = os.environ.get("PL_GLOBAL_SEED", "")
    return int(value) if value.isdigit() else None


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # no such user; no module pwd on Windows
        return None


def _git(*arguments: str) -> str | None:
    """What git says of the working directory's repository; None without git or outside of one."""
    command, quiet = ["git", *arguments], subprocess.DEVNULL
    try:
        found = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=quiet, stdin=quiet, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
