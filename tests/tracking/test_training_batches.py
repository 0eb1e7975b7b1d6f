"""Batches of the training data that something is measured on. Oracle: their sizes and numbers, by hand."""

from types import SimpleNamespace

import pytest

from kerneltrack.errors import ProbeError
from kerneltrack.tracking.training_batches import COUNT, training_batches


@pytest.mark.parametrize(("each", "drawn"), [(1, (3, COUNT)), (2, (6, COUNT)), (3, (9, COUNT)), (4, (10, 1))])
def test_a_batch_is_as_large_as_an_update_s(each, drawn):
    """Of ten samples three to a batch: two processes, or two batches an update, have six; four have all, of which there is one."""
    loader = SimpleNamespace(dataset=range(10), batch_size=3)
    samples, count = drawn
    assert training_batches(loader, each, lambda *asked: asked) == (tuple((samples, i) for i in range(count)), "")


def test_why_there_are_none():
    for loader in (
        None,
        SimpleNamespace(dataset=iter(()), batch_size=3),
        SimpleNamespace(dataset=[1], batch_size=None),
    ):
        assert training_batches(loader, 1, None) == ((), "no training loader that tells its data and its batch size")

    def refuses(*_):
        raise ProbeError("it has no split")

    loader = SimpleNamespace(dataset=range(4), batch_size=2)
    assert training_batches(loader, 1, refuses) == ((), "no training batches could be drawn: it has no split")
