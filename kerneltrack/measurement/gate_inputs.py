"""What a forward pass gives to its nonlinearities, and from which layer it came.

A layer's result may reach a nonlinearity at once, or after what only arranges or scales it: a reshape, a number as a factor,
dropout in evaluation, pooling, a norm that is no layer itself. After anything else (a sum of two branches, another layer) it is no
longer that layer's, and the layer has no gates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

#: Elementwise nonlinearities by the name of torch's function, in place or not; comparisons are how users write their own.
NONLINEAR = frozenset({
    "relu", "relu6", "leaky_relu", "rrelu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign",
    "tanh", "sigmoid", "logsigmoid", "hardtanh", "hardswish", "hardsigmoid", "hardshrink", "softshrink", "tanhshrink",
    "threshold", "clamp", "clamp_min", "clip", "maximum", "abs", "sign", "gt", "ge", "lt", "le", "sin", "cos", "exp", "erf",
})  # fmt: skip
#: What leaves the values to be the layer's.
CARRIED = frozenset({
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "movedim", "squeeze", "unsqueeze", "contiguous", "clone",
    "detach", "to", "float", "double", "half", "bfloat16", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
    "feature_dropout", "feature_alpha_dropout", "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "max_pool1d",
    "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
})  # fmt: skip
#: What does where the other factor is a plain number.
SCALED = frozenset({"mul", "rmul", "multiply", "div", "truediv", "true_divide", "divide"})


class GateInputs(TorchFunctionMode):
    """Watches the functions of torch that a forward pass calls.

    Attributes:
        found: layer → what nonlinearities were given of its results, in the order of the calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[Tensor]] = defaultdict(list)
        # By identity; the tensor is kept, so that no other takes its number.
        self._owners: dict[int, tuple[Tensor, str]] = {}

    def gives(self, layer: str, result: object) -> None:
        """``result`` is what ``layer`` has just given."""
        if isinstance(result, Tensor):
            self._owners[id(result)] = result, layer

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        plain = name.strip("_")
        given = [self._owners[id(arg)] for arg in args if isinstance(arg, Tensor) and id(arg) in self._owners]
        if plain in NONLINEAR:
            for tensor, layer in given:
                self.found[layer].append(tensor.detach().clone())  # before it is changed in place
        result = func(*args, **(kwargs or {}))
        if plain in CARRIED or (plain in SCALED and not any(isinstance(arg, Tensor) for arg in args[1:])):
            if given and given[0][0] is args[0]:
                self.gives(given[0][1], result)
        else:
            for tensor, _ in given:
                if result is tensor:  # changed in place: its values are no longer the layer's
                    del self._owners[id(tensor)]
        return result
