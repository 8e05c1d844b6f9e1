"""Harlow's task: of two objects never seen before, one is rewarded whenever it is chosen, and the other never.

An episode draws a pair of objects, and which of them is rewarded. In every trial they are shown side by side, on sides
that the trial draws, and one is selected: the rewarded one pays +1, the other -1. Nothing tells which is which before
the first selection, and the first selection tells all: an agent that has learned the structure of the task is right
half of the time in the first trial and always from the second on.

The forms of the task, `symbolic.SymbolicHarlow`, `ring.RingHarlow` and `pixels.Harlow`, differ in what an object is and
in how it is selected. Their states have three attributes in common, of which `performance_by_trial` makes the curve
that the task is known for:

    trial      trials finished so far, which is the number, from 0, of the one that is going on. int32.
    selected   whether the step that led here selected an object, and so finished trial number `trial - 1`. Bool.
    correct    whether it was the rewarded one; False where none was selected. Bool.

`Batch` auto-resets: an episode's terminal state is replaced by the next initial state. To measure performance,
step the unbatched environment.

As a control, `shuffle_rewards` has a coin of each trial choose what pays, whatever was selected; `correct` is still
about the object that the episode drew. No performance but one half is possible then.

Source: Harlow (1949); Wang et al. (2016) for the task on a screen, its angles, times and rewards, and the two
pools of 1,000 objects. Objects that are computed, where they took pictures, and the simpler forms are this project's.
"""
