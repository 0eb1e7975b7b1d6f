"""A module as a pure function f(θ, x) of its selected trainable parameters, with its products J v and Jᵀ u.

What the kernel is *of* is decided here: which parameters, which outputs, which samples are independent. How it is computed is
not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kerneltrack.errors import KernelError, ProbeError, UnsupportedModelError
from kerneltrack.ntk.graph import reachable_leaves
from kerneltrack.ntk.inputs import Inputs
from kerneltrack.ntk.measuring import measuring
from kerneltrack.ntk.parameters import Selection, reported_name, trainable, unwrap
from kerneltrack.ntk.pushforward import pushforward
from kerneltrack.ntk.reduction import Head

Forward = Callable[[nn.Module, Any], Tensor]
Tensors = Mapping[str, Tensor]

#: Bytes of saved activations that one chunk of samples may hold in a product J v or Jᵀ u.
CHUNK_BYTES = 512 * 2**20


class Network:
    """f(θ, x) ∈ R^{N×O}: ``model`` as a pure function of its selected trainable parameters. The module is never changed.

    Args:
        model: the module; wrappers (DataParallel, DistributedDataParallel, torch.compile) are looked through.
        params: None for every parameter that requires grad, a predicate on names, or an iterable of names.
        forward: ``(model, inputs) -> outputs``; by default a tensor goes in as ``model(x)``, a tuple or list as
            ``model(*x)``, a dict as ``model(**x)``.
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
        self._raw = {name: f"model.{raw}" for name, raw in trainable(self.module, params).items()}
        self._call = _Call(self.module, forward or default_forward, head)
        self.chunk_bytes = CHUNK_BYTES
        refuse_sample_coupling_modes(self.module)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Name → current value (detached) of every selected parameter, tied ones once."""
        own = dict(self._call.named_parameters())
        return {name: self._cast(own[raw]) for name, raw in self._raw.items()}

    @property
    def frozen(self) -> list[str]:
        """Names of the parameters that the kernel does not speak of."""
        own = dict(self._call.named_parameters())
        return [reported_name(self.module, raw.removeprefix("model.")) for raw in own if raw not in self._raw.values()]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(iter(self.module.parameters())).device

    def measuring(self) -> Any:
        """The context in which this network may be evaluated; reentrant."""
        return measuring(self.module)

    def inputs(self, x: Any, *, name: str = "x") -> Inputs:
        """``x`` as samples, on the right device and in the network's dtype.

        Raises:
            ProbeError: no tensor, no sample, unequal first axes, or tensors on another device than the model.
        """
        samples = x if isinstance(x, Inputs) else Inputs(x, name=name)
        for tensor in samples.tensors:
            if tensor.device != self.device:
                raise ProbeError(
                    f"{name} is on another device than the model",
                    expected=self.device,
                    got=tensor.device,
                    remedy=f"Move it: {name}.to({str(self.device)!r}).",
                )
        return samples.to(self.dtype)

    def evaluate(self, parameters: Tensors, samples: Inputs) -> Tensor:
        """f(θ, x) (n, K) for one chunk, differentiable in ``parameters``; call it inside :meth:`measuring`."""
        state = {raw: self._cast(p) for raw, p in self._call.named_parameters()}
        # A forward may write to its buffers: it gets copies.
        state |= {raw: self._cast(b).clone() for raw, b in self._call.named_buffers()}
        state |= {self._raw[name]: value for name, value in parameters.items()}
        outputs: Tensor = functional_call(self._call, state, (samples.assemble(), len(samples)))
        return outputs

    def _cast(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        return tensor.to(self.dtype) if self.dtype is not None and tensor.is_floating_point() else tensor

    def validate(self, x: Any, *, name: str = "x") -> tuple[Inputs, int]:
        """The samples and the number of outputs, once it is certain that a kernel of them makes sense.

        The outputs of a batch must equal the outputs of its halves, to the square root of the dtype's resolution. What
        depends on the model's code alone is asked once for each module, mode and shape of a sample, not at every call.

        Raises:
            UnsupportedModelError: coupled samples, a random forward, a parameter that the forward changes or reaches behind
                the module's back, or outputs that are not (N,) or (N, O), floating, finite.
        """
        samples = self.inputs(x, name=name)
        memory = self._memory(samples)
        if "outputs" not in memory or len(samples) > 1 >= memory["checked with"]:
            memory["outputs"] = self._first_look(samples, name)
            memory["checked with"] = len(samples)
        return samples, memory["outputs"]

    def _memory(self, samples: Inputs) -> dict[str, int]:
        """What is known of this module in this mode, with samples of this shape."""
        known = _KNOWN.setdefault(self.module, {})
        key = self._call.key(samples, self.dtype, tuple(self._raw))
        if key not in known and len(known) >= _REMEMBERED:
            known.clear()
        return known.setdefault(key, {})

    def _first_look(self, samples: Inputs, name: str) -> int:
        with self.measuring(), torch.no_grad():
            self._refuse_what_needs_a_batch(samples)
            self._refuse_changed_parameters(samples.rows(0, 1))
            whole = self._in_chunks(self.parameters, samples)
            refuse_not_finite(whole, name)
            cut = (len(samples) + 1) // 2
            halves = torch.cat([self._in_chunks(self.parameters, s) for _, s in samples.chunks(cut)])
            scale = whole.abs().max() + torch.finfo(whole.dtype).tiny
            gap = float((whole - halves).abs().max() / scale)
        if gap > 4 * torch.finfo(whole.dtype).eps ** 0.5:
            raise UnsupportedModelError(
                "the model couples samples, or is random",
                expected="outputs of a batch equal to the outputs of its halves",
                got=f"a relative difference of {gap:.2g}",
                remedy="Remove what mixes the batch axis (batch statistics, contrastive terms) or the noise, "
                "or measure in eval().",
            )
        return whole.shape[1]

    def _refuse_what_needs_a_batch(self, samples: Inputs) -> None:
        try:
            self.evaluate(self.parameters, samples.rows(0, 1))
        except KernelError:
            raise
        except (RuntimeError, ValueError, IndexError) as refusal:
            self.evaluate(self.parameters, samples)  # raises as well where the inputs are at fault
            raise UnsupportedModelError(
                "the model couples samples: it takes the batch, and not one sample of it",
                got=refusal,
                remedy="Remove what mixes the batch axis (batch statistics, contrastive terms), or measure in eval().",
            ) from refusal

    def _refuse_changed_parameters(self, one: Inputs) -> None:
        copies = {name: value.clone() for name, value in self.parameters.items()}
        versions = {name: value._version for name, value in copies.items()}
        self.evaluate(copies, one)
        changed = [name for name, value in copies.items() if value._version != versions[name]]
        if changed:
            raise UnsupportedModelError(
                f"the forward pass changes parameters in place: {changed[:8]}",
                remedy="A kernel is that of one parameter value; move the change out of forward.",
            )

    def _in_chunks(self, parameters: Tensors, samples: Inputs) -> Tensor:
        return torch.cat([self.evaluate(parameters, s) for _, s in samples.chunks(self.chunk_rows(samples))])

    def outputs(self, x: Any, parameters: Tensors | None = None) -> Tensor:
        """f(x), (N, O); a (N,) output is O = 1.

        Raises:
            UnsupportedModelError: the output is anything but a real floating (N,) or (N, O).
        """
        samples = self.inputs(x)
        with self.measuring(), torch.no_grad():
            return self._in_chunks(self._values(parameters), samples)

    def vjp(self, x: Any, cotangent: Tensor, parameters: Tensors | None = None) -> dict[str, Tensor]:
        """Jᵀ u, one tensor for each parameter.

        Args:
            x: N samples.
            cotangent: u, (N, O).
            parameters: θ to differentiate at; None is the model's current value.
        """
        samples = self.inputs(x)
        leaves = {name: value.detach().requires_grad_() for name, value in self._values(parameters).items()}
        total = {name: torch.zeros_like(value) for name, value in leaves.items()}
        with self.measuring(), torch.enable_grad():
            for place, chunk in samples.chunks(self.chunk_rows(samples)):
                outputs = self.evaluate(leaves, chunk)
                if not outputs.requires_grad:
                    continue
                for name, part in zip(
                    leaves,
                    torch.autograd.grad(
                        outputs, list(leaves.values()), cotangent[place].to(outputs.dtype), allow_unused=True
                    ),
                    strict=True,
                ):
                    if part is not None:
                        total[name] += part
        return total

    def jvp(self, x: Any, tangent: Tensors, parameters: Tensors | None = None) -> Tensor:
        """J v, (N, O): the change of the outputs along ``tangent``.

        Args:
            x: N samples.
            tangent: v, a tensor of the parameter's shape for some or all parameters; those left out do not move.
            parameters: θ to differentiate at; None is the model's current value.
        """
        samples, values = self.inputs(x), {k: v.detach() for k, v in self._values(parameters).items()}
        moving = {name: values[name] for name in tangent}
        direction = {name: tangent[name].detach().to(value) for name, value in moving.items()}
        with self.measuring():
            return torch.cat(
                [
                    pushforward(self._at(values, chunk), moving, direction)
                    for _, chunk in samples.chunks(self.chunk_rows(samples))
                ]
            )

    def _at(self, values: Tensors, samples: Inputs) -> Callable[[Tensors], Tensor]:
        return lambda parameters: self.evaluate({**values, **parameters}, samples)

    def _values(self, parameters: Tensors | None) -> dict[str, Tensor]:
        current = self.parameters
        unknown = set(parameters or ()) - set(current)
        if unknown:
            raise KernelError(
                f"there is no trainable parameter {sorted(unknown)}", expected=f"some of {list(current)[:12]}"
            )
        return {**current, **{k: v.detach().to(current[k]) for k, v in (parameters or {}).items()}}

    def chunk_rows(self, samples: Inputs) -> int:
        """How many samples at once keep their saved activations below :attr:`chunk_bytes`."""
        return max(1, min(len(samples), self.chunk_bytes // max(1, self.activation_bytes(samples))))

    def activation_bytes(self, samples: Inputs) -> int:
        """Bytes that autograd saves for one sample, parameters left out; measured on the first sample, once."""
        memory = self._memory(samples)
        if "activation bytes" not in memory:
            one = samples.rows(0, 1)
            with self.measuring():
                memory["activation bytes"] = self._saved_bytes(one) + one_bytes(one)
        return memory["activation bytes"]

    def _saved_bytes(self, one: Inputs) -> int:
        seen: dict[int, int] = {}
        own = {p.untyped_storage().data_ptr() for p in self._call.parameters()}

        def note(tensor: Tensor) -> Tensor:
            if not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
                storage = tensor.untyped_storage()
                seen[storage.data_ptr()] = 0 if storage.data_ptr() in own else storage.nbytes()
            # A detached view: a result that its own node saves would otherwise hold the graph that holds it, for ever.
            return tensor.detach()

        leaves = {name: value.requires_grad_() for name, value in self.parameters.items()}
        try:
            with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
                alive = self.evaluate(leaves, one)
        except RuntimeError:  # torch.func transforms inside the model do not admit the hooks
            with torch.enable_grad():
                self._refuse_hidden_parameters(self.evaluate(leaves, one))
            return _UNWATCHED * (one_bytes(one) + sum(v.numel() * v.element_size() for v in leaves.values()))
        self._refuse_hidden_parameters(alive)
        del alive
        return sum(seen.values())

    def _refuse_hidden_parameters(self, outputs: Tensor) -> None:
        """A forward that uses a parameter through a reference of its own would silently leave it out of the kernel."""
        if not outputs.requires_grad:
            raise UnsupportedModelError(
                "the outputs do not depend on any of the parameters",
                expected="a differentiable forward pass",
                remedy="Look for detach(), torch.no_grad() or argmax between parameters and outputs.",
            )
        own = {id(p): raw.removeprefix("model.") for raw, p in self._call.named_parameters()}
        hidden = [own[id(leaf)] for leaf in reachable_leaves([outputs]) if id(leaf) in own]
        if hidden:
            raise UnsupportedModelError(
                f"the forward pass reaches parameters by references outside the module's attributes: {hidden[:8]}",
                remedy="Use self.<name> in forward, not a list, closure or scripted copy that holds the parameter.",
            )


#: Saved activations of a forward pass that cannot be watched, as a multiple of inputs and parameters together.
_UNWATCHED = 16


def one_bytes(samples: Inputs) -> int:
    """Bytes of the samples themselves."""
    return sum(t.numel() * t.element_size() for t in samples.tensors)


#: What was found out about each module, by mode, shape and dtype.
_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], dict[str, int]]] = WeakKeyDictionary()
_REMEMBERED = 32


class _Call(nn.Module):
    """``forward(model, inputs)`` as a module, so that ``functional_call`` can replace parameters under it."""

    def __init__(self, model: nn.Module, forward: Forward, head: Head | None) -> None:
        super().__init__()
        self.model, self._forward, self._head = model, forward, head
        self.width: int | None = None

    def key(self, samples: Inputs, dtype: torch.dtype | None, names: tuple[str, ...]) -> tuple[Any, ...]:
        """What the answers of :meth:`Network.validate` depend on."""
        modes = tuple(module.training for module in self.model.modules())
        shapes = tuple((t.shape[1:], t.dtype) for t in samples.tensors)
        return self._forward, self._head, modes, shapes, dtype, names

    def forward(self, inputs: Any, count: int) -> Tensor:
        values = as_rows(self._forward(self.model, inputs), count, self.width)
        self.width = values.shape[1] if count > 1 else self.width
        return values if self._head is None else self._head(values)


def default_forward(model: nn.Module, inputs: Any) -> Tensor:
    """``model(x)`` for a tensor, ``model(*x)`` for a tuple or list, ``model(**x)`` for a dict."""
    if isinstance(inputs, dict):
        return model(**inputs)  # type: ignore[no-any-return]
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)  # type: ignore[no-any-return]


def as_rows(outputs: Any, count: int, width: int | None = None) -> Tensor:
    """``outputs`` as (N, O); a (N,) output becomes (N, 1).

    Raises:
        UnsupportedModelError: not a tensor, not floating, or of another shape.
    """
    if not isinstance(outputs, Tensor):
        raise UnsupportedModelError(
            "the model does not return a tensor",
            expected="(N,) or (N, O)",
            got=type(outputs).__name__,
            remedy="Pick the tensor with forward=lambda model, x: model(x)[...].",
        )
    if not outputs.is_floating_point():
        raise UnsupportedModelError(
            "the outputs are not real floating-point numbers",
            got=outputs.dtype,
            remedy="Return logits, not classes, with forward=.",
        )
    if count == 1 and outputs.numel() == (width or 1) and outputs.dim() < 2 and outputs.shape != (1,):
        outputs = outputs.reshape(1, -1)  # a forward that ends in squeeze() drops the axis of a single sample
    if outputs.dim() not in (1, 2) or outputs.shape[0] != count:
        raise UnsupportedModelError(
            "the output is not (N,) or (N, O)",
            expected=f"({count},) or ({count}, O)",
            got=tuple(outputs.shape),
            remedy="Reduce it, for instance forward=lambda model, x: model(x).flatten(1), or a mean over positions.",
        )
    rows: Tensor = outputs if outputs.dim() == 2 else outputs.unsqueeze(1)
    return rows


def refuse_not_finite(outputs: Tensor, name: str) -> None:
    """Raises UnsupportedModelError where f(x) is NaN or infinite."""
    finite = torch.isfinite(outputs)
    if not bool(finite.all()):
        raise UnsupportedModelError(
            "the outputs are not finite",
            got=f"{int((~finite).sum())} of {finite.numel()} values",
            remedy=f"Look for NaN or overflow in the parameters and in {name}.",
        )


def refuse_sample_coupling_modes(model: nn.Module) -> None:
    """Raises where the module's mode makes outputs random or dependent on the batch.

    Raises:
        UnsupportedModelError: names the modules.
    """
    dropout, batchnorm, instancenorm = [], [], []
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
            dropout.append(name)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
            batchnorm.append(name)
        if isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.training and module.track_running_stats:
            instancenorm.append(name)
    if instancenorm:
        raise UnsupportedModelError(
            f"InstanceNorm updates its running statistics: {instancenorm[:8]}", remedy="Call model.eval()."
        )
    if batchnorm:
        raise UnsupportedModelError(
            f"BatchNorm uses the statistics of the batch: {batchnorm[:8]}",
            remedy="Call model.eval(); a layer without running statistics has no kernel per sample.",
        )
    if dropout:
        raise UnsupportedModelError(f"dropout is active: {dropout[:8]}", remedy="Call model.eval() before measuring.")
