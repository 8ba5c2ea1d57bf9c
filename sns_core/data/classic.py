"""The length that a netCDF-3 file must have by its header.

The netCDF library reads a classic file that was cut off, such as by a copy that did not end, without an error: where
bytes are missing, it returns those that it read before. netCDF-4 files and Zarr stores have checks of their own.
"""

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}  # type of the format -> bytes of a number
STREAMING = {4: 0xFFFFFFFF, 8: 0xFFFFFFFFFFFFFFFF}  # number of records that a writer left open


def lacking_bytes(path: Path) -> int:
    """Return how many bytes a netCDF-3 file lacks at its end; 0 for a whole file, and for a file of another format.

    The bytes that fill up the last variable to a multiple of 4 are no loss.
    """
    with path.open("rb") as file:
        start = file.read(4)
        if start[:3] != b"CDF" or start[3:] not in (b"\x01", b"\x02", b"\x05"):
            return 0
        try:
            end = _end_of_data(file, version=start[3])
        except (struct.error, KeyError, IndexError):
            return 1  # the header itself is cut off
    return max(0, end - path.stat().st_size)


def _end_of_data(file: BinaryIO, version: int) -> int:
    """Return the position after the last number of a netCDF-3 file, which stands behind its first four bytes."""
    width = 8 if version == 5 else 4  # bytes of a count

    def number(size: int = width) -> int:
        return struct.unpack(">Q" if size == 8 else ">I", file.read(size))[0]

    records = number()
    lengths = _listed(number, lambda: (_skip(file, number()), number())[1])
    _listed(number, lambda: _skip_attribute(file, number))
    variables = _listed(number, lambda: _variable(file, number, version))
    end, first, of_record = file.tell(), None, []
    for dims, size, begin in variables:
        shape = [lengths[dim] for dim in dims]
        if shape and shape[0] == 0:  # the dimension that grows
            of_record.append(size * math.prod(shape[1:]))
            first = begin if first is None else min(first, begin)
        else:
            end = max(end, begin + size * math.prod(shape))
    if of_record and records not in (0, STREAMING[width]):
        # A file with one such variable does not fill it up; the last variable of the last record may lack the filling.
        stride = sum(map(_padded, of_record)) if len(of_record) > 1 else of_record[0]
        end = max(end, first + records * stride - (_padded(of_record[-1]) - of_record[-1]) * (len(of_record) > 1))
    return end


def _listed(number: Callable, item: Callable) -> list:
    """Return the items of a list of the header: a tag of four bytes, the count, and each item."""
    number(4)
    return [item() for _ in range(number())]


def _variable(file: BinaryIO, number: Callable, version: int) -> tuple[list[int], int, int]:
    """Return the numbers of the dimensions of a variable, the bytes of one of its numbers, and where it begins."""
    _skip(file, number())
    dims = [number() for _ in range(number())]
    _listed(number, lambda: _skip_attribute(file, number))
    size = SIZES[number(4)]
    number()  # its bytes, which overflow for large variables
    return dims, size, number(4 if version == 1 else 8)


def _skip_attribute(file: BinaryIO, number: Callable) -> None:
    _skip(file, number())
    size = SIZES[number(4)]
    _skip(file, size * number())


def _skip(file: BinaryIO, length: int) -> None:
    file.seek(_padded(length), 1)


def _padded(length: int) -> int:
    """Return a number of bytes, filled up to a multiple of 4."""
    return -(-length // 4) * 4
