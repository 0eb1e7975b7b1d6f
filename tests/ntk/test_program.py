"""What changes in Python is seen by the program of a few samples, or all samples are compared.

Oracle: the plain Jacobian of the network as it is now. Every change concerns one sample alone, which is none of the few: they have
the values that they had.
"""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function_unary
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import kerneltrack as kt
from kerneltrack.ntk import machine as sizes
from kerneltrack.ntk.methods import recording
from kerneltrack.ntk.methods.comparison import place_of_few
from kerneltrack.ntk.methods.operator_tape import OperatorTape
from kerneltrack.ntk.methods.program import Unsaid, Writer
from kerneltrack.ntk.methods.rehearsal import Rehearsal
from kerneltrack.ntk.network import Inputs, Survey

#: Plan, watch (twice at most), record; no audit is due with the next two.
WARM, COUNT = 5, 8
FEW = place_of_few(COUNT)
#: Everything but the far sample is below the second; the far sample is above it, in every feature.
HIGH, LOW = 1e9, 5.0
FAR = next(place for place in range(COUNT) if not FEW.start <= place < FEW.stop)


class State:
    """What a forward pass goes by, and no module holds."""

    limit: float = HIGH
    flag = False


class Cut(torch.autograd.Function):
    """h, below the limit in the forward pass where it is to be, and its derivative below the limit in the backward pass."""

    forwards = backwards = HIGH
    generate_vmap_rule = True

    @staticmethod
    def forward(h):
        return h.clamp(max=Cut.forwards)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        (h,) = ctx.saved_tensors
        return g * (h < Cut.backwards)


class Scripted(nn.Module):
    limit: float

    def __init__(self):
        super().__init__()
        self.limit = HIGH

    def forward(self, h: Tensor) -> Tensor:
        return h.clamp(max=self.limit)


class ScriptedInPlace(Scripted):
    def forward(self, h: Tensor) -> Tensor:
        return h.clamp_(max=self.limit)


def by_protocol(h):
    """A user's function, which torch hands to modes whole."""
    if has_torch_function_unary(h):
        return handle_torch_function(by_protocol, (h,), h)
    return h.clamp(max=State.limit)


class Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        return made.clamp(max=State.limit) if func is torch.relu else made


class Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        return made.clamp(max=State.limit) if func is torch.ops.aten.relu.default else made


def inside(mode, m, h):
    with mode():
        return torch.relu(h)


def hidden(m, h):
    with torch._C.DisableTorchFunction():
        return h.clamp(max=State.limit)


def hooked(m, h):
    if State.flag:
        far = h.detach() > LOW
        h.register_hook(lambda g: g.masked_fill(far, 0.0))
    return h


def hidden_in_place(m, h):
    h = h.mul(1)
    with torch._C.DisableTorchFunction():
        h.clamp_(max=State.limit)
    return h


def written_by_numpy(m, h):
    m.numbers[:] = State.limit
    return torch.minimum(h, m.shared)


def scripted(module, m, h):
    module.limit = State.limit
    return module(h)


def limit(m):
    State.limit = LOW


def flag(m):
    State.flag = True


def flagged(before, after, m, h):
    return (after if State.flag else before)(m, h)


def fill(name, m):
    with torch.no_grad():
        getattr(m, name).fill_(LOW)


