"""Takes meta-steps of a variant whenever a line comes in, and says how long they took; for `revisions.py`.

It is a script of its own that knows no more of the project than how a learner is made, so that it can use the code of
another revision: `python -P worker.py FOLDER GIN_FILE META_STEPS`, the last 0 for as many
as take half a second.
"""

import sys
import time

SECONDS = 0.5
"""That a call should take, about."""


def main() -> None:
    """Prints how many meta-steps a call takes; then, for each line read, its seconds of CPU and of the clock."""
    sys.path.insert(0, sys.argv[1])
    import jax

    from agents.experiments import gin_config
    from agents.experiments.experiment import Experiment
    from agents.learner import Learner

    gin_config.load([sys.argv[2]])
    learner = Learner(gin_config.build(Experiment).agent)

    def take(num_meta_steps: int) -> tuple[float, float]:
        start = time.process_time(), time.perf_counter()
        learner.advance(num_meta_steps)
        jax.block_until_ready(learner.state)
        return time.process_time() - start[0], time.perf_counter() - start[1]

    take(1)
    num_meta_steps = int(sys.argv[3]) or max(1, round(SECONDS / (take(3)[0] / 3)))
    print(num_meta_steps, flush=True)
    for _ in sys.stdin:
        print(*take(num_meta_steps), flush=True)


if __name__ == '__main__':
    main()
