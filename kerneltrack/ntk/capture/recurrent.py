"""Rules for recurrent networks: a cell is two linear maps and elementwise functions, a layer is a cell used T times.

torch computes both in one fused call that hides its weights' uses. Here every use is a linear layer of its own, as the
capture wants it: W_ih sees the T inputs at once, W_hh one state after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kerneltrack.ntk.capture.capture import Capture, Rule, is_batched, is_weight
from kerneltrack.ntk.capture.linear import linear

State = tuple[Tensor, ...]  # (h,), and (h, c) of an LSTM

#: From W_ih x + b_ih, W_hh h + b_hh and the state to the next state.
Cell = Callable[[Tensor, Tensor, State], State]


def tanh_cell(i: Tensor, h: Tensor, state: State) -> State:
    """h' = tanh(i + h)."""
    return (torch.tanh(i + h),)


def relu_cell(i: Tensor, h: Tensor, state: State) -> State:
    """h' = max(i + h, 0)."""
    return (torch.relu(i + h),)


def gru_cell(i: Tensor, h: Tensor, state: State) -> State:
    """h' = (1 − z) n + z h with n = tanh(i_n + r h_n): the reset gate r acts behind W_hh, as torch has it."""
    (i_r, i_z, i_n), (h_r, h_z, h_n) = i.chunk(3, -1), h.chunk(3, -1)
    reset, update = torch.sigmoid(i_r + h_r), torch.sigmoid(i_z + h_z)
    new = torch.tanh(i_n + reset * h_n)
    return (new + update * (state[0] - new),)


def lstm_cell(i: Tensor, h: Tensor, state: State) -> State:
    """c' = σ(f) c + σ(i) tanh(g) and h' = σ(o) tanh(c')."""
    write, forget, candidate, read = (i + h).chunk(4, -1)
    memory = torch.sigmoid(forget) * state[1] + torch.sigmoid(write) * torch.tanh(candidate)
    return torch.sigmoid(read) * torch.tanh(memory), memory


def _one_step(cell: Cell) -> Rule:
    """The rule of a cell, such as :class:`torch.nn.GRUCell` calls it."""

    def rule(
        capture: Capture,
        input: Tensor,
        hx: Tensor | Sequence[Tensor],
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> Any:
        if not is_batched(input) or any(w is not None and is_batched(w) for w in (w_ih, w_hh, b_ih, b_hh)):
            return NotImplemented
        starts = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        state = tuple(_per_sample(capture, start, input) for start in starts)
        state = cell(_linear(capture, input, w_ih, b_ih), _linear(capture, state[0], w_hh, b_hh), state)
        return state[0] if isinstance(hx, Tensor) else state

    return rule


def _over_time(cell: Cell) -> Rule:
    """The rule of layers in time, such as :class:`torch.nn.LSTM` calls them; packed sequences are not known."""

    def rule(capture: Capture, input: Tensor, hx: Any, params: Any, has_biases: Any, *rest: Any) -> Any:
        if not isinstance(has_biases, bool):  # a packed sequence: there the arguments are others
            return NotImplemented
        layers, dropout, train, bidirectional, batch_first = rest
        if (train and dropout) or not is_batched(input) or any(map(is_batched, params)):
            return NotImplemented
        directions = 2 if bidirectional else 1
        starts = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        x, ends = input.transpose(0, 1) if batch_first else input, list[State]()
        for layer in range(layers):
            outputs = []
            for direction in range(directions):
                place, weights = layer * directions + direction, len(params) // (layers * directions)
                own = _Weights.of(params[place * weights : (place + 1) * weights], has_biases)
                state = tuple(_per_sample(capture, start[place], x[0]) for start in starts)
                output, state = _in_time(capture, cell, x, state, own, backwards=direction == 1)
                outputs.append(output)
                ends.append(state)
            x = torch.cat(outputs, -1)
        last = tuple(torch.stack(parts) for parts in zip(*ends, strict=True))
        return x.transpose(0, 1) if batch_first else x, *last

    return rule


class _Weights(NamedTuple):
    """Of one layer in one direction; an LSTM may project its output by W_hr."""

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor | None
    b_hh: Tensor | None
    w_hr: Tensor | None

    @classmethod
    def of(cls, flat: Sequence[Tensor], has_biases: bool) -> _Weights:
        """From torch's order, in which what is not there is left out."""
        w_ih, w_hh, *others = flat
        b_ih, b_hh = others[:2] if has_biases else (None, None)
        projection = others[2:] if has_biases else others
        return cls(w_ih, w_hh, b_ih, b_hh, projection[0] if projection else None)


def _in_time(
    capture: Capture, cell: Cell, x: Tensor, state: State, own: _Weights, *, backwards: bool
) -> tuple[Tensor, State]:
    """One layer in one direction over x, (T, batch, features): its outputs in the order of x, and its last state."""
    outputs = list[Tensor]()
    projected = _linear(capture, x, own.w_ih, own.b_ih).unbind(0)
    for i in reversed(projected) if backwards else projected:
        state = cell(i, _linear(capture, state[0], own.w_hh, own.b_hh), state)
        if own.w_hr is not None:
            state = (_linear(capture, state[0], own.w_hr, None), *state[1:])
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backwards else outputs), state


def _linear(capture: Capture, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Recorded where one of the two is trained."""
    if not is_weight(weight) and not is_weight(bias):
        return F.linear(x, weight, bias)
    y: Tensor = linear(capture, x, weight, bias)
    return y


def _per_sample(capture: Capture, state: Tensor, like: Tensor) -> Tensor:
    """A state as one of this sample: usually zeros that all share, sometimes a parameter."""
    if is_batched(state):
        return state
    return capture.expand(state, like) if is_weight(state) else state + torch.zeros_like(like[..., :1])


RECURRENT: dict[Any, Rule] = {
    torch.rnn_tanh_cell: _one_step(tanh_cell),
    torch.rnn_relu_cell: _one_step(relu_cell),
    torch.gru_cell: _one_step(gru_cell),
    torch.lstm_cell: _one_step(lstm_cell),
    torch.rnn_tanh: _over_time(tanh_cell),
    torch.rnn_relu: _over_time(relu_cell),
    torch.gru: _over_time(gru_cell),
    torch.lstm: _over_time(lstm_cell),
}
