"""Prints what rliable computes of a fixed table, for tests/agents/analysis/test_comparison.py.

rliable does not import with pandas 3, so that it has an environment of its own:

    python -m venv rliable && rliable/bin/pip install rliable==1.2.0 'pandas<3'
    rliable/bin/python tests/helpers/rliable_numbers.py > tests/data/rliable.json
"""

import json

import numpy as np

SCORES = {
    'three': [0.2, 0.9, 0.4],
    'five': [0.91, 0.99, 0.33, 0.97, 0.95],
    'eight': [0.51, 0.48, 0.77, 0.62, 0.55, 0.11, 0.93, 0.58],
    'ten': [17.1, 24.2, 33.9, 34.5, 16.8, 25.0, 31.7, 29.3, 34.1, 24.2],
    'ten_others': [24.2, 36.0, 33.9, 30.5, 35.8, 29.0, 34.7, 24.2, 35.1, 34.2],
}
PAIRS = [('five', 'three'), ('eight', 'five'), ('three', 'eight'), ('ten', 'ten_others')]
THRESHOLDS = [0.0, 0.4, 0.5, 0.9, 0.95]
NUM_DRAWS = 5_000


def main():
    from rliable import library, metrics

    tables = {name: np.array(scores)[:, None] for name, scores in SCORES.items()}

    def interquartile_mean(scores):
        return np.array([metrics.aggregate_iqm(scores)])

    means, intervals = library.get_interval_estimates(tables, interquartile_mean, reps=NUM_DRAWS)
    by_pair = {f'{first},{second}': (tables[first], tables[second]) for first, second in PAIRS}
    probabilities, of_probabilities = library.get_interval_estimates(
        by_pair, metrics.probability_of_improvement, reps=NUM_DRAWS
    )
    profiles, of_profiles = library.create_performance_profile(
        {name: tables[name] for name in ('three', 'five', 'eight')}, np.array(THRESHOLDS), reps=NUM_DRAWS
    )
    found = {
        'interquartile_mean': {n: [float(means[n][0]), *map(float, intervals[n][:, 0])] for n in tables},
        'probability_of_improvement': {
            n: [float(probabilities[n]), *map(float, np.ravel(of_probabilities[n]))] for n in by_pair
        },
        'performance_profile': {n: np.concatenate([profiles[n][None], of_profiles[n]]).tolist() for n in profiles},
    }
    print(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
