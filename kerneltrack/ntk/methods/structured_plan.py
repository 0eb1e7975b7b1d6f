"""The plan of the structured method: which terms, in which order each, in blocks of how many samples.

It follows from the sizes of a trial alone. It holds no tensor, and says what it costs before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from kerneltrack.ntk.capture import Record, Use
from kerneltrack.ntk.contraction import ContractionSize, Order, OrderCost, Term, cheapest, cover
from kerneltrack.ntk.machine import Machine
from kerneltrack.ntk.methods.footprint import sample_bytes
from kerneltrack.ntk.methods.forward_pass import ForwardPass
from kerneltrack.ntk.methods.passes import Passes
from kerneltrack.ntk.methods.request import KernelRequest
from kerneltrack.ntk.network import layer_of
from kerneltrack.ntk.plan import PlanLine

_HOOKED = "a hook changes its gradient"
#: Orders that make a tile of Θ by itself before they add it.
_TILED = ("hybrid", "lookup", "ranked", "tied")


@dataclass(frozen=True)
class Step:
    """A term, the order chosen for it, and what that costs.

    Attributes:
        term: the term.
        order: its order.
        cost: what it costs.
        merged: whether the step of the layer's weight adds this one, a bias, on its way; then the order is that step's, and nothing
            is left to pay.
    """

    term: Term
    order: Order
    cost: OrderCost
    merged: bool = False


@dataclass(frozen=True, kw_only=True)
class StructuredPlan:
    """How the structured method computes a kernel.

    Attributes:
        steps: each covered parameter's contribution.
        uncovered: parameters that plain autodiff must do, and why.
        machine: what it was made for.
        facts: of the forward pass that it is the plan of; see :class:`ForwardPass`.
        outputs: O.
        passes: how they go backward.
        outputs_at_once: how many of them in one pass, in the memory that is free.
        copies: whether the model gets copies of what its layers return, because it writes there.
        lines: the plan as it is printed.
        samples: how many there are on both sides.
        block_samples: how many are captured at a time.
        sample_bytes: what one captured sample takes.
        held_bytes: what one sample's gradients and input rows take where they are kept, with what obtains them.
        widest: entries of the largest gradient of one sample and output.
        workspace: bytes that a slice or a tile beside the blocks may take; four of them are kept free.
        slice_bytes: bytes of the widest slice of gradients, were there room for it.
        tile_bytes: bytes of the largest tile of Θ that a step makes by itself, were there room for it.
        batched: why samples are captured as ordinary batches; "" where vmap does it.
    """

    steps: tuple[Step, ...]
    uncovered: Mapping[str, str]
    machine: Machine
    facts: tuple[object, ...]
    outputs: int
    passes: Passes
    outputs_at_once: int
    copies: bool
    lines: tuple[PlanLine, ...]
    samples: int
    block_samples: int
    sample_bytes: int
    held_bytes: int
    widest: int
    workspace: int
    slice_bytes: int
    tile_bytes: int
    batched: str = ""

    @classmethod
    def of(cls, request: KernelRequest, trial: ForwardPass) -> StructuredPlan:
        """The plan that follows from a trial; call it inside :meth:`Network.evaluating`."""
        uses, leaves = trial.uses, trial.leaves
        coverage = cover(uses, leaves, trial.outputs, request.metric)
        steps = _merge_biases([_step(request, trial, term) for term in coverage.terms], uses, request.key)
        one = sample_bytes(request, uses, leaves, coverage.terms)
        widest = max((use.extent().gradients for use in uses), default=1)
        inputs, item = sum(use.held_inputs() for use in uses), request.dtype.itemsize
        slice_bytes, tile_bytes = _slices(request, trial, steps)
        whole = cls(
            steps=tuple(steps),
            uncovered=coverage.uncovered
            | dict(trial.left)
            | dict.fromkeys(request.network.sight(trial.samples).parameters, _HOOKED),
            machine=request.machine,
            facts=trial.facts,
            outputs=request.outputs,
            passes=Passes.of(request, trial),
            outputs_at_once=1,
            copies=trial.writes,
            lines=tuple(_lines(steps, uses)),
            samples=request.samples,
            block_samples=request.samples,
            sample_bytes=one,
            held_bytes=one + item * (inputs + request.outputs * widest),
            widest=widest,
            workspace=0,
            slice_bytes=slice_bytes,
            tile_bytes=tile_bytes,
            batched="" if trial.batched is None else trial.batched.why,
        )
        return whole.within(request)

    def within(self, request: KernelRequest) -> StructuredPlan:
        """The same plan in the memory that is free now."""
        workspace = min(self.machine.slice_bytes, max(2**12, request.free_bytes // 8))
        block = _block_samples(request, self.sample_bytes, request.free_bytes - 4 * workspace)
        one = request.network.activation_bytes(request.x1) * min(block, len(request.x1))
        at_once = max(1, min(self.passes.at_once, request.free_bytes // (2 * one)))
        return replace(self, workspace=workspace, block_samples=block, outputs_at_once=at_once)

    @property
    def slices(self) -> int:
        """Two slices of gradients (one is formed while one is multiplied), and a tile of Θ where a step makes one."""
        return 2 * min(self.workspace, self.slice_bytes) + min(self.workspace, self.tile_bytes)

    @property
    def terms(self) -> list[Term]:
        """What is contracted."""
        return [step.term for step in self.steps]

    @property
    def key(self) -> tuple[object, ...]:
        """What the contributions depend on: two executions with equal keys can be contracted with each other."""
        return self.facts[0], tuple((step.term, step.order.name) for step in self.steps), tuple(self.uncovered)

    @property
    def least_bytes(self) -> int:
        """The least that two blocks of one sample need beside the result.

        Half of what is free is for blocks.
        """
        return 4 * self.sample_bytes + 2**16

    @property
    def working_bytes(self) -> int:
        """What is held beside the result at the peak."""
        return min(self.samples, 2 * self.block_samples) * self.sample_bytes + self.slices


def _step(request: KernelRequest, trial: ForwardPass, term: Term) -> Step:
    size = _size(request, trial, term)
    order = cheapest(term, size, request.machine)
    return Step(term, order, order.cost(size))


def _slices(request: KernelRequest, trial: ForwardPass, steps: Sequence[Step]) -> tuple[int, int]:
    """Bytes of the widest slice of gradients, and of a tile of Θ where a step makes one."""
    rows = request.dtype.itemsize * max(len(request.x1), request.columns) * request.paired
    slices = [rows * _columns(request, trial, step, rows) for step in steps if step.order.name == "gradient"]
    tile = rows**2 // request.dtype.itemsize if any(step.order.name in _TILED for step in steps) else 0
    return max(slices, default=0), tile


def _columns(request: KernelRequest, trial: ForwardPass, step: Step, column: int) -> int:
    """Of a slice of a term's gradients, where one ``column`` takes so many bytes: few, where the inputs stay in a cache."""
    extents, machine = [trial.uses[i].extent() for i in step.term.uses], request.machine
    size = _size(request, trial, step.term)
    inputs = request.dtype.itemsize * request.samples * sum(extent.inputs for extent in extents)
    most = machine.slice_columns
    if inputs <= machine.cached_bytes:
        most = min(most, max(machine.narrow_columns, machine.narrow_bytes // column))
    return min(most, size.groups * size.outer * size.inner)


def _size(request: KernelRequest, trial: ForwardPass, term: Term) -> ContractionSize:
    """The sizes of a term; for the trace outputs are channels too."""
    extents = [trial.uses[i].extent() for i in term.uses]
    channels = request.outputs if request.reduction.kind == "trace" else 1
    products, sums = trial.uses[term.uses[0]].pixel_work() if len(term.uses) == 1 else (0, 0)
    size = ContractionSize(
        rows=request.samples,
        sample_pairs=request.sample_pairs,
        outputs=request.paired,
        planes=request.planes,
        groups=extents[0].groups,
        outer=extents[0].outer * channels,
        inner=extents[0].inner,
        tokens=sum(extent.tokens for extent in extents),
        item_bytes=request.dtype.itemsize,
        pixel_products=products,
        pixel_sums=sums,
    )
    if term.form == "features":
        return replace(size, inner=1, tokens=1)
    if term.has_factors:
        return size
    entries = sum(trial.leaves[name].numel() for name in term.names)
    return replace(size, groups=1, outer=entries * channels, inner=1)


def _merge_biases(steps: Sequence[Step], uses: Sequence[Use], key: Callable[[str], str]) -> list[Step]:
    """Biases ride along with their layer's weight where its order can take them: a number more in a product that is made anyway."""

    def place(step: Step) -> tuple[Record, str]:
        return uses[step.term.uses[0]].record, key(step.term.names[0])

    biases = {place(s): s for s in steps if s.term.form == "features" and len(s.term.uses) == 1}
    carriers = {place(s): s.order for s in steps if s.order.takes_bias and place(s) in biases}
    merged = []
    for step in steps:
        bias, order = biases.get(place(step)), carriers.get(place(step))
        if order is not None and bias is step:
            step = Step(step.term, order, OrderCost(0, 0, 0.0), merged=True)
        elif order is not None and bias is not None:
            step = replace(step, term=replace(step.term, shift=bias.term.scale))
        merged.append(step)
    return merged


def _lines(steps: Sequence[Step], uses: Sequence[Use]) -> list[PlanLine]:
    """The lines of the plan; a tied table's three steps are one."""
    together: dict[tuple[str, ...], list[Step]] = {}
    for step in steps:
        together.setdefault(step.term.names, []).append(step)
    return [
        PlanLine(
            parameters=names,
            layer=layer_of(names[0]),
            rule=_rule(max(own, key=lambda step: len(step.term.uses)).term, uses),
            order="+".join(dict.fromkeys(step.order.name for step in own)),
            flops=sum(step.cost.flops for step in own),
            bytes=sum(step.cost.bytes for step in own),
        )
        for names, own in together.items()
    ]


def _rule(term: Term, uses: Sequence[Use]) -> str:
    return "+".join(dict.fromkeys(uses[i].rule for i in term.uses)) if term.has_factors else term.form


def _block_samples(request: KernelRequest, one: int, free: int) -> int:
    """Samples for one block: all of them if they fit, else as many as two blocks can have."""
    if request.samples * one <= free:
        return max(len(request.x1), request.columns)
    return max(1, free // (2 * one))
