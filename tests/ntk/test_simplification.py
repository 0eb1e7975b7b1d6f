"""What a recorded graph leaves out changes no bit. Oracle: the work itself, done again on what its tensors hold by then."""

import pytest
import torch
import torch.nn.functional as F

from kerneltrack.ntk.methods import operator_tape
from kerneltrack.ntk.methods.operator_tape import OperatorTape

X = torch.linspace(-1, 1, 2 * 3 * 4 * 4).view(2, 3, 4, 4)


def recorded(work, x):
    tape = OperatorTape()
    tape.record(lambda: work(x))
    return tape


def operators(tape):
    """Names of those that are called, views and parts of results left out."""
    called = [node.target for node in tape._run.__self__.graph.nodes if node.op == "call_function"]
    return [str(one) for one in called if one is not torch.as_strided and "getitem" not in str(one)]


def patches_twice(x):
    return [F.unfold(x, 2).sum(1), F.unfold(x, 2).amax(1)]


def a_guarding_clone(x):
    return [x.mul(2).clone().relu()]


def units(x):
    return [x[0, 0] @ torch.eye(4).expand(3, 4, 4).contiguous()[0], x.new_zeros(4).add(1) * x]


#: Work, and the operators that are left of it.
LEFT_OUT = {patches_twice: 3, a_guarding_clone: 2, units: 2}


@pytest.mark.parametrize("work", LEFT_OUT)
def test_what_is_left_out(work):
    tape = recorded(work, X.clone())
    assert len(operators(tape)) == LEFT_OUT[work], operators(tape)


def write_to_the_copy(x):
    y = x.mul(2)
    return [y.clone().add_(1) * y]


def write_to_the_source(x):
    y = x.mul(2)
    kept = y.clone()
    return [y.add_(1) * kept]


def write_between(x):
    y = x.mul(2)
    before = y.exp()
    y.add_(1)
    return [before * y.exp()]


def write_to_one_of_two(x):
    return [x.mul(2).add_(1) * x.mul(2)]


def write_to_a_part(x):
    largest, places = F.max_pool2d(x, 2, return_indices=True)
    again, _ = F.max_pool2d(x, 2, return_indices=True)
    return [largest.mul_(3) + again, places]


def write_to_new_numbers(x):
    one = x.new_zeros(4)
    one[2] = 1
    return [x * one + x.new_zeros(4)]


def copy_of_a_later_part(x):
    return [torch.cat([x, x + 1])[2:].clone().view(-1)[5:9] * 2]


def numbers_of_another_kind(x):
    """1 and 1.0 give integers and floats; something follows, because what is left behind is shared in no case."""
    return [x.long().clamp(min=1).neg(), x.long().clamp(min=1.0).neg()]


def the_same_twice(x):
    return [x.clone(), x.clone(), torch.zeros(3), x.mul(2), x.mul(2)]


WORKS = [
    *LEFT_OUT,
    *(write_to_the_copy, write_to_the_source, write_between, write_to_one_of_two, write_to_a_part),
    *(write_to_new_numbers, copy_of_a_later_part, numbers_of_another_kind, the_same_twice),
]


@pytest.mark.parametrize("work", WORKS)
def test_every_bit_is_that_of_the_work(work):
    x = X.clone()
    tape = recorded(work, x)
    for factor in (1.5, -2.0):
        x.mul_(factor)
        found, expected = tape.replay(), work(x)
        assert [one.dtype for one in found] == [one.dtype for one in expected]
        assert all(map(torch.equal, found, expected))


def test_what_is_left_is_the_caller_s():
    """Fails where a copy that is handed out is taken for its source, or two for one, or a new number for a kept one."""
    x = X.clone()
    tape = recorded(the_same_twice, x)
    first = tape.replay()
    for one in first:
        one.fill_(7)
    assert torch.equal(x, X)
    assert len({one.data_ptr() for one in (*first, *tape.replay())}) == 10
    assert all(map(torch.equal, tape.replay(), the_same_twice(x)))


def test_nothing_that_was_made_is_held(monkeypatch):
    """But constants. Fails where the graph keeps what it knows of its nodes, also of those that are gone."""
    seen = []
    graph = operator_tape.Graph
    monkeypatch.setattr(operator_tape, "Graph", lambda: seen.append(graph()) or seen[-1])
    call = graph.call_function
    monkeypatch.setattr(graph, "call_function", lambda *given: seen.append(call(*given)) or seen[-1])
    constants = OperatorTape().record(lambda: units(X))
    assert len(constants) == 2
    assert len(seen) > 5
    assert not any(node.meta for node in seen[1:])
