"""Small agents that tests are made of."""

import dataclasses

import optax

from agents.agent import Agent
from components.environments.batch import Batch
from components.environments.catch import Catch
from components.meta_optimisers.meta_gradient import MetaGradient
from components.meta_optimisers.validation_loss import ValidationLoss
from components.meta_parameters.bijectors import Sigmoid
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar
from components.networks.network import Network
from components.networks.torsos import MLP
from components.objectives.actor_critic import ActorCritic
from components.objectives.returns import LambdaReturn
from components.optimisers import Optimiser
from components.update_rule import UpdateRule

DISCOUNT = 'objective.returns.discount'


def update_rule(**kwargs) -> UpdateRule:
    return UpdateRule(ActorCritic(LambdaReturn(0.9, 0.8)), Optimiser(optax.scale_by_rms(), 1e-3), **kwargs)


def validation_loss(**kwargs) -> ValidationLoss:
    objective = ActorCritic(LambdaReturn(1.0, 1.0), value_cost=0.3, entropy_cost=0.0)
    return ValidationLoss(**{'objective': objective, **kwargs})


def meta_gradient(**kwargs) -> MetaGradient:
    """Fields of either `MetaGradient` or its `ValidationLoss`."""
    names = {field.name for field in dataclasses.fields(ValidationLoss)}
    of_loss = {name: value for name, value in kwargs.items() if name in names}
    others = {name: value for name, value in kwargs.items() if name not in names}
    return MetaGradient(**{'outer_loss': validation_loss(**of_loss), 'optimiser': optax.adam(1e-2), **others})


def make_agent(**kwargs) -> Agent:
    """Catch on a 4 x 3 grid with a learned discount; any part can be replaced."""
    parts = {
        'environment': Batch(Catch(4, 3), 5),
        'network': Network(MLP((16,))),
        'update_rule': update_rule(),
        'unroll_length': 4,
        'meta_parameters': MetaParameterSet({DISCOUNT: Scalar(Sigmoid())}),
        'meta_optimiser': meta_gradient(),
    }
    return Agent(**{**parts, **kwargs})
