"""The I-maze: a goal in one of four alcoves, which has to be found once in an episode and can be gone back to after
that.

    ###########      # wall, . floor, s where the agent starts and is put back, G an alcove
    #G#######G#
    #.........#
    #####.#####
    #####.#####
    #####s#####
    #####.#####
    #####.#####
    #.........#
    #G#######G#
    ###########

An episode draws one of the alcoves, and has the goal there. Reaching it pays +10 and puts the agent back to `s`, so
that it can be reached again and again until the episode terminates, after a fixed number of steps. Four apples in the
corridor that leads through `s` pay +1 each, and come back whenever the goal is reached. An alcove is a recess: who
passes by in the corridors does not see what is in it, and the four look alike but for the goal.

All alcoves are 8 cells from `s`. Visiting one after the other by the shortest way finds the goal after 23 cells on
average; with a memory of its place the way is 8. `goal_latencies` tells both from episodes; a policy without memory has
one for the other.

States of both forms, `symbolic.SymbolicIMaze` and `pixels.IMaze`, have these attributes in common, int32 but for the
last:

    num_steps             of the episode so far.
    num_goals             goals reached so far in the episode.
    steps_since_respawn   steps since the goal was reached, or the episode began.
    reached_goal          whether the step that led here reached the goal. Bool.

`Batch` auto-resets: an episode's terminal state is replaced by the next initial state. To measure latencies, step
the unbatched environment.

Source: Mirowski et al. (2016) and Wang et al. (2016) for the maze's form, the goal that is constant in an episode
and random across them, the way back to the central corridor, apples there, the rewards, and the size of a view. The
cells, that alcoves are recesses, all motion and how it looks are this project's.
"""
