"""The budget that an error names works, and not a byte less. Oracle: the arithmetic of the result's bytes."""

import pytest

import kerneltrack as kt
from kerneltrack.errors import MemoryBudgetError
from tests.ntk.exact_kernels import OUTPUTS, tightest
from tests.ntk.problems import PROBLEMS


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
@pytest.mark.parametrize("name", ["mlp", "gpt-tied", "weight-tanh"])
def test_one_byte_less_than_what_is_required_is_refused(name, method, output):
    """Fails where the check leaves the result out: then everything down to the result's bytes less would pass."""
    model, x = PROBLEMS[name].model(), PROBLEMS[name].inputs()
    options = {"method": method, "output": OUTPUTS[output]}
    required = tightest(model, x, **options)
    kernel = kt.empirical_ntk(model, x, memory_budget=required, **options)
    assert required > kernel.numel() * kernel.element_size()
    for budget in (required - 1, required - kernel.numel() * kernel.element_size()):
        with pytest.raises(MemoryBudgetError) as raised:
            kt.empirical_ntk(model, x, memory_budget=budget, **options)
        assert raised.value.required_bytes == required
