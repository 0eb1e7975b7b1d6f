"""The program of a forward pass: which functions of torch it calls, in which order, and on what.

A recording does not hear of Python. But where vmap runs a network, no decision of Python is made by a sample's values, so what
may change from call to call is the same for all samples: a function, its order, a number that it is given, the tensor that it
reads. That is written down while a few samples go forward, and is compared with what was written down beside the recording.

This says something only where it sees everything. So every tensor that goes into a function has a known origin: a parameter or
buffer, the samples, the k-th result, or memory that is there in every call. What nobody sees makes a tensor without one (a function
of TorchScript, an extension, an array of NumPy), or writes to one, which its version tells. What is seen and may do more than its
arguments say (it is given an object, reads a value, hands out a node of the graph) leaves the program without a say. What
goes backward follows from all that, where no function has a backward pass of its own and nothing hooks into one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodWrapperType, WrapperDescriptorType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

#: What is told apart by its type and its value: 1, 1.0 and True are three.
_PLAIN = {
    *(int, bool, str, bytes, type(None), type(...)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
}
_TENSORS = {Tensor, nn.Parameter, nn.Buffer}
#: Bytes of an array that is given to a function.
_MANY = 2**16
#: Functions of torch that are written in Python; others of them are called by the name of a user's function.
_ROOMS = {"torch.functional", "torch.nn.functional", "torch._tensor", "torch._jit_internal"}
#: They ask about a tensor and not about its values, change nothing, and are not written down: torch's own modules ask more of
#: them as switches stand. Other numbers that a function hands out may decide in Python.
_OF_LAYOUT = {
    *(
        "shape",
        "size",
        "dim",
        "ndim",
        "ndimension",
        "__len__",
        "numel",
        "nelement",
        "stride",
        "dtype",
        "device",
        "layout",
    ),
    *(
        "is_floating_point",
        "is_complex",
        "is_contiguous",
        "is_cuda",
        "is_sparse",
        "is_quantized",
        "is_nested",
        "is_mps",
    ),
    *("requires_grad", "is_leaf", "element_size", "itemsize", "nbytes", "get_device", "storage_offset", "result_type"),
}
#: They give tensors or nothing, and do more than that.
_OPEN = {"__set__", "__delete__", "data_ptr", "set_", "resize_", "apply_", "map_", "map2_"}


class Unsaid(Exception):
    """A forward pass of which a program says nothing."""


@dataclass(frozen=True)
class Program:
    """What one forward pass did.

    Attributes:
        steps: of each function what it was given, dtype and gradient of what it made; then the outputs' origin, and switches.
        constants: memory that was there before. They are aliases, so nothing else comes to lie there.
    """

    steps: tuple[Any, ...]
    constants: list[Tensor] = field(compare=False)


class Writer(TorchFunctionMode):
    """Writes down the program of what runs inside.

    Args:
        held: parameters and buffers as the module holds them now.
        given: the tensors of the samples.
    """

    def __init__(self, held: Iterable[Tensor], given: Iterable[Tensor]) -> None:
        super().__init__()
        self._steps, self._constants, self._unsaid = list[Any](), dict[Any, Tensor](), _disturbed()
        #: By the object: its origin, and its version when it was made. The object is kept, that no other gets its number.
        self._known: dict[int, tuple[Any, int, Tensor]] = {}
        for kind, tensors in (("held", held), ("given", given)):
            for place, tensor in enumerate(tensors):
                self._known.setdefault(id(tensor), ((kind, place), tensor._version, tensor))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        told = None if self._unsaid or func in _QUESTIONS else self._asked(func, args, kwargs)
        result = func(*args, **(kwargs or {}))
        if told is not None:
            try:
                self._steps.append((func, told, self._made(result, (len(self._steps),), func)))
            except Unsaid as unsaid:
                self._unsaid = str(unsaid)
        return result

    def program(self, outputs: Any) -> Program:
        """What was written down, of a forward pass that gave ``outputs``.

        Raises:
            Unsaid: it says nothing.
        """
        try:
            if self._unsaid:
                raise Unsaid(self._unsaid)
            last = self._told(outputs if isinstance(outputs, Tensor) else getattr(outputs, "logits", outputs))
            steps = *self._steps, last, torch.get_default_dtype(), torch.backends.mkldnn.enabled
            return Program(steps, [constant.detach() for constant in self._constants.values()])
        finally:
            self._known.clear()

    def _asked(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What is asked of a function, as it can be compared; None where that is not all that decides."""
        try:
            if func not in _SEEN_THROUGH and not _learn(func):
                if func in _QUESTIONS:
                    return None
                raise Unsaid(f"{_name(func)} is not a function of torch, or does more than it says")
            return self._told(args), kwargs and self._told(kwargs)
        except Unsaid as unsaid:
            self._unsaid = str(unsaid)
            return None

    def _told(self, value: Any) -> Any:
        """Everything that ``value`` says."""
        kind = type(value)
        if kind in _PLAIN:
            return kind, value
        if kind in _TENSORS:
            return self._origin(value)
        if kind is float:
            return kind, value.hex()  # so 0.0 and -0.0 are two, and nan is one
        if kind in (tuple, list, torch.Size):
            return kind, [self._told(one) for one in value]
        if kind is dict:
            return list(value), [self._told(one) for one in value.values()]
        if kind is slice:
            return kind, self._told((value.start, value.stop, value.step))
        if isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind in "biufc" and value.nbytes <= _MANY:
            return kind, value.dtype.str, value.shape, value.tobytes()
        raise Unsaid(f"a function is given a {kind.__name__}")

    def _origin(self, tensor: Tensor) -> Any:
        known = self._known.get(id(tensor))
        if known is None:
            return self._constant(tensor)
        if known[1] != tensor._version:
            raise Unsaid("a tensor was written to where it is not seen")
        return known[0]

    def _constant(self, tensor: Tensor) -> Any:
        """A tensor that was there before is its memory: that is what a recording reads anew."""
        if not _is_dense(tensor) or tensor.requires_grad:
            raise Unsaid("a tensor is wrapped, not dense, or comes from where it is not seen")
        place = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
        self._constants.setdefault(place, tensor)
        self._known[id(tensor)] = place, tensor._version, tensor
        return place

    def _made(self, result: Any, origin: tuple[int, ...], func: Any) -> Any:
        """Remembers the tensors of a result, and says what they are."""
        if type(result) in _TENSORS:
            if result.is_inference() or torch._C._len_torch_dispatch_stack():
                raise Unsaid("a tensor has no version, or something works below")
            self._known[id(result)] = origin, result._version, result
            return result.dtype, result.requires_grad
        if result is None:
            return None
        if isinstance(result, (tuple, list)):
            return [self._made(one, (*origin, place), func) for place, one in enumerate(result)]
        raise Unsaid(f"{_name(func)} gives a {type(result).__name__}")


