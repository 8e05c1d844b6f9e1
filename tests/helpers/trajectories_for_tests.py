"""A trajectory of Catch on a 4 x 3 grid with ends of each kind, for tests of what is computed along it."""

import jax
import numpy as np

from components.acting.action_distributions import Categorical
from components.environments.catch import Catch
from components.objectives.base import Unroll
from components.types import Trajectory

SPEC = Catch(4, 3).spec()
NUM_STEPS, BATCH_SIZE = 6, 3
# A termination in the middle of column 0, a truncation whose restart is step 3 of column 1, nothing in column 2.
DISCOUNT = np.ones((NUM_STEPS, BATCH_SIZE), np.float32)
DISCOUNT[2, 0] = DISCOUNT[3, 1] = 0
MASK = np.ones((NUM_STEPS, BATCH_SIZE), np.float32)
MASK[3, 1] = 0


def make_data(seed=0):
    random = np.random.default_rng(seed)
    shape = (NUM_STEPS, BATCH_SIZE)
    values = random.normal(size=(NUM_STEPS + 1, BATCH_SIZE)).astype(np.float32)
    log_rho = random.normal(size=shape).astype(np.float32)
    trajectory = Trajectory(
        observation=random.uniform(size=(NUM_STEPS + 1, BATCH_SIZE, 4, 3)).astype(np.float32),
        first=np.zeros((NUM_STEPS + 1, BATCH_SIZE), bool),
        action=random.integers(3, size=shape),
        reward=(3 * random.normal(size=shape) * MASK).astype(np.float32),
        discount=DISCOUNT,
        mask=MASK,
        behaviour_policy=Categorical(np.zeros((*shape, 3), np.float32)),
        core_state={},
    )
    return values, log_rho, trajectory


def targets_of(objective, outputs, trajectory):
    """Targets of an objective that reads neither weights nor state."""
    return objective.targets(Unroll(outputs, trajectory, None, None), objective.init(None))[0]


def without_last(outputs):
    """Outputs at the steps of a trajectory, which a loss reads."""
    return jax.tree.map(lambda x: x[:-1], outputs)
