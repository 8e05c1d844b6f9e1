"""Loops written by hand, each one jitted function for one agent: what the learner's speed is compared with.

None of them uses the project's networks, objectives or learner, so that they stay what they are when those change.
"""
