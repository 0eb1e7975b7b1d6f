"""Rules: which torch functions have a structured derivative by their weight, and how a call is recorded.

With T rows for each sample, input rows a_t and gradients g_t at the output rows, every rule reduces to one of

    ∂f/∂W    = Σ_t g_t ⊗ a_t            linear maps; convolutions, as linear maps of patches; bilinear forms
    ∂f/∂E[v] = Σ_{t: id_t = v} g_t      embeddings
    ∂f/∂b    = Σ_t g_t                  biases

Whatever is not listed is expanded: the weight is repeated for every sample, and autograd forms ∂f_n/∂W itself.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kerneltrack.ntk.capture.attention import attention
from kerneltrack.ntk.capture.capture import PlainRule, Rule
from kerneltrack.ntk.capture.convolution import convolution
from kerneltrack.ntk.capture.embedding import embedding, embedding_bag
from kerneltrack.ntk.capture.linear import bilinear, linear
from kerneltrack.ntk.capture.normalisation import batch_norm, group_norm, instance_norm, layer_norm, prelu, rms_norm
from kerneltrack.ntk.capture.pointwise import KINDS, pointwise
from kerneltrack.ntk.capture.product import addmm, einsum, matmul, rmatmul, tensordot
from kerneltrack.ntk.capture.recurrent import RECURRENT

#: Where torch keeps what its Python wrappers call; the stubs do not list all of it.
_VARIABLE_FUNCTIONS: Any = torch._C._VariableFunctions

RULES: dict[Any, Rule] = {
    torch._C._nn.linear: linear,
    torch.matmul: matmul,
    Tensor.matmul: matmul,
    Tensor.__matmul__: matmul,
    Tensor.__rmatmul__: rmatmul,
    torch.mm: matmul,
    Tensor.mm: matmul,
    torch.mv: matmul,
    Tensor.mv: matmul,
    torch.bmm: matmul,
    Tensor.bmm: matmul,
    torch.addmm: addmm,
    Tensor.addmm: addmm,
    torch.baddbmm: addmm,
    Tensor.baddbmm: addmm,
    _VARIABLE_FUNCTIONS.tensordot: tensordot,
    _VARIABLE_FUNCTIONS.einsum: einsum,
    torch.bilinear: bilinear,
    torch.layer_norm: layer_norm,
    torch.rms_norm: rms_norm,
    torch.group_norm: group_norm,
    torch.batch_norm: batch_norm,
    torch.instance_norm: instance_norm,
    torch.prelu: prelu,
    torch.embedding: embedding,
    torch.embedding_bag: embedding_bag,
    **RECURRENT,
    **{getattr(torch, f"conv{d}d"): convolution(d, False) for d in (1, 2, 3)},
    **{getattr(torch, f"conv_transpose{d}d"): convolution(d, True) for d in (1, 2, 3)},
}

#: Calls in which no weight takes part, where a backward pass may look at what it is given.
PLAIN_RULES: dict[Any, PlainRule] = {F.scaled_dot_product_attention: attention}
JOINING_RULES: dict[Any, PlainRule] = {**dict.fromkeys(KINDS, pointwise), **PLAIN_RULES}
#: With fewer outputs a join spares too few passes: a Llama of one output took 1.25 times as long with joins.
JOINED_FROM = 4


def plain_rules(outputs: int) -> dict[Any, PlainRule]:
    """Those that pay with so many outputs to be passed back; none for 0, where backward passes may not look for zeros."""
    if not outputs:
        return {}
    return JOINING_RULES if outputs >= JOINED_FROM else PLAIN_RULES


#: Those that read one sample and a batch alike. The others look into their inputs, or call several layers in one.
BATCH_RULES: dict[Any, Rule] = {
    function: rule for function, rule in RULES.items() if function not in RECURRENT and rule is not embedding_bag
}
