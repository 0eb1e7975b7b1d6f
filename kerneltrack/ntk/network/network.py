"""A module as a pure function f(θ, x) of its selected trainable parameters, with its products J v and Jᵀ u.

What the kernel is *of* is decided here: which parameters, which outputs, which samples are independent. How
it is computed is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from kerneltrack.errors import KernelError
from kerneltrack.ntk.machine import Machine
from kerneltrack.ntk.network.arithmetic import nudge, nudged
from kerneltrack.ntk.network.evaluation import Evaluation
from kerneltrack.ntk.network.forward import Call, Forward, Result, default_forward
from kerneltrack.ntk.network.hooks import changing, hooked
from kerneltrack.ntk.network.known import Known, forget, known
from kerneltrack.ntk.network.names import in_tree, own_name
from kerneltrack.ntk.network.parameters import Selection, reported_name, trainable, unwrap
from kerneltrack.ntk.network.plan_key import PlanKey, plan_key
from kerneltrack.ntk.network.pullback import pull, pull_by_rows, pull_signs
from kerneltrack.ntk.network.pushforward import Function, pushforward, reverse_mode, row_by_row
from kerneltrack.ntk.network.refusals import refuse_coupling_modes, refuse_hidden
from kerneltrack.ntk.network.samples import Inputs
from kerneltrack.ntk.network.saved import saved_bytes, total_bytes
from kerneltrack.ntk.network.state import State
from kerneltrack.ntk.network.tree import copied, filled
from kerneltrack.ntk.network.witness import Pass, Sight, see
from kerneltrack.ntk.reduction import Head
from kerneltrack.undisturbed import evaluating

Tensors = Mapping[str, Tensor]


class Network:
    """f(θ, x) ∈ R^{N×O}: ``model`` as a pure function of its selected trainable parameters.

    The module is never changed.

    Args:
        model: the module; wrappers (DataParallel, DistributedDataParallel, torch.compile) are looked through.
        params: None for every parameter that requires grad, a predicate on names, or an iterable of names.
        forward: ``(model, inputs) -> outputs``; by default a tensor goes in as ``model(x)``, a tuple or list
            as ``model(*x)``, a dict as ``model(**x)``.
        head: a function (n, O) → (n, K) applied to the outputs.
        dtype: evaluate parameters, buffers and floating inputs in this dtype; None leaves them as they are.

    Raises:
        UnsupportedModelError: no trainable parameter, active dropout, or BatchNorm that uses batch statistics.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        params: Selection = None,
        forward: Forward | None = None,
        head: Head | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.module = unwrap(model)
        self.dtype = dtype
        self._call = Call(self.module, forward or default_forward, head)
        self._made: Evaluation | None = (made := Evaluation(self._call))
        names = trainable(self.module, params, made.parameters)
        self._raw = {name: in_tree(raw) for name, raw in names.items()}
        self._nudge: tuple[int, float] | None = None
        self._evaluations, self._throughout = list[Evaluation](), False
        with self.standing():
            self.chunk_bytes = Machine.of(self.device).activation_bytes
        refuse_coupling_modes(made.named)

    @property
    def is_plain(self) -> bool:
        """Whether it is what the module itself computes, in its own dtype."""
        return self.dtype is None and self._call.is_plain

    @property
    def raw_names(self) -> dict[str, str]:
        """Name of every selected parameter → its name in the module's own ``named_parameters()``."""
        return {name: own_name(raw) for name, raw in self._raw.items()}

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Name → current value (detached) of every selected parameter, tied ones once."""
        own = self.now.tree.parameters
        return {name: self._cast(own[raw]) for name, raw in self._raw.items()}

    def state(self, beside: Iterable[Any], like: State | None = None) -> State:
        """What the outputs depend on now, ``beside`` the module too; most of it as in the state ``like``, as a rule."""
        return State(self.module, beside, like)

    @property
    def frozen(self) -> list[str]:
        """Names of the parameters that the kernel does not speak of."""
        own = self.now.tree.parameters
        return [reported_name(self.module, own_name(raw)) for raw in own if raw not in self._raw.values()]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        own = self._evaluations[-1].parameters.values() if self._evaluations else self.module.parameters()
        return next(iter(own)).device

    @contextmanager
    def evaluating(self, *, throughout: bool = False) -> Iterator[None]:
        """The context in which this network may be evaluated; reentrant. Random generators come out as they went in.

        Args:
            throughout: enter it once for everything inside, of a network that is known to draw no random numbers.
        """
        if self._throughout:
            yield
            return
        now = self.now
        with now.generators.own_restored(), evaluating(now.modules):
            self._evaluations.append(now)
            self._throughout = throughout
            try:
                yield
            finally:
                self._evaluations.pop()
                self._throughout, self._made = False, None

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Inside, the module is taken to be what it was when the network was made: for what follows at once."""
        self._evaluations.append(self._made or self.now)
        try:
            yield
        finally:
            self._evaluations.pop()

    @property
    def now(self) -> Evaluation:
        """What the module is: inside an evaluation what it was when that began."""
        return self._evaluations[-1] if self._evaluations else Evaluation(self._call)

    def nudged(self, seed: int, size: float) -> AbstractContextManager[None]:
        """The same network with every parameter and input moved by at most ``size`` of itself, as rounding would."""
        return self._changed(_nudge=(seed, size))

    def in_float64(self) -> AbstractContextManager[None]:
        """The same network in float64; its samples are the caller's to convert."""
        return self._changed(dtype=torch.float64)

    def inputs(self, x: Any, *, name: str = "x") -> Inputs:
        """``x`` as samples, on the right device and in the network's dtype.

        Raises:
            ProbeError: no tensor, no sample, unequal first axes, or tensors on another device than the model.
        """
        samples = x if isinstance(x, Inputs) else Inputs(x, name=name)
        return samples.required_on(self.device, name).to(self.dtype)

    def one_by_one(self) -> AbstractContextManager[None]:
        """The same network, one sample in each pass."""
        return self._changed(chunk_bytes=1)

    @contextmanager
    def _changed(self, **attributes: Any) -> Iterator[None]:
        """With other attributes inside."""
        kept = {name: getattr(self, name) for name in attributes}
        vars(self).update(attributes)
        try:
            yield
        finally:
            vars(self).update(kept)

    def evaluate(
        self, parameters: Tensors, samples: Inputs, buffers: Tensors | None = None, *, raw: bool = False
    ) -> Tensor:
        """f(θ, x) (n, K) for one chunk, differentiable in ``parameters``; with ``raw`` before the head, (n, O).

        Call it inside :meth:`evaluating`.
        """
        return self.applied(parameters, samples, lambda outputs: outputs, buffers, raw=raw)

    def applied(
        self,
        parameters: Tensors,
        samples: Inputs,
        then: Callable[[Tensor], Result],
        buffers: Tensors | None = None,
        *,
        raw: bool = False,
    ) -> Result:
        """``then(f(θ, x))``, computed while θ stands in the module.

        A backward pass belongs in ``then``: a checkpointed part of the model runs forward again in it, and
        must find the same parameters.
        """
        selected = {self._raw[name]: value for name, value in parameters.items()}
        return self._with(self._state(selected), samples, then, buffers, raw)

    def _with(
        self, values: Tensors, samples: Inputs, then: Callable[[Tensor], Result], buffers: Tensors | None, raw: bool
    ) -> Result:
        """``then(f(x))`` with every parameter as in ``values``."""
        if self._nudge is not None:
            seed, size = self._nudge
            values, samples = nudged(values, seed, size), samples.map(lambda t: nudge(t, seed, size))
        values = dict(self.buffers() if buffers is None else buffers) | dict(values)
        if torch.is_grad_enabled():
            return self._run(values, samples, then, raw)
        # Without a graph, by the very program that a derivative is taken of. A forward pass may differentiate by itself,
        # hang a hook where something requires grad, or ask whether gradients are on: switched off, it is another network.
        own = set(self._raw.values())
        leaves = {raw: v.detach().requires_grad_() if raw in own else v for raw, v in values.items()}
        with torch.enable_grad():
            return self._run(leaves, samples, lambda outputs: then(outputs.detach()), raw)

    def _run(self, values: Tensors, samples: Inputs, then: Callable[[Tensor], Result], raw: bool) -> Result:
        with filled(self.now.tree.slots, values):
            result: Result = self._call(samples.assemble(), len(samples), then, raw)
        return result

    def _state(self, given: Tensors = MappingProxyType({})) -> dict[str, Tensor]:
        """Every parameter, selected or not: what is ``given`` for it, or its own value."""
        return {raw: given[raw] if raw in given else self._cast(p) for raw, p in self.now.tree.parameters.items()}

    def _cast(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        return tensor.to(self.dtype) if self.dtype is not None and tensor.is_floating_point() else tensor

    def plan_key(self, samples: Inputs) -> PlanKey:
        """What a plan for these samples depends on, beside the values of parameters, buffers and samples.

        Modes, hooks and switches of the module, the shape of a sample, the parameters, the forward.
        """
        now, asked = self.now, (self.dtype, samples.kinds)
        if asked not in now.keys:
            parts = *self._call.functions, now.structure, tuple(self._raw), asked
            now.keys[asked] = plan_key(self.module, parts)
        return now.keys[asked]

    def forget(self, samples: Inputs) -> None:
        """Whatever was found out for these samples' plan is to be found out again."""
        forget(self.module, self.plan_key(samples))

    def known(self, samples: Inputs) -> Known:
        """What is known of this module in this mode, with samples of this shape."""
        return known(self.module, self.plan_key(samples))

    def leaves(self, values: Tensors) -> dict[str, Tensor]:
        """Copies of parameters to differentiate by, with the hooks that users have hung on theirs."""
        own = self.now.tree.parameters
        copies = {name: value.detach().requires_grad_() for name, value in values.items()}
        return {name: hooked(leaf, own[self._raw[name]]) for name, leaf in copies.items()}

    def sight(self, samples: Inputs) -> Sight:
        """What the witness saw of a forward and a backward pass of the first sample, once."""
        if self._evaluations and (seen := self.known(samples).sight) is not None:
            return seen  # every product asks: entering once more would take as long as its smallest passes
        with self.evaluating():  # an anchored network is itself only there
            known = self.known(samples)
            if known.sight is None:
                known.sight = self._seen(samples.rows(0, 1))
            return known.sight

    def sees_the_same(self, samples: Inputs) -> bool:
        """Whether the witness sees now what it saw once: a hook may have come, or another backward pass, that no key tells."""
        with self.evaluating():
            return self._seen(samples.rows(0, 1)) == self.sight(samples)

    def _seen(self, one: Inputs) -> Sight:
        own = self.now.tree.parameters
        first_pass = Pass(
            module=self.module,
            values={raw: value.clone() for raw, value in self._state().items()},
            selected={raw: name for name, raw in self._raw.items()},
            buffers=self.buffers(),
            run=lambda values, buffers, then: self._with(values, one, then, buffers, False),
        )
        hooked_ones = tuple(name for name, raw in self._raw.items() if changing(own[raw]))
        return replace(see(first_pass), parameters=hooked_ones)

    def buffers(self) -> dict[str, Tensor]:
        """Copies: a forward may write to its buffers."""
        return copied({raw: self._cast(b) for raw, b in self.now.tree.buffers.items()})

    def headed(self, outputs: Tensor) -> Tensor:
        """Outputs (n, O) behind the head, (n, K)."""
        return self._call.headed(outputs)

    def batch(self, parameters: Tensors, samples: Inputs, *, raw: bool = False) -> Tensor:
        """f(θ, x) (N, K), chunk by chunk; with ``raw`` before the head. Call it inside :meth:`evaluating`."""
        chunks = samples.chunks(self.chunk_rows(samples))
        return torch.cat([self.evaluate(parameters, s, raw=raw) for _, s in chunks])

    def outputs(self, x: Any, parameters: Tensors | None = None) -> Tensor:
        """f(x), (N, O); a (N,) output is O = 1.

        Raises:
            UnsupportedModelError: the output is anything but a real floating (N,) or (N, O).
        """
        samples = self.inputs(x)
        with self.evaluating(), torch.no_grad():
            return self.batch(self._values(parameters), samples)

    def vjp(self, x: Any, cotangent: Tensor, parameters: Tensors | None = None) -> dict[str, Tensor]:
        """Jᵀ u, one tensor for each parameter.

        Args:
            x: N samples.
            cotangent: u, (N, O).
            parameters: θ to differentiate at; None is the model's current value.
        """
        samples, leaves = self.inputs(x), self.leaves(self._values(parameters))
        total = {name: torch.zeros_like(value) for name, value in leaves.items()}
        with self.evaluating(), torch.enable_grad():
            by_rows = self.sight(samples).by_rows
            one_way = pull_by_rows if by_rows else pull
            for place, chunk in samples.chunks(1 if by_rows else self.chunk_rows(samples)):
                parts = self.applied(leaves, chunk, partial(one_way, list(leaves.values()), cotangent[place]))
                for name, part in zip(leaves, parts, strict=True):
                    if part is not None:
                        total[name] += part
        return total

    def steepness(self, samples: Inputs) -> tuple[float, float]:
        """The largest derivative of Σ_o ±f_o(x_0) by a selected parameter, and by any at all, frozen ones too."""
        leaves = {raw: v.requires_grad_() if v.is_floating_point() else v for raw, v in self._state().items()}
        floating = {raw: v for raw, v in leaves.items() if v.requires_grad}
        with self.evaluating(), torch.enable_grad():
            parts = self._with(leaves, samples.rows(0, 1), partial(pull_signs, list(floating.values())), None, True)
        sizes = {
            raw: float(part.abs().max()) if part is not None and part.numel() else 0.0
            for raw, part in zip(floating, parts, strict=True)
        }
        return max(sizes[raw] for raw in self._raw.values()), max(sizes.values())

    def jvp(self, x: Any, tangent: Tensors, parameters: Tensors | None = None, *, by_rows: bool = False) -> Tensor:
        """J v, (N, O): the change of the outputs along ``tangent``.

        Args:
            x: N samples.
            tangent: v, a tensor of the parameter's shape for some or all parameters; others do not move.
            parameters: θ to differentiate at; None is the model's current value.
            by_rows: by one backward pass for each output, and never by forward mode.
        """
        return self.linearized(x, tangent, parameters, by_rows=by_rows)[1]

    def linearized(
        self, x: Any, tangent: Tensors, parameters: Tensors | None = None, *, by_rows: bool = False
    ) -> tuple[Tensor, Tensor]:
        """f(x) and J v (N, O) by one pass; arguments as of :meth:`jvp`."""
        samples, values = self.inputs(x), {k: v.detach() for k, v in self._values(parameters).items()}
        moving = {name: values[name] for name in tangent}
        direction = {name: tangent[name].detach().to(value) for name, value in moving.items()}
        with self.evaluating():
            seen = self.sight(samples)
            by_rows = by_rows or seen.by_rows
            push = row_by_row if by_rows else pushforward if seen.differentiates is None else reverse_mode
            chunks = samples.chunks(1 if seen.by_rows else self.chunk_rows(samples))
            own = self.leaves if by_rows else dict[str, Tensor]
            pushed = [push(self._at(values, chunk), own(moving), direction) for _, chunk in chunks]
        return torch.cat([outputs for outputs, _ in pushed]), torch.cat([change for _, change in pushed])

    def _at(self, values: Tensors, samples: Inputs) -> Function:
        return lambda parameters, then: self.applied({**values, **parameters}, samples, then)

    def _values(self, parameters: Tensors | None) -> dict[str, Tensor]:
        current = self.parameters
        if unknown := set(parameters or ()) - set(current):
            raise KernelError(
                f"there is no trainable parameter {sorted(unknown)}", expected=f"some of {list(current)[:12]}"
            )
        return {**current, **{k: v.detach().to(current[k]) for k, v in (parameters or {}).items()}}

    def chunk_rows(self, samples: Inputs) -> int:
        """How many samples at once keep their saved activations below :attr:`chunk_bytes`."""
        return max(1, min(len(samples), self.chunk_bytes // max(1, self.activation_bytes(samples))))

    def activation_bytes(self, samples: Inputs) -> int:
        """Bytes that autograd saves for one sample, parameters left out; measured on the first sample, once."""
        known = self.known(samples)
        if known.activation_bytes is None:
            one = samples.rows(0, 1)
            with self.evaluating():
                leaves = {name: value.requires_grad_() for name, value in self.parameters.items()}
                given = *one.tensors, *leaves.values()
                outputs, saved = saved_bytes(lambda: self.evaluate(leaves, one), self._call.parameters(), given)
                self.refuse_hidden_parameters(outputs)
            known.activation_bytes = saved + total_bytes(one.tensors)
        return known.activation_bytes

    def refuse_hidden_parameters(self, outputs: Tensor) -> None:
        """A forward that reaches a parameter by a reference of its own would leave it out silently."""
        own = self.now.parameters
        everything = sum(p.requires_grad for p in own.values()) == len(self._raw)
        refuse_hidden(outputs, own, everything=everything)
