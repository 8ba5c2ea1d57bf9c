"""Parts of the solver's long run on another grid: steps that settle, and equal parts whose spectra count.

Imports nothing, because the workflow asks how many steps count before anything runs.
"""

SETTLING = 5  # the first fifth of the long run is left out, so that a grid forgets the states of another grid
PARTS = 4  # the rest is cut into four parts, each with a spectrum of its own


def settled_and_length(steps: int) -> tuple[int, int]:
    """Return how many of the steps of a long run are left out, and the number of steps of each of its parts."""
    settled = steps // SETTLING
    return settled, max(1, (steps - settled) // PARTS)


def counted_steps(steps: int) -> int:
    """Return how many of the steps of a long run its spectrum is a mean over."""
    return PARTS * settled_and_length(steps)[1]
