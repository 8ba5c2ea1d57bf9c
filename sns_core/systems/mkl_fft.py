"""One-dimensional Fourier transforms of many lines at any strides, by plans that are made once, with Intel's MKL.

`torch.fft` makes a new plan at every call, and copies data that are not laid out as it needs them. The MKL inside
torch's x86 builds needs neither when it is called directly, and returns the same bits. Where torch contains no MKL (on
other processors and systems), `plan` returns None, and callers use `torch.fft`.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import torch

# Constants of MKL's header mkl_dfti.h, under the names there.
COMPLEX, REAL, COMPLEX_COMPLEX, INPLACE, NOT_INPLACE = 32, 33, 39, 43, 44
FORWARD_SCALE, BACKWARD_SCALE, NUMBER_OF_TRANSFORMS, CONJUGATE_EVEN_STORAGE, PLACEMENT = 4, 5, 7, 10, 11
INPUT_STRIDES, OUTPUT_STRIDES, INPUT_DISTANCE, OUTPUT_DISTANCE, THREAD_LIMIT = 12, 13, 14, 15, 27

Strides = tuple[int, int]  # the distance between two numbers of a line, and between two lines


@functools.cache
def _library() -> ctypes.CDLL | None:
    """Return torch's library with the functions of MKL, or None where it has none."""
    if not torch.backends.mkl.is_available():
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        for name in ("DftiCreateDescriptor_s_1d", "DftiCreateDescriptor_d_1d", "DftiSetValue", "DftiCommitDescriptor"):
            getattr(library, name)
        for name in ("DftiComputeForward", "DftiComputeBackward"):
            getattr(library, name).argtypes = [ctypes.c_void_p] * 3
    except (OSError, AttributeError):
        return None
    return library


@functools.cache
def plan(
    dtype: torch.dtype,
    real: bool,
    inverse: bool,
    length: int,
    count: int,
    source: Strides,
    target: Strides,
    inplace: bool = False,
) -> Callable[[int, int], None] | None:
    """Return a function (address of the source, address of the target) that transforms `count` lines of `length`
    points.

    `dtype`: the type of the real numbers. `real`: whether one side is real lines and the other half spectra; otherwise,
    both are complex. `inverse`: whether the transform is the inverse one, with the factor 1 / length. `source`,
    `target`: strides, in numbers of that side's type. Several threads may call the function at once. Returns None where
    MKL cannot be used. A call of the function raises RuntimeError where MKL reports a failure.
    """
    library = _library()
    if library is None:
        return None
    handle = ctypes.c_void_p()
    create = library.DftiCreateDescriptor_s_1d if dtype == torch.float32 else library.DftiCreateDescriptor_d_1d
    settings = {
        PLACEMENT: ctypes.c_int(INPLACE if inplace else NOT_INPLACE),
        NUMBER_OF_TRANSFORMS: ctypes.c_long(count),
        INPUT_STRIDES: (ctypes.c_long * 2)(0, source[0]),
        OUTPUT_STRIDES: (ctypes.c_long * 2)(0, target[0]),
        INPUT_DISTANCE: ctypes.c_long(source[1]),
        OUTPUT_DISTANCE: ctypes.c_long(target[1]),
        BACKWARD_SCALE if inverse else FORWARD_SCALE: ctypes.c_double(1 / length if inverse else 1.0),
        THREAD_LIMIT: ctypes.c_long(1),
    }
    if real:
        settings[CONJUGATE_EVEN_STORAGE] = ctypes.c_int(COMPLEX_COMPLEX)
    failed = create(ctypes.byref(handle), ctypes.c_int(REAL if real else COMPLEX), ctypes.c_long(length))
    for name, value in settings.items():
        failed = failed or library.DftiSetValue(handle, ctypes.c_int(name), value)
    if failed or library.DftiCommitDescriptor(handle):
        return None
    compute = library.DftiComputeBackward if inverse else library.DftiComputeForward

    def transform(source: int, target: int) -> None:
        if status := compute(handle, source, target):
            raise RuntimeError(f"a Fourier transform of MKL failed with status {status}")

    return transform
