"""Means and sums of metrics over lifetimes and steps."""

import jax

from components.types import Logs, Metrics


def mean_over_axis(metrics: Metrics) -> Metrics:
    """Metrics `[N]` of several lifetimes or steps as one: logs averaged, counts added up."""
    logs = {name: x.mean(0) for name, x in metrics.logs.items()}
    return jax.tree.map(lambda x: x.sum(0), metrics)._replace(logs=logs)


def with_logs(metrics: Metrics, logs: Logs) -> Metrics:
    """Metrics with more logs, of other names; what was given stays as it is."""
    return metrics._replace(logs={**metrics.logs, **logs})
