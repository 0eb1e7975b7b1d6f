"""The demo at small size: the paper's orderings hold, it is reproducible, and it overwrites nothing.

The expected orderings are the paper's and those of a derivation: at the edge of stability λ_i ≈ 2N/η for the top modes,
so that with the halved rate |1 − η λ_i/N| ≈ 0 and one update removes the residual there. The full size is `make demo`.
"""

import numpy as np
import pytest

from kerneltrack.analysis.commands import demo
from kerneltrack.analysis.commands.demo_checks import Experiment, run_checks
from kerneltrack.archive import open_archive
from kerneltrack.errors import ArchiveExistsError

SMALL = Experiment(samples=100, width=128, steps=500, halve_at=350)
TINY = Experiment(samples=24, width=8, steps=8, halve_at=5)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    assert demo.run_demo(out, experiment=SMALL) == 0
    return out


def test_it_writes_three_files_and_leaves_nothing_else(small):
    assert sorted(p.name for p in small.iterdir()) == ["control.h5", "demo.h5", "demo.html"]


def test_the_control_says_what_it_is(small):
    """Of this run, from its fork on, on the same batches, at the run's own steps with the old rate."""
    with open_archive(small / "demo.h5") as run, open_archive(small / "control.h5") as control:
        said = {name: control.attrs[name] for name in ("control_of", "fork_step", "batches")}
        assert said == {"control_of": run.attrs["archive_id"], "fork_step": SMALL.halve_at, "batches": "same_batches"}
        assert control.steps.tolist() == [step for step in run.steps.tolist() if step >= SMALL.halve_at]
        assert {row.learning_rates for row in control} == {(SMALL.learning_rate,)}
    assert "Beside it stands the control “control”" in (small / "demo.html").read_text(encoding="utf-8")


def test_every_claim_holds(small):
    checks = run_checks(small / "demo.h5", small / "control.h5", SMALL)
    assert len(checks) == 10
    assert [c for c in checks if not c.holds] == []


def test_the_checks_can_fail(small):
    """Negative control: the control in the place of the run never halves its rate."""
    failed = [c.claim for c in run_checks(small / "demo.h5", small / "demo.h5", SMALL) if not c.holds]
    assert "without it, it stays at the old bound" in failed


def test_top_eigenfunctions_end_up_looking_like_the_picture(small):
    """Oracle: the share of the target's centred energy in the top 5 modes, beside its exact expectation under permuted
    labels; at the start the top modes hold little more than chance, at the end several times as much."""
    with open_archive(small / "demo.h5") as archive:
        data = archive.to_xarray()
        start, end = (data.isel(snapshot=i).sel(energy_k=5) for i in (0, -1))
        assert float(end.target_energy_centred) > 1.3 * float(start.target_energy_centred)
        assert float(end.target_energy) > 2 * float(end.target_energy_null)


def test_existing_output_is_refused_without_force(small):
    before = {p.name: p.read_bytes() for p in small.iterdir()}
    with pytest.raises(ArchiveExistsError, match="--force"):
        demo.run_demo(small, experiment=TINY)
    assert {p.name: p.read_bytes() for p in small.iterdir()} == before


#: What may differ between two runs of one seed: times, what they cost, and random identifiers.
VARY = {"wall_time", "train_seconds", "snapshot_seconds"}


@pytest.mark.nightly
def test_two_runs_give_the_same_content(tmp_path, monkeypatch):
    """Oracle: the run itself, repeated; bit for bit on one machine. The page is not looked at, so it is not drawn."""
    monkeypatch.setattr(demo, "write_report", lambda archives, page, **_: page.write_text(""))
    for name in "ab":
        demo.run_demo(tmp_path / name, experiment=TINY)
    for file in ("demo.h5", "control.h5"):
        with open_archive(tmp_path / "a" / file) as a, open_archive(tmp_path / "b" / file) as b:
            x, y = a.to_xarray(), b.to_xarray()
            assert set(x.variables) == set(y.variables)
            for name in set(x.variables) - VARY:
                assert np.array_equal(x[name].values, y[name].values, equal_nan=x[name].dtype.kind == "f"), name


def test_the_photograph_is_a_picture():
    grey = demo.photograph()
    assert grey.ndim == 2
    assert min(grey.shape) > 200
    assert 0 <= grey.min() < 0.2 < 0.8 < grey.max() <= 1


def test_points_are_standardised_and_seeded():
    x, y = demo.scattered_pixels(500, 3)
    assert (x.shape, y.shape) == ((500, 2), (500, 1))
    for values in (x, y):
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(values.std(0, correction=0), 1, rtol=1e-6)
    assert (demo.scattered_pixels(500, 3)[0] == x).all()
    assert not (demo.scattered_pixels(500, 4)[0] == x).all()


def test_the_network_is_the_papers():
    """|θ| = 3·256 + 4·65 792 + 257 = 264 193 with 6 weight layers of 256 neurons."""
    e = Experiment()
    network = demo.PictureNetwork(e)
    assert sum(p.numel() for p in network.parameters()) == 264_193
    assert all((p == 0).all() for n, p in network.named_parameters() if n.endswith("bias"))