#: Name → what stands between the layers, what changes, and whether the program says something before that.
CHANGES = {
    "number": (lambda m, h: h.clamp(max=State.limit), limit, True),
    "number of a function": (lambda m, h: F.hardtanh(h, -HIGH, State.limit), limit, True),
    "number of NumPy": (lambda m, h: torch.clamp(h, max=np.float64(State.limit)), limit, True),
    "new tensor": (lambda m, h: torch.minimum(h, torch.tensor(State.limit, dtype=h.dtype)), limit, True),
    "new tensor of an array": (lambda m, h: torch.minimum(h, torch.as_tensor(np.full(1, State.limit))), limit, True),
    "tensor of an array": (
        lambda m, h: torch.minimum(h, torch.from_numpy(m.numbers)),
        lambda m: m.numbers.fill(LOW),
        True,
    ),
    "tensor of a new array": (lambda m, h: torch.minimum(h, torch.from_numpy(np.full(1, State.limit))), limit, False),
    "legacy constructor": (lambda m, h: torch.minimum(h, torch.DoubleTensor([State.limit])), limit, False),
    "index": (lambda m, h: torch.minimum(h, m.limits[int(State.flag)]), flag, True),
    "slice": (lambda m, h: torch.minimum(h, m.limits[int(State.flag) :][:1]), flag, True),
    "constant": (lambda m, h: torch.minimum(h, m.constants[State.flag]), flag, True),
    "constant in place": (lambda m, h: torch.minimum(h, m.shared), lambda m: m.shared.fill_(LOW), True),
    "constant in place by NumPy": (written_by_numpy, limit, True),
    "buffer": (lambda m, h: torch.minimum(h, m.top), partial(fill, "top"), True),
    "buffer's value": (lambda m, h: h.clamp(max=m.top.item()), partial(fill, "top"), None),
    "buffer's list": (lambda m, h: h.clamp(max=m.top.tolist()), partial(fill, "top"), False),
    "list": (lambda m, h: h.clamp(max=m.held[0]), lambda m: m.held.__setitem__(0, LOW), True),
    "activation": (partial(flagged, lambda m, h: F.relu(h), lambda m, h: F.relu6(h)), flag, True),
    "order": (
        partial(flagged, lambda m, h: h.clamp(max=1e3).mul(100), lambda m, h: h.mul(100).clamp(max=1e3)),
        flag,
        True,
    ),
    "result": (partial(flagged, lambda m, h: h, lambda m, h: [h, h.clamp(max=LOW)][1]), flag, True),
    "other result": (lambda m, h: [h.mul(1), h.clamp(max=LOW)][State.flag], flag, True),
    "gradient": (partial(flagged, lambda m, h: h.relu().clone(), lambda m, h: h.relu().detach()), flag, True),
    "in place": (lambda m, h: h.mul(1).clamp_(max=State.limit), limit, True),
    "in place, unseen": (partial(scripted, torch.jit.script(ScriptedInPlace())), limit, False),
    "in place, of data": (lambda m, h: [h := h.mul(1), h.data.clamp_(max=State.limit)][0], limit, None),
    "script": (partial(scripted, torch.jit.script(Scripted())), limit, False),
    "own function": (lambda m, h: Cut.apply(h), lambda m: setattr(Cut, "forwards", LOW), False),
    "own derivative": (lambda m, h: Cut.apply(h), lambda m: setattr(Cut, "backwards", LOW), False),
    "own derivative, new": (partial(flagged, lambda m, h: h.clamp(max=HIGH), lambda m, h: Below.apply(h)), flag, True),
    "hook": (hooked, flag, True),
    "protocol": (lambda m, h: by_protocol(h), limit, False),
    "functions": (partial(inside, Functions), limit, True),
    "operators": (partial(inside, Operators), limit, False),
    "out of sight": (hidden, limit, False),
    "in place, out of sight": (hidden_in_place, limit, False),
    "operator": (lambda m, h: torch.ops.aten.clamp(h, None, State.limit), limit, False),
}


class Below(Cut):
    """As the clamp forward; its derivative is another one."""

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] < LOW)


class Held(Tensor):
    """A kind of tensor."""


class Between(nn.Module):
    """Two layers and what stands between."""

    def __init__(self, first, then, last):
        super().__init__()
        self.first, self.last, self.then = first, last, [then]
        self.register_buffer("top", torch.tensor(HIGH))
        self.held, self.numbers = [HIGH], np.full(1, HIGH)
        self.shared, self.limits = torch.from_numpy(self.numbers), torch.tensor([HIGH, LOW], dtype=torch.float64)
        self.constants = [torch.tensor([one], dtype=torch.float64) for one in (HIGH, LOW)]

    def forward(self, x):
        return self.last(self.then[0](self, self.first(x)))


