"""Where numbers come from: versions, machine, parameters. Plain JSON values for an archive's provenance."""

from __future__ import annotations

import getpass
import os
import platform
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from kerneltrack.snapshot import Json

#: The packages whose versions could change a number.
PACKAGES = ("kerneltrack", "torch", "pytorch-lightning", "lightning", "numpy", "scipy", "h5py")


def public_facts(module: nn.Module) -> dict[str, Json]:
    """What a stranger may know: time, versions, model class, device, seed and git revision."""
    device = next(module.parameters()).device
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version(), **_versions()},
        "model": f"{type(module).__module__}.{type(module).__qualname__}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "seed": _seed(),
        "git_revision": _git_revision(),
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


def parameter_table(module: nn.Module) -> list[dict[str, Json]]:
    """Name, shape, whether it trains, and layer (the name without its last part) of every parameter."""
    return [
        {"name": n, "shape": list(p.shape), "trainable": p.requires_grad, "layer": n.rpartition(".")[0]}
        for n, p in module.named_parameters()
    ]


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _seed() -> int | None:
    """The seed that Lightning's ``seed_everything`` leaves in the environment, if it was called."""
    value = os.environ.get("PL_GLOBAL_SEED", "")
    return int(value) if value.isdigit() else None


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None


def _git_revision() -> str | None:
    """The revision of the working directory's repository; None without git or outside of one."""
    command, quiet = ["git", "rev-parse", "HEAD"], subprocess.DEVNULL
    try:
        found = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=quiet, stdin=quiet, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
