"""An agent that predicts the values of a random walk."""

import optax

from components.acting.policies import FixedPolicy
from components.environments.batch import Batch
from components.environments.random_walk import RandomWalk
from components.meta_optimisers.base import Fixed
from components.meta_parameters.meta_parameters import MetaParameterSet
from components.monitors import StateValueError
from components.networks.network import Network
from components.networks.torsos import MLP
from components.objectives.returns import LambdaReturn
from components.objectives.value_regression import ValueRegression
from components.optimisers import Optimiser
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import make_agent


def predictor(switch_every=6, **kwargs):
    objective = ValueRegression(LambdaReturn(1.0, 1.0), value_head='value', policy=FixedPolicy((0.5, 0.5)))
    parts = {
        'environment': Batch(RandomWalk(switch_every=switch_every), 1),
        'network': Network(MLP(()), head_bias=False),
        'update_rule': UpdateRule(objective, Optimiser(optax.identity(), 0.5)),
        'meta_parameters': MetaParameterSet(),
        'meta_optimiser': Fixed(),
        'policy': FixedPolicy((0.5, 0.5)),
        'monitors': {'value_error': StateValueError()},
        'unroll_length': 4,
    }
    return make_agent(**{**parts, **kwargs})
