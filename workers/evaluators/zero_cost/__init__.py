"""Low-fidelity signals of a subnet: what is known of it without, or with little, learning.

`config` has the names and the settings, `signals` computes all that are wanted, `subnet` is the forward pass with
its activations in view, and each other module holds the signals that share their passes:

    gradients     grad_norm, snip, grasp, fisher, plain, l2_norm   one loss, its gradient, a Hessian-vector product
    jacobian      jacob_cov, naswot, epe_nas                       one forward pass, derivatives by the images
    data_free     synflow, zen                                     a pass of one image; two of noise
    low_fidelity  one_shot, few_steps                              the fitness with fewer steps on fewer tasks

Signals have their own signs and scales: more is not always better.
"""

from across.workers.evaluators.zero_cost.config import (
    SIGNALS,
    ZERO_COST_SIGNALS,
    FewStepsConfig,
    SignalsConfig,
)
from across.workers.evaluators.zero_cost.signals import compute_signals

__all__ = ["SIGNALS", "ZERO_COST_SIGNALS", "FewStepsConfig", "SignalsConfig", "compute_signals"]
