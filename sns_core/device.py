"""The device, its precision, compiled networks, threads and memory: all that depends on the machine."""

import contextlib
import ctypes
import functools
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch

from sns_core.errors import UserError

# The memory layout of images (B, C, H, W) in compiled networks.
LAYOUT = torch.channels_last


def select_device(name: str = "auto") -> torch.device:
    """Return the device to compute on. "auto" is a GPU where there is one, else the CPU.

    Raises UserError for a GPU where torch sees none, and for a device that is neither a CPU nor an NVIDIA GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device: {name!r} was asked for, but torch sees no GPU here; use 'auto' or 'cpu'")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"device: {name!r} is none of auto, cpu, cuda and cuda:N")
    return device


def bfloat16_is_fast(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 natively. Other devices emulate it, slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def autocast(device: torch.device, precision: str = "auto") -> contextlib.AbstractContextManager:
    """Return the context manager in which networks run. States and losses stay float32 in any precision.

    `precision`: float32, bfloat16, or auto for bfloat16 where the device is fast at it. Raises UserError for another
    one.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise UserError(f"precision: {precision!r} is none of auto, float32, bfloat16")
    use_bfloat16 = precision_on(device, precision) == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16) if use_bfloat16 else contextlib.nullcontext()


def precision_on(device: torch.device, precision: str) -> str:
    """Return the number format that networks have on a device: `precision`, and for auto the faster one there."""
    if precision != "auto":
        return precision
    return "bfloat16" if bfloat16_is_fast(device) else "float32"


@functools.cache
def can_compile(device: torch.device) -> bool:
    """Return whether networks can be compiled for the device. If not, print once on stderr what is missing."""
    if device.type == "cuda":
        requirement = "a C compiler and the package triton"
        compilers = (os.environ.get("CC", "cc"), "gcc", "clang")
        possible = any(map(shutil.which, compilers)) and importlib.util.find_spec("triton") is not None
    else:
        requirement = "a C++ compiler (g++, or $CXX)"
        possible = shutil.which(os.environ.get("CXX", "g++")) is not None
    if not possible:
        print(f"compile: needs {requirement}, which this machine lacks; networks run uncompiled", file=sys.stderr)
    return possible


def compiled(network: torch.nn.Module, device: torch.device) -> Callable:
    """Return a compiled version of a network that shares its weights, or the network itself where there is no compiler.

    It is compiled for each shape of its input. Outputs and gradients agree with the network's to rounding.
    """
    return torch.compile(network.to(memory_format=LAYOUT), dynamic=False) if can_compile(device) else network


class CompiledForBatchSizes:
    """Compiled versions of functions of batched tensors, for a few batch sizes only.

    A batch is padded to the next power of two, or to the largest batch so far where that is smaller, by repeating its
    last row. The functions take tensors (rows, ...), or nested lists of tensors. They must treat every row by itself,
    and no gradients are computed. On a GPU, each batch size is one CUDA graph. Use: `f, g =
    CompiledForBatchSizes(device, f, g)`.
    """

    def __init__(self, device: torch.device, *functions: Callable):
        self.graphs, self.largest = device.type == "cuda", 1
        mode = "reduce-overhead" if self.graphs else "default"
        self.functions = [torch.compile(f, dynamic=False, fullgraph=True, mode=mode) for f in functions]

    def __iter__(self) -> Iterator[Callable]:
        return (functools.partial(self._call, function) for function in self.functions)

    def bucket(self, rows: int) -> int:
        """Return the number of rows to which a batch of `rows` rows is padded."""
        self.largest = max(self.largest, rows)
        return min(1 << (rows - 1).bit_length(), self.largest)

    def _call(self, function, *arguments):
        rows = len(next(filter(torch.is_tensor, _leaves(arguments))))
        size = self.bucket(rows)

        def padded(tensor):
            if size > rows:
                tensor = torch.cat([tensor, tensor[-1:].expand(size - rows, *tensor.shape[1:])])
            # A tensor in another memory layout would be compiled for again.
            return tensor.contiguous(memory_format=LAYOUT if tensor.ndim == 4 else torch.contiguous_format)

        def unpadded(tensor):
            # The next call of a CUDA graph overwrites the output of this one, so the output is copied.
            return tensor[:rows].clone() if self.graphs else tensor[:rows]

        return _map_tensors(unpadded, function(*_map_tensors(padded, arguments)))


def _leaves(nested) -> Iterator:
    """Yield the items of nested lists and tuples."""
    if isinstance(nested, list | tuple):
        for item in nested:
            yield from _leaves(item)
    else:
        yield nested


def _map_tensors(change: Callable, nested):
    """Return nested lists and tuples with `change` applied to every tensor. Other items stay as they are."""
    if isinstance(nested, list | tuple):
        return type(nested)(_map_tensors(change, item) for item in nested)
    return change(nested) if torch.is_tensor(nested) else nested


def use_threads(threads: int) -> None:
    """Limit torch to `threads` threads, so that jobs of the workflow do not take each other's cores."""
    torch.set_num_threads(max(1, threads))
    keep_memory()


def keep_memory() -> None:
    """Let glibc keep freed memory for later use.

    By default, glibc returns every large temporary to the kernel, and gets it back page by page. The peak memory of a
    process does not change. Without glibc, this function does nothing.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
        trim_threshold, mmap_threshold = -1, -3  # the constants M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_threshold, 2**30)


def copy_out(tensor: torch.Tensor) -> Callable[[], np.ndarray]:
    """Start to copy a tensor of any shape to the host, and return a function that waits for the copy and returns it.

    The GPU computes the next step meanwhile. On the CPU the array shares the tensor's memory.
    """
    if tensor.device.type != "cuda":
        return tensor.numpy
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def wait() -> np.ndarray:
        copied.synchronize()
        return host.numpy()

    return wait
