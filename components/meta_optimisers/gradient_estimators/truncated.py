"""The meta-gradient through the last update only."""

import jax

from components.component import component
from components.meta_optimisers.gradient_estimators.base import Estimate, reverse_mode
from components.meta_optimisers.gradient_estimators.mixed_mode import in_mixed_mode
from components.optimisers import check_differentiable
from components.types import MetaParams, Params
from components.update_rule import UpdateRule


@component
class Truncated:
    """Through the last update before each outer loss only: weights and optimiser state from before it are constants.

    The estimate of Xu et al. (2018), biased for more than one inner step. It does not save the time of a whole one.
    """

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        check_differentiable(update_rule.optimiser, params)

    def __call__(self, outer_loss, meta_params, num_inner_steps, agent, inner_loop) -> Estimate:
        whole = in_mixed_mode(inner_loop)

        def gradient(values, params, trajectory):
            return whole.gradient(values, jax.lax.stop_gradient(params), trajectory)

        def step(values, gradient, opt_state, params):
            return whole.step(values, gradient, *jax.lax.stop_gradient((opt_state, params)))

        inner_loop = whole._replace(gradient=gradient, step=step)
        return reverse_mode(outer_loss, meta_params, num_inner_steps, agent, inner_loop)
