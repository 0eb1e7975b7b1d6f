"""How often the host waits for the device."""

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for the device: numbers that are read, and copies to the CPU."""

    def __init__(self, monkeypatch, methods):
        super().__init__()
        self.count = 0
        for name in methods:
            monkeypatch.setattr(Tensor, name, self._counting(getattr(Tensor, name)))

    def _counting(self, real):
        def method(tensor, *args, **kwargs):
            self.count += 1
            return real(tensor, *args, **kwargs)

        return method

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func._schema.name in (
            "aten::_local_scalar_dense",
            "aten::equal",
            "aten::is_nonzero",
            "aten::nonzero",
            "aten::_unique2",
            "aten::unique_dim",
            "aten::unique_consecutive",
            "aten::masked_select",
            "aten::bincount",
        )
        return func(*args, **(kwargs or {}))


def reads(monkeypatch, run, methods=("tolist", "numpy", "cpu")):
    """Of one run; ``numpy`` is of tensors that are on the CPU already, whatever the device."""
    with monkeypatch.context() as patch, Reads(patch, methods) as counted:
        run()
    return counted.count
