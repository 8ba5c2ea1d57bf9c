"""One-dimensional Fourier transforms of many lines at any strides, by plans that are made once.

torch.fft makes its plan anew at every call and copies whatever is not laid out as it wants. The MKL that torch's builds for
x86 carry needs neither, and gives the same bits. Where torch shows nothing of it (other processors, other systems), `plan`
gives None, and torch.fft it is.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import torch

# Names of mkl_dfti.h.
COMPLEX, REAL, COMPLEX_COMPLEX, INPLACE, NOT_INPLACE = 32, 33, 39, 43, 44
FORWARD_SCALE, BACKWARD_SCALE, NUMBER_OF_TRANSFORMS, CONJUGATE_EVEN_STORAGE, PLACEMENT = 4, 5, 7, 10, 11
INPUT_STRIDES, OUTPUT_STRIDES, INPUT_DISTANCE, OUTPUT_DISTANCE, THREAD_LIMIT = 12, 13, 14, 15, 27

Strides = tuple[int, int]  # from number to number within a line, and from line to line


@functools.cache
def _library() -> ctypes.CDLL | None:
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
    dtype: torch.dtype, real: bool, inverse: bool, length: int, count: int, source: Strides, target: Strides,
    inplace: bool = False,
) -> Callable[[int, int], None] | None:  # fmt: skip
    """A function (address of the source, address of the target) that transforms `count` lines of `length` points.

    Parameters: `dtype` of the real numbers; `real` between real lines and half spectra, else complex; `inverse` with its
    factor 1 / length; strides in numbers of the side's own type. It may be called by several threads at once. None where
    MKL cannot be reached.
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
