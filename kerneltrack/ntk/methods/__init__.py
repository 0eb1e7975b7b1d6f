"""The methods: structured, Jacobian and products, and the audit that compares them."""

from __future__ import annotations

from kerneltrack.ntk.methods.audit import audit_products_when_due, audit_when_due
from kerneltrack.ntk.methods.comparison import Comparison
from kerneltrack.ntk.methods.execution import Execution
from kerneltrack.ntk.methods.jacobian import Jacobian, add_jacobian_kernel, jacobian_bytes, least_jacobian_bytes
from kerneltrack.ntk.methods.kept_plans import Outdated, forget_plan, kept_plan
from kerneltrack.ntk.methods.preference import known_outputs, known_to_be_faster, remember_outputs
from kerneltrack.ntk.methods.products import product_kernel
from kerneltrack.ntk.methods.recording import forget_recording, recorded
from kerneltrack.ntk.methods.repeat import remember_call, repeated
from kerneltrack.ntk.methods.request import KernelOptions, KernelRequest, Method
from kerneltrack.ntk.methods.structured_plan import StructuredPlan
from kerneltrack.ntk.methods.verdict import agree, refuse_causes, rounding

__all__ = [
    "Comparison",
    "Execution",
    "Jacobian",
    "KernelOptions",
    "KernelRequest",
    "Method",
    "Outdated",
    "StructuredPlan",
    "add_jacobian_kernel",
    "agree",
    "audit_products_when_due",
    "audit_when_due",
    "forget_plan",
    "forget_recording",
    "jacobian_bytes",
    "kept_plan",
    "known_outputs",
    "known_to_be_faster",
    "least_jacobian_bytes",
    "product_kernel",
    "recorded",
    "refuse_causes",
    "remember_call",
    "remember_outputs",
    "repeated",
    "rounding",
]
