"""Measured states whose kernels and eigenvectors stay where they are computed. Oracle: the same states on the host, in NumPy.

Where there is no card the tensors are a CPU's: ``place="kept"`` takes the way of a card. That no NumPy function is given one is
tests/observables/test_elsewhere.py.
"""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.references import RunReferences
from kerneltrack.measurement.residence import SHARE, STATES, stays
from kerneltrack.observables import NEEDS, catalogue
from kerneltrack.probe import Probe
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule
from tests.tiers import later


def course(place, output, loss, eigenpairs="all"):
    """Three states, the second from a checkpoint of the first, the last one light; every observable, of two probes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Linear(20, 3)).double()
    x, classes = torch.randn(14, 3, dtype=torch.float64), torch.arange(14) % 3
    targets = classes if loss == "cross_entropy" else torch.randn(14, 3, dtype=torch.float64)
    options = {
        "output": output,
        "gauge": "softmax" if loss == "cross_entropy" else "raw",
        "loss": ProbeLoss.of(loss),
        "observables": tuple(catalogue().values()),
        "place": place,
        "eigenpairs": eigenpairs,
        "top_k": 4,
    }
    first = Instrument(probe=Probe(x[:8], targets[:8], name="p"), in_training="yes", **options)
    second = Instrument(probe=Probe(x[8:], targets[8:], name="q"), in_training="no", **options)
    bare = dataclasses.replace(first, observables=(), loss=None)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    names = {id(p): n for n, p in model.named_parameters()}
    references, readings = RunReferences([first, second]), []
    references.begin(model)
    for step in range(3):
        if step == 1:
            again = RunReferences([first, second])
            again.load_state_dict(references.state_dict(), torch.device("cpu"), measures=True)
            references = again
        rule = UpdateRule.of([optimizer], names)
        of = {"step": step, "references": references.of("p", step), "keep_kernel": True}
        reading = first.glance(model, rule, **of) if step == 2 else first.measure(model, rule, **of)
        carried = bare.measure(model, rule, step=step, keep_parameters=False) if step != 2 else None
        other = None
        if carried is not None:
            source = (first, dataclasses.replace(carried, state=reading.state))
            other = second.measure(model, rule, step=step, references=references.of("q", step), source=source)
        nn.functional.mse_loss(model(x), torch.zeros(14, 3, dtype=torch.float64)).backward()
        optimizer.step()
        optimizer.zero_grad()
        reading = first.complete(model, reading, rule)
        references.keep("p", step, reading.state, light=step == 2)
        readings.append(reading)
        if other is not None:
            references.keep("q", step, other.state)
            readings.append(other)
    return readings


@pytest.mark.parametrize(
    ("output", "loss", "eigenpairs"),
    [("full", "cross_entropy", "all"), later(("trace", "half_mse", "all")), ("trace", "half_mse", "leading")],
)
def test_states_that_stay_where_they_are_computed_give_the_same_numbers(output, loss, eigenpairs):
    """1e-8 of the largest entry: kernels of 16 rows and less with a condition number below 1e5, solved to 1e-15 of λ_1."""
    here, there = (course(place, output, loss, eigenpairs) for place in ("host", "kept"))
    assert len(here) == len(there) == 5
    for a, b in zip(here, there, strict=True):
        assert b.values.keys() == a.values.keys()
        assert b.reasons == a.reasons
        assert [remark.replace("torch", "lapack") for remark in b.remarks] == list(a.remarks)
        for name, value in a.values.items():
            assert type(b.values[name]) is type(value)
            if name == "eigen_residual":
                continue
            scale = np.abs(np.nan_to_num(value, posinf=0, neginf=0)).max(initial=0.0)
            tolerance = 2e-7 if np.asarray(value).dtype == np.float32 else 1e-8  # eigenvectors are stored so
            np.testing.assert_allclose(b.values[name], value, rtol=0, atol=tolerance * scale + 1e-10, err_msg=name)
    kinds = {(type(r.state.kernel), type(r.state.eigensystem.vectors)) for r in there if r.whole}
    assert kinds == {(torch.Tensor, torch.Tensor)}
    assert {type(r.state.kernel) for r in here} == {np.ndarray}


def test_what_stays_takes_at_most_a_tenth_of_the_card(monkeypatch):
    """Counted by hand: a kernel, its eigenvectors and what else is as large, of four states in float64."""
    held = torch.zeros(100, 100, 3)
    kernel = SimpleNamespace(numel=held.numel, device=torch.device("cuda"))
    wanted = [NEEDS[name] for name in ("kernel", "optimizer_kernel", "cross_time", "layer_kernels", "outputs")]
    needed = SHARE * STATES * 8 * ((1 + 2 + 5) * 30_000 + 300**2)
    for total, stay in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda _, total=total: SimpleNamespace(total_memory=total)
        )
        assert stays(kernel, rows=300, wanted=wanted, layers=5, place="auto") == stay
    assert not stays(held, rows=300, wanted=wanted, place="auto")  # a CPU's
    assert stays(held, rows=300, wanted=wanted, place="kept")
    assert not stays(held, rows=300, wanted=wanted, place="host")
    assert not stays(None, rows=300, wanted=wanted, place="kept")
