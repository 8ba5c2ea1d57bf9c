"""Evaluation of methods beside their rollouts: denoisers on held-out pairs, wall time, the solver on coarser grids."""
