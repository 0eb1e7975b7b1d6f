"""A plan that takes one order of contraction wherever it applies, also where it is not the cheapest."""

from kerneltrack.ntk.contraction import ORDERS
from kerneltrack.ntk.methods import structured_plan


def prefer(monkeypatch, wanted):
    """Every plan takes the order of that name where it applies, and the first that does elsewhere."""

    def chosen(term, size, machine):
        able = [order for order in (kind(machine) for kind in ORDERS) if order.applies(term, size)]
        return next((order for order in able if order.name == wanted), able[0])

    monkeypatch.setattr(structured_plan, "cheapest", chosen)
