"""Means and sums of metrics over lifetimes and steps."""

import jax

from components.types import Metrics


def mean_over_axis(metrics: Metrics) -> Metrics:
    """Metrics `[N]` of several lifetimes or steps as one: logs averaged, counts added up."""
    logs = {name: x.mean(0) for name, x in metrics.logs.items()}
    return jax.tree.map(lambda x: x.sum(0), metrics)._replace(logs=logs)
