"""What a module is, by one walk in some microseconds, to be compared with what it was in an earlier call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from kerneltrack.ntk.network.tree import Slot, copied, filled
from kerneltrack.undisturbed import restored


class Survey:
    """Submodules, attributes, modes, parameters and buffers of a module now.

    Nothing is asked of values: what another value changes, a forward pass shows.

    Args:
        module: the root.

    Attributes:
        marks: which objects stand where (classes, submodules, attributes), and of each parameter and buffer its address and
            whether it requires grad. No object is held, so that another one may have come into the place of an old one;
            modes, and None, are always told apart.
        tensors: parameters and buffers, one for each slot.
        hooked: whether a backward hook hangs on a module or on a tensor.
    """

    def __init__(self, module: nn.Module) -> None:
        self._modules, self.tensors, self.hooked = [module], list[Tensor](), False
        self._parameters, self._buffers = list[Tensor](), list[Slot]()
        marks, seen = list[int](), {id(module)}
        for each in self._modules:  # it grows meanwhile
            own, below = vars(each), each._modules.values()
            marks.append(id(type(each)))
            marks += map(id, own.values())
            marks += map(id, below)
            self.hooked = self.hooked or bool(each._backward_hooks or each._backward_pre_hooks)
            parameters = [tensor for tensor in each._parameters.values() if tensor is not None]
            self._parameters += parameters
            self.tensors += parameters
            if each._buffers:
                held = [(name, buffer) for name, buffer in each._buffers.items() if buffer is not None]
                self.tensors += [buffer for _, buffer in held]
                self._buffers += [Slot(each, "_buffers", name, str(id(buffer))) for name, buffer in held]
            for child in below:
                if child is not None and id(child) not in seen:
                    seen.add(id(child))
                    self._modules.append(child)
        for tensor in self.tensors:
            marks += id(tensor), tensor.data_ptr(), tensor.requires_grad
            self.hooked = self.hooked or bool(tensor._backward_hooks)
        self.marks = marks

    def held(self) -> list[Tensor]:
        """The same tensors as the module holds them now, inside :meth:`kept` copies of buffers."""
        if not self._buffers:
            return self.tensors
        now = (slot.module._buffers[slot.attribute] for slot in self._buffers)
        return [*self._parameters, *(buffer for buffer in now if buffer is not None)]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A forward pass inside changes nothing: what it writes to attributes is put back, and buffers are copies."""
        with restored(self._modules):
            if not self._buffers:
                yield
                return
            values = {slot.first: slot.module._buffers[slot.attribute] for slot in self._buffers}
            with filled(self._buffers, copied(values)):  # type: ignore[arg-type]  # None has no slot
                yield
