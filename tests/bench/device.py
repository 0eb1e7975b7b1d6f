"""Every workload and installed peer on one device, in one process; writes docs/benchmarks-gpu.md.

    python tests/bench/device.py [--device cuda] [--workloads M1,C1] [--seconds 0.6]
    python tests/bench/device.py --lines docs/benchmarks-gpu.jsonl     the page again, from what was measured

A borrowed card has minutes, so nothing is started anew for a peer. Each is called once before it is measured, and this
package so often that its plan is kept, what is compared once for a plan was compared, and the kernel is recorded. What was
measured is written line by line to docs/benchmarks-gpu.jsonl, from which the page is made.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
sys.path.insert(0, str(HERE))

import torch  # noqa: E402
from peers import PEERS, make  # noqa: E402
from report import milliseconds  # noqa: E402
from workloads import WORKLOADS, Transformer, Workload, deep, resnet18  # noqa: E402

#: Larger ones, which a card has room for.
LARGER = {
    "M2L": Workload(deep, 10_000, (2,), 1, "full", "MLP 2-256×6-1, LeakyReLU"),
    "T1h": Workload(Transformer, 256, (64, 32), 10, "full", "transformer, 64 tokens, width 128, 4 layers"),
    "C2h": Workload(resnet18, 128, (3, 32, 32), 10, "full", "ResNet-18 for 32×32 images, eval-mode batch norm"),
    "C2t": Workload(resnet18, 256, (3, 32, 32), 10, "trace", "ResNet-18, trace over outputs"),
}
ALL = {name: work for name, work in {**WORKLOADS, **LARGER}.items() if not name.startswith(("tiny", "H"))}
#: The way of each peer that is the best on a card, and where it applies; torch.func in blocks of 12 GiB of rows.
WAYS = {"nngeometry": ("gram", ("M1", "M2", "C1", "C2", "C1t")), "asdfghjkl": ("hadamard", ("M2", "M2L"))}
BLOCK_BYTES = 12 * 2**30
#: Calls before the measured ones: a trial, what is compared once, one that is watched, one that is recorded; audits are on 1, 2, 4.
WARM = 6

PAGE = """# Benchmarks on a GPU

{about}

- **time**: median of the calls, with the fastest and the slowest one, each from inputs on the device to the finished kernel on the
  device. Every package was warm: its first calls are not in it. An audit of ours may be.
- **best peer**: torch.func (vmap of jacrev, in blocks of at most 12 GiB of rows), nngeometry or asdfghjkl, whichever was fastest
  in the same run; curvlinops too for the product.
