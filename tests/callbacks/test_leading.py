"""Only the leading eigenpairs: by Lanczos from the kernel, or from products with J where no kernel is formed.

Oracle: the same training measured with every eigenpair. Tolerances are Weyl's: an eigenvalue lies within its stored
residual of one of the matrix; and where the entries of two matrices agree to four roundings of float32, their eigenvalues
agree to 4 ε ‖Θ‖_F.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import pytorch_lightning as pl

from kerneltrack import archive, open_archive
from kerneltrack.callbacks import NTKTracker
from kerneltrack.measurement.eigenpairs import FORWARD_PASSES_PER_PRODUCT, LANCZOS_PRODUCTS_PER_PAIR, forms_kernel
from kerneltrack.ntk import Plan
from kerneltrack.observables import catalogue
from tests.callbacks.comparisons import Saves, unequal
from tests.callbacks.lightning_runs import Regressor, loader, trainer
from tests.tiers import one_in

POINTS, PAIRS, TOO_LITTLE = 520, 5, 10**6  # the kernel of 520 points has 1.08 MB; from 500 rows on, Lanczos is worth it
ROUTES = {"kernel": {}, "products": {"memory_budget": TOO_LITTLE}}


def fit(path, *callbacks, checkpoint=None, rate=0.05, **options):
    pl.seed_everything(0, verbose=False)
    tracker = NTKTracker(path, probe=POINTS, schedule=1, top_k=PAIRS, loss="half_mse", log=False, **options)
    batches = loader(POINTS, batch_size=POINTS // 2, shuffle=False)
    model = Regressor(dropout=0.0, batchnorm=rate > 0, lr=rate)
    trainer(tracker, *callbacks, max_steps=4).fit(model, batches, ckpt_path=checkpoint)
    return path


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("all") / "run.h5")


@pytest.fixture(scope="module", params=ROUTES)
def route(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "run.h5"
    return request.param, fit(path, eigenpairs="leading", **ROUTES[request.param])


def test_the_leading_pairs_are_those_of_all(every, route):
    with open_archive(every) as whole, open_archive(route[1]) as some:
        assert some.steps.tolist() == whole.steps.tolist()
        for expected, row in zip(whole, some, strict=True):
            a, b = expected.probes["train"], row.probes["train"]
            allowed = float(b["eigen_residual"]) + 4 * 2.0**-23 * float(a["frobenius"])
            assert b["eigenvalues"].shape == (PAIRS,)
            np.testing.assert_allclose(b["eigenvalues"], a["eigenvalues"][:PAIRS], rtol=0, atol=allowed)
            # ‖v − w‖ = 2 sin(angle/2) ≤ √2 sin(angle), and that sine is at most what the matrices differ by, and the
            # residual, over the gap (Davis and Kahan). Vectors are stored in float32.
            values = np.append(np.inf, a["eigenvalues"][: PAIRS + 1])
            gaps = np.minimum(values[:-2] - values[1:-1], values[1:-1] - values[2:])
            apart = np.linalg.norm(a["eigenvectors"].astype(float) - b["eigenvectors"], axis=0)[0]
            assert np.all(apart <= 2**0.5 * allowed / gaps + 2.0**-23)
            assert b["trace"] == pytest.approx(float(a["trace"]), rel=1e-5)
            for name in ("stability_ratio", "linearization_error", "probe_loss"):
                np.testing.assert_allclose(b.get(name, np.nan), a.get(name, np.nan), rtol=1e-3)


def test_the_row_says_what_it_has_and_why_the_rest_is_missing(route):
    name, path = route
    source = {"kernel": "the kernel", "products": "products with J"}[name]
    assert archive.check(path) == []
    with open_archive(path) as run:
        assert run.probes["train"].settings["eigenpairs"] == "leading"
        assert run.probes["train"].settings["energy_k"] == [1, 2, 5]
        for row in run:
            values = row.probes["train"]
            assert row.message.startswith(f"{PAIRS} of {POINTS} eigenpairs, ")
            assert f" from {source}" in row.message
            assert ("frobenius" in values) == (name == "kernel")
            assert ("kernel" in values) == (name == "kernel" and row.step in (0, 4))
            needing_all = [n for n, entry in catalogue().items() if "spectrum" in entry.needs and entry.default]
            assert needing_all
            assert not values.keys() & set(needing_all)
            assert values["target_energy"].shape == (3,)
        assert run[0].message.split(", ")[1].startswith("lanczos")


@pytest.mark.parametrize(("name", "rate"), one_in(3, itertools.product(ROUTES, [0.05, 0.0])))
def test_a_resumed_run_begins_with_the_last_pairs_too(tmp_path, name, rate):
    """Oracle: the run that was not interrupted, bit for bit. Where nothing moves, the last pairs are all it takes."""
    options = {"eigenpairs": "leading", "rate": rate, **ROUTES[name]}
    path, saved = tmp_path / "run.h5", tmp_path / "run.ckpt"
    whole = fit(path, Saves(2, saved), **options).rename(tmp_path / "whole.h5")
    path.write_bytes(whole.read_bytes())
    fit(path, checkpoint=saved, **options)
    with open_archive(whole) as expected, open_archive(path) as found:
        assert unequal(expected, found) == []
        solvers = [row.message.split(", ")[1].split()[0] for row in found]
    assert solvers == ["lanczos", *["previous" if rate == 0 else "lanczos"] * 4]


def plan(**numbers):
    needed = {"method": "structured", "output": "full", "shape": (), "dtype": "float32", "uses": ()}
    return Plan(
        **needed, **{"budget_bytes": 100, "result_bytes": 50, "working_bytes": 20, "forward_flops": 1000, **numbers}
    )


def test_the_cheaper_source_of_the_leading_pairs_is_taken():
    """By hand: k = 2 pairs take 6 products, of 2·10² operations with the matrix of 10 rows, or of 5 forward passes."""
    assert (LANCZOS_PRODUCTS_PER_PAIR, FORWARD_PASSES_PER_PRODUCT) == (3, 5)
    sizes = {"pairs": 2, "rows": 10}
    at_par = (1000 + 6 * 2 * 100) / (6 * 5)
    assert forms_kernel(plan(), (), forward_flops=int(np.ceil(at_par)), **sizes)
    assert not forms_kernel(plan(), (), forward_flops=int(at_par) - 1, **sizes)
    assert forms_kernel(plan(), ("targets", "layers"), forward_flops=1, **sizes)
    for too_large in (plan(result_bytes=101), plan(working_bytes=51)):
        assert not forms_kernel(too_large, ("layers",), forward_flops=10**9, **sizes)
    assert forms_kernel(dataclasses.replace(plan(), working_bytes=50), (), forward_flops=10**9, **sizes)
