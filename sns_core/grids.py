"""The points of a grid: N for N x N points, or (H, W), equally far apart along both axes. This module imports nothing.

(1, N) is a single row of points: the grid of a field in one space dimension, along x.
"""

from collections.abc import Sequence

Grid = int | Sequence[int]


def grid_shape(resolution: Grid) -> tuple[int, int]:
    """Return the points (H, W) of a grid along y and x."""
    return (resolution, resolution) if isinstance(resolution, int) else (int(resolution[0]), int(resolution[1]))


def grid_of(shape: Sequence[int]) -> Grid:
    """Return the grid of fields (..., H, W): N where they are square, else [H, W], as JSON holds it."""
    height, width = shape[-2:]
    return int(width) if height == width else [int(height), int(width)]


def per_axis(number: int, resolution: Grid) -> tuple[int, int]:
    """Return `number` for each axis (y, x) of a grid, but 1 for an axis with one point, along which nothing can be halved."""
    height, width = grid_shape(resolution)
    return (number if height > 1 else 1, number if width > 1 else 1)


def with_longer_side(resolution: Grid, points: int) -> Grid:
    """Return a grid of the same shape with another number of points along its longer side; a single row stays a single row."""
    longer = longer_side(resolution)
    return grid_of([side if side == 1 else side * points // longer for side in grid_shape(resolution)])


def grid_text(resolution: Grid) -> str:
    """Return the points of a grid in words: "32 x 64", or "64 points" for a single row."""
    height, width = grid_shape(resolution)
    return f"{width} points" if height == 1 else f"{height} x {width}"


def longer_side(resolution: Grid) -> int:
    """Return the points along the longer side of a grid."""
    return max(grid_shape(resolution))