def rows(then):
    return Between(nn.Linear(3, 4), then, nn.Linear(4, 2)), (3,)


def images(then):
    last = nn.Sequential(nn.Conv2d(2, 1, 2), nn.Flatten())
    return Between(nn.Conv2d(1, 2, 2), then, last), (1, 4, 4)


@pytest.fixture(autouse=True)
def every_kernel_is_small(monkeypatch):
    monkeypatch.setattr(sizes, "SMALL", 10**12)
    monkeypatch.setattr(recording, "tape_for", lambda device: OperatorTape())


@pytest.fixture(autouse=True)
def nothing_has_changed(monkeypatch):
    for owner, name in ((State, "limit"), (Cut, "forwards"), (Cut, "backwards")):
        monkeypatch.setattr(owner, name, HIGH)
    monkeypatch.setattr(State, "flag", False)


def says(model):
    """Whether the recording goes by a program; None where there is no recording."""
    found = [one.recording for one in recording._ASKED.get(model, {}).values()]
    return None if found in ([], [None]) else all(one is not None and None not in one.made.said for one in found)


def built(make, then):
    """The model, and samples of which one is far."""
    torch.manual_seed(0)
    model, shape = make(then)
    model = model.double().eval()
    with torch.no_grad():
        for p in model.first.parameters():
            p.abs_()
    x = torch.rand(COUNT, *shape, dtype=torch.float64)
    x[FAR] += 30
    return model, x


