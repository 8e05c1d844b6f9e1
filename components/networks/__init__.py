"""Networks: a torso, an optional recurrent core, and the heads that an objective asks for."""
