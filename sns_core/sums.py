"""Sums of more numbers than fit into memory, to the bits that numpy gives for one array of them all.

numpy sums an array that lies in one piece by halves: a sum is that of its first half plus that of its second, down to
128 numbers. Here the numbers come in blocks. This module imports numpy alone.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

CACHED = 2**16  # numbers that are summed at once: with their squares they fit into a processor's cache; at least 128


def pairwise_sum(blocks: Iterable[np.ndarray], count: int) -> np.ndarray:
    """Return the sums (quantity,) of `count` numbers per quantity, which come in successive blocks (quantity, ...)."""
    return _sum_by_halves(_taken(iter(blocks)), count)


def field_means(blocks: Iterator[np.ndarray], count: int) -> np.ndarray:
    """Return the means (quantity, layer) over all `count` frames in blocks (quantity, time, layer, y, x).

    They are those of `numpy.mean` over one array of all frames, which adds frame after frame where there are several
    layers.
    """
    first = next(blocks)
    blocks, layers, points = itertools.chain([first], blocks), first.shape[2], first.shape[3] * first.shape[4]
    if layers > 1:
        total = np.concatenate([block.sum((-2, -1)) for block in blocks], 1).sum(1)
    else:
        total = pairwise_sum(blocks, count * points)[:, None]
    return total / (count * points)


def mean_of_sum(total: np.ndarray, count: int) -> np.ndarray:
    """Return means (...) for sums (...) of `count` numbers each, with the bits and the type of `numpy.mean`.

    `numpy.mean` divides in double precision.
    """
    return (total / np.float64(count)).astype(total.dtype)


def _sum_by_halves(take: Callable[[int], np.ndarray], count: int) -> np.ndarray:
    if count <= CACHED:
        return take(count).sum(1)
    half = count // 2 - count // 2 % 8  # numpy's first half is a multiple of 8 numbers
    return _sum_by_halves(take, half) + _sum_by_halves(take, count - half)


def _taken(blocks: Iterator[np.ndarray]) -> Callable[[int], np.ndarray]:
    """Return a function that takes the next numbers (quantity, n) out of blocks (quantity, ...)."""
    rest = np.empty((0, 0))

    def take(count: int) -> np.ndarray:
        nonlocal rest
        while rest.shape[1] < count:
            block = next(blocks)
            block = block.reshape(len(block), -1)
            rest = np.concatenate([rest, block], 1) if rest.size else block
        taken, rest = rest[:, :count], rest[:, count:]
        return taken

    return take
