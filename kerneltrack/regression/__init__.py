"""Regression with a fixed kernel: ridge, logistic, gradient flow, the Gaussian process, what each point adds, learning curves.

Everything is by the eigenpairs of Θ(X, X) that :func:`kerneltrack.eigensystem` gives, never by an inverse.
"""

from kerneltrack.regression.attribution import half_sets, linear_datamodelling_score, refitted
from kerneltrack.regression.flow import descent_filter, ensemble_covariance, flow_filter, trained
from kerneltrack.regression.gaussian_process import (
    Evidence,
    Laplace,
    Posterior,
    information_gain,
    laplace,
    log_evidence,
    most_evident,
    posterior,
)
from kerneltrack.regression.learning_curve import effective_regularisation, learning_curve
from kerneltrack.regression.logistic import CrossEntropy, MeanLoss, Through, kernel_newton
from kerneltrack.regression.ridge import influence, kernel_alignment_risk, kernel_regression, leave_one_out, removal
from kerneltrack.regression.task_shift import cross_size, epsilon_rank, tangent_angles

__all__ = [
    "CrossEntropy",
    "Evidence",
    "Laplace",
    "MeanLoss",
    "Posterior",
    "Through",
    "cross_size",
    "descent_filter",
    "effective_regularisation",
    "ensemble_covariance",
    "epsilon_rank",
    "flow_filter",
    "half_sets",
    "influence",
    "information_gain",
    "kernel_alignment_risk",
    "kernel_newton",
    "kernel_regression",
    "laplace",
    "learning_curve",
    "leave_one_out",
    "linear_datamodelling_score",
    "log_evidence",
    "most_evident",
    "posterior",
    "refitted",
    "removal",
    "tangent_angles",
    "trained",
]
