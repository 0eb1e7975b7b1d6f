"""A page is written while its run goes on. Oracles: the archive's own number of snapshots, and the writer that holds it."""

import pytest

from kerneltrack.analysis.cli import main
from kerneltrack.analysis.commands.watch import EVERY, run_watch
from kerneltrack.archive import ArchiveWriter, is_being_written
from tests.analysis.test_outputs import few


@pytest.fixture
def going(synthetic, truth, tmp_path):
    """(path, writer, rows to come) of a run that has not measured yet."""
    rows = few(synthetic.snapshots(truth), {"trace"})
    with ArchiveWriter(
        tmp_path / "run.h5", probes=[synthetic.record(truth)], provenance=synthetic.provenance()
    ) as writer:
        yield tmp_path / "run.h5", writer, rows


def test_it_is_made_with_every_snapshot_and_once_more_at_the_end(going):
    path, writer, rows = going
    made, slept = [], []

    def sleep(seconds):
        """What the run does meanwhile: nothing yet, a snapshot, nothing, two snapshots, its end."""
        slept.append(seconds)
        for _ in range((0, 1, 0, 2)[len(slept) - 1] if len(slept) < 5 else 0):
            writer.append(next(rows))
        if len(slept) == 5:
            writer.close()

    assert is_being_written(path)
    assert run_watch([path], lambda reload: made.append((len(slept), reload)), sleep=sleep)
    assert made == [(2, EVERY), (4, EVERY), (5, 0)]
    assert not is_being_written(path)


def test_interrupted_it_leaves_a_page_that_stands_still(going):
    path, writer, rows = going
    writer.append(next(rows))
    made = []

    def sleep(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_watch([path], made.append, sleep=sleep)
    assert made == [EVERY, 0]


@pytest.mark.usefixtures("undrawn")
def test_of_a_closed_run_the_page_is_written_once(light_run, tmp_path, capsys):
    target = tmp_path / "page.html"
    assert main(["report", str(light_run), "--watch", "-o", str(target)]) == 0
    assert "as it stays" in capsys.readouterr().out
    assert "data-reload" not in target.read_text(encoding="utf-8").partition("<main")[0]


@pytest.fixture
def light_run(synthetic, truth, tmp_path):
    return synthetic.write(tmp_path / "closed.h5", few(synthetic.snapshots(truth)), synthetic.record(truth))