@pytest.mark.parametrize("make", [rows, pytest.param(images, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_the_few_do_not_show(name, make):
    then, change, expected = CHANGES[name]
    model, x = built(make, then)
    for _ in range(WARM):
        old = kt.empirical_ntk(model, x)
    assert says(model) == expected
    before = model(x).detach()
    change(model)
    torch.testing.assert_close(model(x)[FEW], before[FEW])
    right = kt.empirical_ntk(model, x, method="jacobian")
    assert not torch.allclose(right, old)
    for _ in range(2):
        torch.testing.assert_close(kt.empirical_ntk(model, x), right, rtol=1e-9, atol=1e-11)


def written(function, x=None, held=()):
    """What a program says of a function of x, which stands for a module."""
    x = torch.rand(3, 4, requires_grad=True) if x is None else x
    with Writer(held, [x]) as writer:
        made = function(x)
    return writer.program(made)


def saved_through_hooks(x):
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        return x.square()


class Plain(nn.Module):
    def __init__(self, then):
        super().__init__()
        self.layer, self.then = nn.Linear(4, 2), [then]

    def forward(self, x):
        return self.then[0](self.layer(x))


OWN = [torch.ones(2), torch.ones(2, requires_grad=True), torch.ones(2, 2).to_sparse(), torch.ones(2).as_subclass(Held)]
#: Of these a program says nothing, whatever becomes of their values.
NOTHING = {
    "saved tensors through hooks": saved_through_hooks,
    "checkpoint": lambda h: checkpoint(torch.sin, h, use_reentrant=False),
    "checkpoint, reentrant": lambda h: checkpoint(torch.sin, h, use_reentrant=True),
    "own backward": Cut.apply,
    "its own derivative": lambda h: torch.autograd.grad(h.sin().sum(), h, create_graph=True)[0] + h,
    "array": lambda h: h * float(h.detach().numpy().max()),
    "address": lambda h: h * (h.data_ptr() != 0),
    "value": lambda h: h * (1 if h[0, 0] > 100 else 2),
    "equal": lambda h: h * torch.equal(h, h),
    "hook": lambda h: (h.register_hook(lambda g: None), h)[1],
    "node": lambda h: h * (h.grad_fn is not None),
    "hidden parameter": lambda h: h * OWN[1],
    "sparse": lambda h: h @ OWN[2],
    "subclass": lambda h: h * OWN[3],
    "vmap": torch.func.vmap(torch.sin),
    "operator": torch.ops.aten.sin,
    "data": lambda h: (setattr(h, "data", h.data * 1), h)[1],
    "callable": lambda h: h.clone().apply_(abs) if not h.requires_grad else h.detach().apply_(abs) + h,
    "part in place": lambda h: (h := h * 1, h[0].mul_(1), h)[2],
    "generator": lambda h: h + torch.zeros_like(h).normal_(generator=torch.Generator()),
}


def said(then):
    torch.manual_seed(0)
    model = Plain(then)
    place = {id(p): place for place, p in enumerate(Survey(model).tensors)}
    return Rehearsal({name: place[id(p)] for name, p in model.named_parameters()}, None).said(
        model, Inputs(torch.rand(3, 4))
    )


@pytest.mark.filterwarnings("ignore:.*reentrant")
@pytest.mark.parametrize("name", NOTHING)
def test_of_what_is_not_seen_nothing_is_said(name):
    assert said(torch.sin) is not None
    assert said(NOTHING[name]) is None


def test_of_what_works_from_outside_nothing_is_said():
    assert said(torch.sin) is not None
    for mode in (Functions(), Operators(), torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)):
        with mode:
            assert said(torch.sin) is None


ARGUMENTS = [1, 1.0, True, 0, 0.0, -0.0, False, np.float64(1), np.float32(1), np.int64(1), float("nan"), float("inf")]


def test_arguments_are_told_apart():
    """By what they are and by their kind: 1, 1.0 and True, and 0.0 and -0.0, are no two the same. A program is its own twin."""
    programs = [written(lambda x, value=value: x * value) for value in ARGUMENTS]
    again = [written(lambda x, value=value: x * value) for value in ARGUMENTS]
    # no two inputs are one tensor, and yet it is the same program
    assert [[one == other for other in again] for one in programs] == torch.eye(
        len(ARGUMENTS), dtype=torch.bool
    ).tolist()


OTHERWISE = [
    *(lambda x: x[0], lambda x: x[1], lambda x: x[:1], lambda x: x[0:1], lambda x: x[..., 0], lambda x: x[None, 0]),
    *(
        lambda x: x.sum(0),
        lambda x: x.sum(dim=0),
        lambda x: x.sum((0,)),
        lambda x: x.sum([0]),
        lambda x: x.T,
        lambda x: x.mT,
    ),
    *(
        lambda x: x.sin().cos(),
        lambda x: x.cos().sin(),
        lambda x: [x.sin(), x.cos()][0],
        lambda x: [x.sin(), x.cos()][1],
    ),
    *(lambda x: x.max(0)[0], lambda x: x.min(0)[0], lambda x: x.split(2)[0], lambda x: x.split(2)[1]),
    *(lambda x: x.to(torch.float64), lambda x: x.to(torch.bfloat16), lambda x: x * 1, lambda x: x.detach() * 1),
    *(
        lambda x: x * OWN[0][0],
        lambda x: x * OWN[0][1],
        lambda x: x * OWN[0][:1],
        lambda x: x * torch.tensor([1.0, 2, 3, 4]),
    ),
    *(
        lambda x: x * torch.tensor([1.0, 2, 3, 5]),
        lambda x: x * torch.tensor(np.arange(4)),
        lambda x: x * torch.tensor(np.ones(4)),
    ),
]


def test_programs_are_told_apart():
    programs = [written(one) for one in OTHERWISE]
    assert [[one == other for other in programs] for one in programs] == torch.eye(
        len(programs), dtype=torch.bool
    ).tolist()


def test_switches_are_part_of_a_program():
    before = written(lambda x: x * torch.ones(4))
    torch.set_default_dtype(torch.float64)
    try:
        assert written(lambda x: x * torch.ones(4)) != before
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.autocast("cpu"):
        assert written(lambda x: x @ x.T) != written(lambda x: x @ x.T.float())


def test_a_tensor_that_was_written_to_has_no_say():
    """Oracle: its version. Fails where a tensor is taken for what it was."""
    with pytest.raises(Unsaid, match="written to"):
        written(lambda x: (x := x * 1, x[0].zero_(), x)[2])
