"""Attention of all samples by torch's fused kernel, and backward only for the queries whose answers are read.

Under vmap torch has the formula alone: matrices of all pairs of tokens, which a chain of elementwise operations passes
over. Samples are one more batch axis to the fused kernel. Behind a last attention of which one token is read, the gradient
has one query; the others are exact zeros.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kerneltrack.ntk.capture.capture import Capture
from kerneltrack.ntk.capture.segment import Outcome, Segment, is_of_several
from kerneltrack.ntk.capture.zero_rows import bounded, largest

#: The fused kernel of a CPU gives the same bits each time, and keeps no T × T matrices.
CPU_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
#: Its backward pass takes exp(score − log Σ exp) where the formula takes exp(score − largest): with scores beyond this, or
#: a row that is masked by large numbers alone, that loses digits, or all of them.
_SCORES = 2.0**10
#: Queries are picked where they are at most this share.
_FEW = 0.25
#: Scores, over all samples and heads, from which picking pays.
LARGE = 2**16


@dataclass(frozen=True)
class _Options:
    """How queries are answered; a mask is (B or 1, H or 1, T or 1, S)."""

    mask: Tensor | None
    is_causal: bool
    scale: float | None
    enable_gqa: bool

    def answer(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Of queries (B, H, T, d), keys and values (B, H', S, d)."""
        with sdpa_kernel(CPU_ATTENTION):
            return F.scaled_dot_product_attention(
                query, key, value, self.mask, is_causal=self.is_causal, scale=self.scale, enable_gqa=self.enable_gqa
            )

    def is_benign(self, query: Tensor, key: Tensor) -> bool:
        """Whether no score can be large, but for what is masked by −∞."""
        width = query.shape[-1]
        scale = width**-0.5 if self.scale is None else abs(self.scale)
        mask = self.mask
        if (
            mask is not None
            and mask.is_floating_point()
            and not bounded(mask.masked_fill(mask == -math.inf, 0), _SCORES)
        ):
            return False
        return width * scale * largest(query.detach()) * largest(key.detach()) <= _SCORES

    def at(self, queries: Tensor, keys: int) -> _Options:
        """For the queries (B, T') of each batch alone."""
        mask = self.mask
        if self.is_causal:
            places = torch.arange(keys, device=queries.device)
            mask = (places <= queries.unsqueeze(-1)).unsqueeze(1)
        elif mask is not None and mask.shape[2] > 1:
            mask = _picked(mask.expand(len(queries), -1, -1, -1), queries)
        return replace(self, mask=mask, is_causal=False)


class _Attention(Segment):
    def __init__(self, outcome: Outcome, leaves: Sequence[Tensor], options: _Options) -> None:
        super().__init__(outcome, leaves, options.answer(*leaves))
        self._options = options
        self._finite: bool | None = None

    def pulled(self, gradient: Tensor) -> Sequence[Tensor | None]:
        queries = None if is_of_several(gradient) else _few_queries(gradient)
        if queries is None or not self._is_finite():
            return super().pulled(gradient)
        query, key, value = self.leaves
        given = [_picked(query.detach(), queries), key.detach(), value.detach()]
        given = [one.requires_grad_(leaf.requires_grad) for one, leaf in zip(given, self.leaves, strict=True)]
        with torch.enable_grad():
            again = _Attention(self.outcome, given, self._options.at(queries, key.shape[2]))
        first, *others = again.differentiated(_picked(gradient, queries))
        if first is not None:
            index = queries[:, None, :, None].expand(first.shape)
            first = torch.zeros_like(query).scatter_(2, index, first)
        if self.is_last(gradient):
            self.release()
        return [first, *others]

    def _is_finite(self) -> bool:
        """Whether zeros stay zeros: everything that they would be multiplied with is a number."""
        if not self.is_unchanged:
            return False
        if self._finite is None:
            self._finite = all(bounded(one.detach()) for one in (*self.leaves, self.value))
        return self._finite


def _few_queries(gradient: Tensor) -> Tensor | None:
    """Indices (B, T') of the queries outside of which a gradient (B, H, T, d) is zero; None where these are not few.

    A batch that has fewer than T' of them has others among them, each once.
    """
    t = gradient.shape[2]
    most = int(_FEW * t)
    if not gradient.numel() or not most or gradient[..., 0].numel() * t < LARGE or _count(_seen(gradient[:1])) > most:
        return None
    seen = _seen(gradient)
    count = max(1, _count(seen))
    return seen.byte().argsort(1, descending=True)[:, :count] if count <= most else None


def _seen(gradient: Tensor) -> Tensor:
    """(B, T); what is not a number is seen."""
    return ((gradient.amax(-1) != 0) | (gradient.amin(-1) != 0)).any(1)


def _count(seen: Tensor) -> int:
    return int(seen.sum(1).max())


def _picked(rows: Tensor, queries: Tensor) -> Tensor:
    """(B, …, T', d) of (B, H, T, d)."""
    index = queries[:, None, :, None].expand(-1, rows.shape[1], -1, rows.shape[3])
    return torch.gather(rows, 2, index)


def attention(capture: Capture, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Scaled dot product attention of queries, keys and values that differ from sample to sample."""
    asked = _Call(*args, **kwargs)
    given = [asked.query, asked.key, asked.value]
    apart = capture.apart(given)
    if apart is None or asked.dropout_p or not _is_known(apart, 4 + (capture.has_own_axis and given[0].dim() == 4)):
        return NotImplemented
    mask, lead = asked.attn_mask, apart[0].dim() - 3
    if mask is not None:
        own = capture.apart([mask])
        mask = _broadcast(mask if own is None else own[0], lead, capture.has_own_axis and own is not None)
    if mask is not None and (
        mask.requires_grad or asked.is_causal or mask.shape[0] not in (1, apart[0][..., 0, 0, 0].numel())
    ):
        return NotImplemented
    options = _Options(mask, asked.is_causal, asked.scale, asked.enable_gqa)
    if capture.has_own_axis and not options.is_benign(*apart[:2]):
        return NotImplemented  # to the formula

    def joined() -> Tensor:
        merged = [one.flatten(0, lead - 1) for one in apart]
        leaves = [one.detach().requires_grad_(one.requires_grad) for one in merged]
        answer = _Attention(capture.outcome, leaves, options).joined(merged)
        return answer.view(*apart[0].shape[:lead], *answer.shape[1:]) if lead > 1 else answer

    return capture.together(joined)


@dataclass(frozen=True)
class _Call:
    """The arguments, by torch's names and in its order."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False


def _is_known(tensors: Sequence[Tensor], dim: int) -> bool:
    first = tensors[0]
    return (
        first.device.type == "cpu"
        and first.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and all(
            (one.dim(), one.dtype, one.shape[: dim - 3]) == (dim, first.dtype, first.shape[: dim - 3])
            for one in tensors
        )
        and any(one.requires_grad for one in tensors)
    )


def _broadcast(mask: Tensor, lead: int, of_samples: bool) -> Tensor:
    """A mask as (B or 1, H or 1, T or 1, S); its missing axes stand behind the samples."""
    while mask.dim() < lead + 3:
        mask = mask.unsqueeze(1 if of_samples else 0)
    return mask.flatten(0, lead - 1)
