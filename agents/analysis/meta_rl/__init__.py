"""Deep meta-RL: what agents that learn within an episode are measured by, by task family, with baselines."""
