"""Whether the plain Jacobian is the faster exact way to a kernel than its structured plan.

It is where parameters are few and outputs are many, as in a small network that gives an image: there the structure saves
few operations and costs a backward pass for some outputs at a time, and calls for each use and each output. Both are
estimated in operations of a large matrix product, from sizes alone: the same request is always answered in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

from kerneltrack.ntk.capture import Use
from kerneltrack.ntk.methods.forward_pass import ForwardPass
from kerneltrack.ntk.methods.jacobian import in_one_piece, jacobian_bytes
from kerneltrack.ntk.methods.rehearsal import says_all
from kerneltrack.ntk.methods.request import KernelRequest
from kerneltrack.ntk.methods.structured_plan import StructuredPlan

#: What the estimates may be off by: the structured plan needs less memory, and only a clear loss gives it up.
_CLEARLY = 0.9
#: Calls from Python, each of the machine's ``call_operations``, fitted to a dozen small networks on one core. For each
#: node of autograd's graph: of one backward pass, and of one through vmap, which dispatches twice. For each output of a
#: recorded result, that is laid out; for each parameter, whose rows are.
_NODE, _MAPPED_NODE, _LAID_OUT, _PARAMETER = 3, 8, 3, 20
#: Calls that a recording spares, and for each node; and what it takes to compare all samples instead of a few, in operations of a
#: forward pass: forward and backward three, below a large product's rate. Fitted to networks of 10 to 220 nodes.
_ASKED, _ASKED_NODE, _COMPARED = 150, 5, 6
#: How often the activations and the rows of J are moved by a backward pass of all outputs at once.
_COPIES = 4


def plain_is_faster(request: KernelRequest, trial: ForwardPass, plan: StructuredPlan) -> str:
    """In words, that the plain Jacobian takes less time; "" where it does not, where it is no way, or is too large.

    On an accelerator it does not: there outputs go backward together by the plan too, nothing is laid out for each of them, and
    only the plan's capture has what samples are compared by beside the kernel.

    Args:
        request: what is asked for.
        trial: the pass that the plan was made from, its graph not used yet.
        plan: the structured plan.
    """
    if request.method != "auto" or request.machine.counts_launches or trial.batched is not None or plan.uncovered:
        return ""
    names = list(request.network.parameters)
    needed = jacobian_bytes(request.network, names, request.x1, request.samples, request.outputs, request.dtype)
    if needed > min(request.free_bytes, max(plan.working_bytes, request.machine.plain_bytes)):
        return ""
    nodes = trial.nodes
    plain, structured = _plain(request, trial.uses, nodes), _structured(request, trial.uses, plan, nodes)
    if plain >= _CLEARLY * structured:
        return ""
    why = f"it takes {plain / structured:.0%} of the structured plan's time by the cost model (many outputs, few parameters)"
    request.network.known(request.x1).plain[_sizes(request)] = needed, why
    return why


def is_small(request: KernelRequest, trial: ForwardPass, plan: StructuredPlan) -> bool:
    """Whether it is worth to record a kernel: Python takes longer to ask for its operations than to compare samples takes.

    A few are compared where their program says what the network does; all of them may take longer.
    """
    machine = request.machine
    if not machine.small_operations or plan.uncovered or trial.batched is not None or request.metric is not None:
        return False
    extents = [use.extent() for use in trial.uses]
    products = 2 * sum(extent.tokens * extent.features for extent in extents)
    moved = machine.operations_per_byte * request.network.activation_bytes(request.x1)
    forward = request.samples * (products + moved)
    if (1 + request.outputs) * forward + sum(step.cost.time for step in plan.steps) > machine.small_operations:
        return False
    return _COMPARED * forward <= machine.call_operations * (_ASKED + _ASKED_NODE * trial.nodes) or says_all(request)


def known_to_be_faster(request: KernelRequest) -> str:
    """What :func:`plain_is_faster` said of an equal request, without a trial; "" where it has not been asked."""
    if request.method != "auto":
        return ""
    needed, why = request.network.known(request.x1).plain.get(_sizes(request), (0, ""))
    return why if needed <= request.free_bytes else ""


def known_outputs(request: KernelRequest) -> int:
    """O of an equal request that was done by the plain Jacobian in one piece, with vmap; 0 where there was none.

    Samples may be compared beside such a kernel, whose rows of J are those of each alone.
    """
    network, samples = request.network, request.x1
    outputs = network.known(samples).rows.get((len(samples), request.method), 0)
    if not outputs or request.x2 is not None:
        return 0
    trusted = request.trusted(outputs)
    if request.method != "jacobian" and not known_to_be_faster(trusted):
        return 0
    return outputs if in_one_piece(network, samples, outputs, trusted.free_bytes) else 0


def remember_outputs(request: KernelRequest, by_sample: str | None) -> None:
    """Keeps for :func:`known_outputs` that vmap has made all rows of J, unless they were made ``by_sample``."""
    if request.x2 is None and by_sample is None:
        known = request.network.known(request.x1)
        known.rows[len(request.x1), request.method] = request.outputs


def _sizes(request: KernelRequest) -> tuple[object, ...]:
    return (
        request.samples,
        request.sample_pairs,
        request.outputs,
        request.reduction.kind,
        request.dtype,
        request.machine,
    )


def _structured(request: KernelRequest, uses: Sequence[Use], plan: StructuredPlan, nodes: int) -> float:
    """What the plan costs beyond the passes' own operations."""
    records = {use.record: use for use in uses}
    rows = request.samples * max((use.extent().tokens for use in records.values()), default=1)
    passes = -(-request.outputs // max(1, min(plan.outputs_at_once, request.machine.backward_rows // rows)))
    calls = _NODE * nodes * passes + _LAID_OUT * request.outputs * len(records)
    return sum(step.cost.time for step in plan.steps) + request.machine.call_operations * calls


def _plain(request: KernelRequest, uses: Sequence[Use], nodes: int) -> float:
    """The same of the plain Jacobian: rows of J, their products, and what a pass of all outputs moves."""
    machine, count = request.machine, sum(p.numel() for p in request.network.parameters.values())
    rows = request.samples * request.outputs
    extents = [use.extent() for use in uses]
    form = sum(2 * rows * size.tokens * size.features for size in extents if size.tokens * size.inner > 1)
    products = 2 * request.sample_pairs * request.planes * request.paired**2 * count
    if request.reduction.kind == "trace":
        products *= request.outputs
    item = request.dtype.itemsize
    moved = _COPIES * rows * (request.network.activation_bytes(request.x1) + item * count)
    calls = _MAPPED_NODE * nodes + _PARAMETER * len(request.network.parameters)
    time = form / machine.efficiency.form + products + machine.operations_per_byte * moved
    return time + machine.call_operations * calls