- **V0, unchanging**: inside `with operator.unchanging():`, which spares the look at whether the model has changed.
- **card busy**: the sum of the times of the kernels that the card ran in one call of ours. The rest is the host.
- **error**: largest difference from a float64 Jacobian by torch.func on six samples, over the largest entry.
- **recorded**: bytes that the CUDA graph of our kernel holds between calls; why there is none where there is none
  ([how that works](concepts/methods-and-cost.md#on-an-accelerator)).

| workload | N, O | kerneltrack | card busy | best peer | its time | speed-up | error | recorded |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

{verdict}
"""


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("{")]


def times(run: Callable[[], Any], seconds: float, before: int) -> dict[str, Any]:
    """Median, fastest, slowest in seconds, and how many."""
    for _ in range(before):
        run()
    found: list[float] = []
    while len(found) < 3 or (sum(found) < seconds and len(found) < 20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return {"median": statistics.median(found), "low": min(found), "high": max(found), "n": len(found)}


def busy(run: Callable[[], Any]) -> float:
    """Milliseconds that the card worked in one call."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize()
    events = [event for event in seen.key_averages() if not event.key.startswith("aten::")]
    return sum(event.self_device_time_total for event in events) / 1e3


def in_blocks(model: torch.nn.Module, x: torch.Tensor, work: Workload) -> Callable[[], torch.Tensor]:
    """vmap of jacrev, the upper triangle in blocks of rows."""
    from torch.func import functional_call, jacrev, vmap

    parameters, buffers = {k: p.detach() for k, p in model.named_parameters()}, dict(model.named_buffers())
    width = work.outputs if work.kind == "full" else 1
    size = x.element_size() if x.is_floating_point() else 4
    step = max(1, min(len(x), BLOCK_BYTES // (size * work.outputs * sum(p.numel() for p in parameters.values()))))

    def one(p: Any, sample: torch.Tensor) -> torch.Tensor:
        return functional_call(model, (p, buffers), (sample.unsqueeze(0),)).squeeze(0)

    def rows(samples: torch.Tensor) -> list[torch.Tensor]:
        found = vmap(jacrev(one), (None, 0))(parameters, samples)
        return [(j.flatten(2) if work.kind == "full" else j.flatten(1)).flatten(0, -2) for j in found.values()]

    @torch.no_grad()
    def kernel() -> torch.Tensor:
        n = len(x) * width
        theta = torch.empty(n, n, device=x.device, dtype=next(iter(parameters.values())).dtype)
        for i in range(0, len(x), step):
            left = rows(x[i : i + step])
            for j in range(i, len(x), step):
                right = left if i == j else rows(x[j : j + step])
                tile = torch.stack([a @ b.T for a, b in zip(left, right, strict=True)]).sum(0)
                theta[i * width : (i + step) * width, j * width : (j + step) * width] = tile
                theta[j * width : (j + step) * width, i * width : (i + step) * width] = tile.T
        return theta

    return kernel


def measured(name: str, device: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Ours, then every peer."""
    import kerneltrack as kt
    from kerneltrack.ntk.methods import recorded

    work = ALL[name]
    model, x, v = work.model().to(device), work.inputs().to(device), work.vector().to(device)
    problem = SimpleNamespace(name=name, model=model, x=x, workload=work, v=v)
    product = work.kind == "product"
    ours = make("kerneltrack", "product" if product else "auto", problem).run
    if product:
        operator, flat = kt.NTKOperator(model, x), v.reshape(-1)
        operator.matvec(flat)
        with operator.unchanging():
            unchanging = times(lambda: operator.matvec(flat), seconds, WARM)
        yield {"workload": name, "who": "kt unchanging", **unchanging}
    line = {"workload": name, "who": "kt", **times(ours, seconds, WARM), "note": recorded(model)}
    if not product:
        few = x[:6] if work.vocabulary else x[:6].double()
        truth = in_blocks(work.model().to(device).double(), few, work)()
        kernel = kt.empirical_ntk(model, x, output=work.kind)
        matrix = kernel.permute(0, 2, 1, 3).flatten(0, 1).flatten(1) if work.kind == "full" else kernel
        part = matrix[: len(truth), : len(truth)].double()
        line["err"] = float((part - truth).abs().max() / truth.abs().max())
    yield line
    yield {"profile": name, "busy_ms": busy(ours)}
    others = [("torch_func", "product")] if product else []
    others += [(peer, way) for peer, (way, able) in WAYS.items() if name in able]
    others += [("curvlinops", "product")] if product else []
    if not product:
        yield {"workload": name, "who": "torch_func", **times(in_blocks(model, x, work), seconds, 1)}
    for peer, way in others:
        if find_spec("asdl" if peer == "asdfghjkl" else PEERS[peer][0].removesuffix("-for-pytorch")) is None:
            continue
        try:
            yield {"workload": name, "who": peer, **times(make(peer, way, problem).run, seconds, 1)}
        except (RuntimeError, ImportError, AttributeError) as error:
            yield {"workload": name, "who": peer, "error": f"{type(error).__name__}: {error}"[:200]}


def row(name: str, who: str, lines: list[dict[str, Any]]) -> tuple[str, float]:
    """One line of the table, and how many times as fast as the best peer."""
    work = ALL[name]
    ours = next(line for line in lines if line.get("who") == who and line["workload"] == name)
    card = [milliseconds(line["busy_ms"] / 1e3) for line in lines if line.get("profile") == name]
    best = min((line for line in lines if _is_peer(line, name)), key=lambda line: line["median"])
    faster = best["median"] / ours["median"]
    error = f"{ours['err']:.0e}" if ours.get("err") is not None else ""
    cells = (
        f"{who.replace('kt', name, 1).replace(' ', ', ')}: {work.about}, {work.kind}",
        f"{work.samples:,}, {work.outputs}",
        f"{milliseconds(ours['median'])} ({_spread(ours)})",
        *(card or [""]),
        best["who"],
        f"{milliseconds(best['median'])} ({_spread(best)})",
        f"{faster:.3g}×" if faster >= 1 else f"**{faster:.2g}×**",
        error,
        "; ".join(map(_in_mebibytes, ours.get("note") or [])),
    )
    return f"| {' | '.join(cells)} |", faster


def _spread(line: dict[str, Any]) -> str:
    return f"{milliseconds(line['low'])} – {milliseconds(line['high'])}, {line['n']}"


def _in_mebibytes(note: str) -> str:
    """Bytes in a remark, readable."""
    words = [f"{int(word) / 2**20:.0f} MiB" if word.isdigit() else word for word in note.split()]
    return " ".join(words).replace("MiB bytes", "MiB")


def page(lines: list[dict[str, Any]]) -> str:
    """The page, from what was measured."""
    about = next(line["about"] for line in lines if "about" in line)
    ours = [(line["workload"], line["who"]) for line in lines if line.get("who", "").startswith("kt")]
    ours = [(name, who) for name, who in ours if any(_is_peer(line, name) for line in lines)]
    rows = {who.replace("kt", name, 1).replace(" ", ", "): row(name, who, lines) for name, who in ours}
    twice = [name for name, (_, faster) in rows.items() if faster >= 2]
    between = [f"{name} ({faster:.3g}×)" for name, (_, faster) in rows.items() if 1 <= faster < 2]
    slower = [f"{name} ({faster:.2g}×)" for name, (_, faster) in rows.items() if faster < 1]
    verdict = f"At least twice as fast as the best peer: {', '.join(twice)}."
    verdict += f" Faster, and not twice: {', '.join(between)}." if between else ""
    verdict += f" **Slower**: {', '.join(slower)}." if slower else ""
    return PAGE.format(about=about, rows="\n".join(text for text, _ in rows.values()), verdict=verdict)


def _is_peer(line: dict[str, Any], name: str) -> bool:
    return line.get("workload") == name and not line["who"].startswith("kt") and "median" in line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workloads", default=",".join(ALL))
    parser.add_argument("--seconds", type=float, default=0.6, help="of each measurement")
    parser.add_argument("--lines", type=Path, help="measure nothing; write the page from these")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks-gpu.md")
    given = parser.parse_args()
    if given.lines is None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        card = torch.cuda.get_device_name(given.device)
        about = f"Made by `make bench-gpu` on {datetime.now(UTC):%Y-%m-%d}: {card}, torch {torch.__version__}, float32, TF32 off."
        given.lines = given.output.with_suffix(".jsonl")
        with given.lines.open("w", encoding="utf-8") as file:
            print(json.dumps({"about": about}), file=file, flush=True)
            for name in given.workloads.split(","):
                for line in measured(name, given.device, given.seconds):
                    print(json.dumps(line), file=file, flush=True)
                    print(line, flush=True)
                gc.collect()
                torch.cuda.empty_cache()
    given.output.write_text(page(lines_of(given.lines)), encoding="utf-8")


if __name__ == "__main__":
    main()
