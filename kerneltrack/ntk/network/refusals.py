"""Door checks of a network: finite outputs, and modes in which every sample is treated alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from kerneltrack.errors import KernelError, UnsupportedModelError, one_line
from kerneltrack.memory_budget import ran_out
from kerneltrack.ntk.network.autograd_graph import reachable_leaves

#: Inputs that say where a sample ends: transformers' attention_mask, torch's src_key_padding_mask, lengths.
_PADDING = re.compile(r"mask|length|padding", re.IGNORECASE)


def refuse_not_finite(outputs: Tensor, name: str) -> None:
    """Raises UnsupportedModelError where f(x) is NaN or infinite."""
    finite = torch.isfinite(outputs)
    if not bool(finite.all()):
        raise UnsupportedModelError(
            "the outputs are not finite",
            got=f"{int((~finite).sum())} of {finite.numel()} values",
            remedy=f"Look for NaN or overflow in the parameters and in {name}.",
        )


def refuse_coupling_modes(modules: Mapping[str, nn.Module]) -> None:
    """Raises where the mode of one of a model's modules makes outputs random or dependent on the batch.

    Raises:
        UnsupportedModelError: names the modules.
    """
    dropout, batchnorm, instancenorm = [], [], []
    scripted = [name for name, module in modules.items() if isinstance(module, torch.jit.ScriptModule)]
    if scripted:
        raise UnsupportedModelError(
            f"scripted or traced modules do not let their parameters be replaced: {scripted[:8]}",
            remedy="Use the module that they were made from.",
        )
    weighted = [name for name, module in modules.items() if getattr(module, "scale_grad_by_freq", False)]
    if weighted:
        raise UnsupportedModelError(
            f"scale_grad_by_freq rescales gradients, so they are no longer derivatives: {weighted[:8]}",
            remedy="Switch it off for the measurement.",
        )
    for name, module in modules.items():
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


def refuse_hidden(outputs: Tensor, own: Mapping[str, Tensor], *, everything: bool) -> None:
    """Raises where f(x), computed with other tensors in the parameters' places, reaches a parameter all the same.

    Args:
        outputs: f(x) with its graph.
        own: the module's parameters by name.
        everything: whether each of them that requires grad was replaced by a leaf; then f(x) must depend on one.

    Raises:
        UnsupportedModelError: names the parameters.
    """
    if not outputs.requires_grad and everything:
        raise UnsupportedModelError(
            "the outputs do not depend on any of the parameters",
            expected="a differentiable forward pass",
            remedy="Look for detach(), torch.no_grad() or argmax between parameters and outputs.",
        )
    names = {id(parameter): name for name, parameter in own.items()}
    hidden = [names[id(leaf)] for leaf in reachable_leaves([outputs]) if id(leaf) in names]
    if hidden:
        raise UnsupportedModelError(
            f"the forward pass reaches parameters by references that are not attributes: {hidden[:8]}",
            remedy="Use self.<name> in forward, not a list or closure that holds the parameter.",
        )


def refuse_not_repeated(model: nn.Module) -> NoReturn:
    """Raises UnsupportedModelError for outputs that depend on how often the model ran; names the modules with hooks."""
    raise UnsupportedModelError(
        "the outputs depend on how often the model ran: forward changes buffers or keeps state, or is random by a generator "
        "that is no attribute of a module",
        remedy=_of_hooks(model)
        or "Call model.eval(): spectral_norm, for instance, iterates in training mode only. Take state out of forward.",
    )


@contextmanager
def coupling_explained(model: nn.Module, inputs: Any = None) -> Iterator[None]:
    """A refusal names the modules that read sequences first, those whose hooks may keep state, and masks of the inputs."""
    try:
        yield
    except UnsupportedModelError as refusal:
        masks = _of_masks(inputs) if "couples" in refusal.problem else ""
        hints = " ".join(hint for hint in (_of_sequences(model), _of_hooks(model), masks) if hint)
        if not hints:
            raise
        raise UnsupportedModelError(
            refusal.problem,
            expected=refusal.expected,
            got=refusal.got,
            where=refusal.where,
            # What a hook kept of another batch has its shape: no axis was lost.
            remedy=f"{hints} Or: {refusal.remedy}" if _of_hooks(model) else f"{refusal.remedy} {hints}",
        ) from refusal


def _of_hooks(model: nn.Module) -> str:
    hooked = [
        name or "the model itself"
        for name, module in model.named_modules()
        if module._forward_hooks or module._forward_pre_hooks
    ]
    if not hooked:
        return ""
    return f"Remove hooks that keep something from one pass to the next: {hooked[:8]} have hooks of their own."


def _of_masks(inputs: Any) -> str:
    """What padding may do, where the inputs have a mask or lengths."""
    masks = [str(key) for key in inputs if _PADDING.search(str(key))] if isinstance(inputs, Mapping) else []
    if not masks:
        return ""
    return (
        f"{masks[:4]} tell padding: a batch that is cut to its longest sample, or a mean over the padding of all samples, couples "
        "them. Pad every sample to one length, and let each be masked by its own row: "
        "(h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)."
    )


def _of_sequences(model: nn.Module) -> str:
    first = [name for name, module in model.named_modules() if getattr(module, "batch_first", True) is False]
    if not first:
        return ""
    return (
        f"{first[:8]} read axis 0 as the sequence (batch_first=False): give samples on axis 0, and turn them on their way in, "
        "forward=lambda model, x: model(x.transpose(0, 1))."
    )


@contextmanager
def explained(model: nn.Module) -> Iterator[None]:
    """What torch or the model raise inside becomes an UnsupportedModelError with its remedy.

    Reentrant checkpoints are refused where they are met: without an input that requires grad they have no gradient at all,
    and no other error says so.
    """
    real = torch.utils.checkpoint.CheckpointFunction
    torch.utils.checkpoint.CheckpointFunction = _Reentrant  # type: ignore[misc,assignment]  # put back below
    try:
        yield
    except KernelError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, KeyError) as error:
        if ran_out(error):
            raise
        text = one_line(error)
        raise UnsupportedModelError(
            "the forward pass fails, or its derivative", got=text, remedy=_remedy(model, text)
        ) from error
    finally:
        torch.utils.checkpoint.CheckpointFunction = real  # type: ignore[misc]  # as above


class _Reentrant:
    """In the place of torch's reentrant checkpoint."""

    @staticmethod
    def apply(*given: Any) -> Any:
        raise UnsupportedModelError(
            "the forward pass uses a reentrant checkpoint, through which torch.autograd.grad does not go",
            remedy="Call torch.utils.checkpoint.checkpoint(…, use_reentrant=False).",
        )


def _remedy(model: nn.Module, text: str) -> str:
    loose = [
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
    ]
    if "escaped from inside a function being vmapped" in text:
        return "Remove what keeps tensors from one forward pass to the next: a hook, or an attribute of another object."
    if "nference tensor" in text:
        return f"A tensor was made under torch.inference_mode (look at {loose[:8] or 'what forward reads'}): clone() it outside."
    if "dtype" in text and loose:
        return f"dtype= converts parameters and buffers only; make {loose[:8]} buffers with register_buffer."
    return "Call the model with these samples, and torch.autograd.grad on its outputs, to see the error by itself."
