"""The points of a grid: N for N x N points, or (H, W), equally far apart along both axes. This module imports nothing."""

from collections.abc import Sequence

Grid = int | Sequence[int]


def grid_shape(resolution: Grid) -> tuple[int, int]:
    """Return the points (H, W) of a grid along y and x."""
    return (resolution, resolution) if isinstance(resolution, int) else (int(resolution[0]), int(resolution[1]))


def grid_of(shape: Sequence[int]) -> Grid:
    """Return the grid of fields (..., H, W): N where they are square, else [H, W], as JSON holds it."""
    height, width = shape[-2:]
    return int(width) if height == width else [int(height), int(width)]


def longer_side(resolution: Grid) -> int:
    """Return the points along the longer side of a grid."""
    return max(grid_shape(resolution))