def _disturbed() -> str:
    """What works on functions, operators or saved tensors from outside; "" where nothing does."""
    if torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
        return "something works on functions or operators from outside"
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    return "saved tensors go through hooks" if hooks is not None else ""


#: Functions that do what their arguments say, and those that only ask.
_SEEN_THROUGH, _QUESTIONS = set[Any](), set[Any]()


def _learn(func: Any) -> bool:
    """Whether ``func`` is torch's own, and its arguments are all that it goes by."""
    if not _is_of_torch(func) or _name(func) in _OPEN or "hook" in _name(func):
        return False
    if _name(func) in _OF_LAYOUT:
        _QUESTIONS.add(func)
        return False
    _SEEN_THROUGH.add(func)
    return True


def _is_of_torch(func: Any) -> bool:
    if isinstance(func, FunctionType):
        own = any(
            getattr(place, func.__name__, None) is func for place in (torch.nn.functional, torch.functional, Tensor)
        )
        return own and func.__globals__.get("__name__") in _ROOMS
    if isinstance(func, BuiltinFunctionType):
        return (func.__module__ or "").partition(".")[0] == "torch"
    owner = func.__self__ if isinstance(func, MethodWrapperType) else func
    known = isinstance(func, (MethodDescriptorType, WrapperDescriptorType, MethodWrapperType))
    return known and getattr(owner, "__objclass__", None) in (torch._C.TensorBase, Tensor)


def _name(func: Any) -> str:
    """Of a property's getter the property's."""
    name = getattr(func, "__name__", type(func).__name__)
    return getattr(func.__self__, "__name__", name) if name == "__get__" else name


def _is_dense(tensor: Tensor) -> bool:
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor) or tensor.is_inference():
        return False
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return plain and not tensor.is_conj() and not tensor.is_neg()
