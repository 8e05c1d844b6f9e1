"""A program for tests: the same learner on one device and on meshes of four virtual ones, and how they differ.

    python -m tests.helpers.divided_learners CASE SEEDSxLIFETIMESxENVIRONMENTS ...

It prints, as JSON, what differs between the first mesh and each of the others.
"""

import json
import math
import re
import sys
from typing import Any

import jax
import numpy as np

from agents.learner import Learner
from agents.placement import Placement, use_cpu_devices
from components.environments.batch import Batch
from components.environments.catch import Catch
from components.meta_optimisers.gradient_estimators.exact import Reverse
from components.meta_optimisers.validation_data import FreshTrajectory
from components.meta_parameters.meta_parameters import MetaParameterSet, Weights
from components.networks.cores import LSTM
from components.networks.network import Network
from components.networks.torsos import MLP
from components.objectives.actor_critic import ActorCritic
from components.objectives.base import Sum
from components.objectives.learned_policy_gradient import LearnedPolicyGradient
from components.objectives.learned_returns import LearnedReturn
from components.objectives.returns import LambdaReturn
from components.objectives.value_regression import ValueRegression
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import make_agent, meta_gradient, update_rule

LEARNED_RETURN = 'objective.returns.weights'


def agent_of(case: str):
    """An agent by name; with more environments than the KL divergence looks at, and so many that what every device
    does with weights is a small part of the operations.
    """
    parts = {
        'mixed': {},
        'reverse': {
            'meta_optimiser': meta_gradient(num_inner_steps=3, gradient_estimator=Reverse()),
            'num_lifetimes': 4,
            'lifetime_length': 12,
        },
        # Everything that is written for a sequence, in one program.
        'frodo': {
            'network': Network(MLP((16,)), LSTM(16), num_groups=2),
            'update_rule': UpdateRule(
                ActorCritic(LearnedReturn(core=LSTM(8), torso=MLP((8,)))), update_rule().optimiser
            ),
            'meta_parameters': MetaParameterSet({LEARNED_RETURN: Weights()}),
            'meta_optimiser': meta_gradient(num_inner_steps=3, outer_data=FreshTrajectory()),
            'num_lifetimes': 2,
            'lifetime_length': 12,
        },
        'lpg': {
            'update_rule': UpdateRule(
                Sum(
                    {
                        'lpg': LearnedPolicyGradient(LSTM(8)),
                        'value': ValueRegression(LambdaReturn(0.9, 0.8), value_head='value'),
                    }
                ),
                update_rule().optimiser,
            ),
            'meta_parameters': MetaParameterSet({'objective.terms.lpg.weights': Weights()}),
        },
    }[case]
    return make_agent(environment=Batch(Catch(4, 3), 40 if case == 'mixed' else 400), unroll_length=8, **parts)


def leaves(tree: Any) -> list[np.ndarray]:
    def array(x: Any) -> np.ndarray:
        return np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

    return [array(x) for x in jax.tree.leaves(tree)]


def trained(case: str, mesh: str, saved: Any = None) -> dict[str, Any]:
    """Ten meta-steps; the last six from a state that was saved after four, on these devices or on others."""
    learner = Learner(
        agent_of(case),
        num_seeds=4 if case == 'reverse' else 2,
        replicas_at_once=1 if case in ('reverse', 'frodo') else None,
        placement=Placement(*map(int, mesh.split('x'))),
    )
    # A compiled program takes nothing that lies elsewhere than it did when it was compiled.
    program = learner._advance = learner.trace().lower().compile()
    learner.advance(4)
    before = learner.save()
    learner.restore(saved or before)
    learner.advance(6)
    collectives = re.findall(r' (all-gather|all-to-all|collective-permute|all-reduce)(?:-start)?\(', program.as_text())
    return {
        'saved': before,
        'leaves': leaves((before['state'], learner.state)),
        'collectives': {name: collectives.count(name) for name in sorted(set(collectives))},
        'operations': program.cost_analysis()['flops'] * learner._num_groups,  # It counts one passage of a loop.
    }


def main(case: str, *meshes: str) -> None:
    use_cpu_devices(4)
    jax.config.update('jax_enable_x64', True)
    first = trained(case, meshes[0])
    others = [trained(case, mesh, first['saved']) for mesh in meshes[1:]]
    found = {}
    for mesh, other in zip(meshes[1:], others, strict=True):
        found[mesh] = {
            'difference': max(
                float(np.max(np.abs(x - y.astype(x.dtype)), initial=0))
                for x, y in zip(first['leaves'], other['leaves'], strict=True)
                if np.issubdtype(x.dtype, np.floating)
            ),
            'same_integers': all(
                np.array_equal(x, y)
                for x, y in zip(first['leaves'], other['leaves'], strict=True)
                if not np.issubdtype(x.dtype, np.floating)
            ),
            'collectives': other['collectives'],
            'share': other['operations'] * math.prod(map(int, mesh.split('x'))) / first['operations'],
        }
    print(json.dumps(found))


if __name__ == '__main__':
    main(*sys.argv[1:])
