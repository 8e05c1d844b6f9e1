"""Meta-optimisers: how the meta-parameters are trained."""
