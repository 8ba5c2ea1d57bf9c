"""Device, precision, compilation, threads, random streams and progress: what depends on the machine, told once.

Random numbers are addressed, never consumed in order: every draw comes from a generator seeded by a hash of
(run seed, purpose, member, step). Resuming therefore needs a step count and no generator state, a member's
numbers do not depend on who else is in its batch, and work may be split over jobs without changing a bit.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from sns_core.errors import DamagedFile as DamagedFile  # named here, too, for whoever computes
from sns_core.errors import UserError as UserError

Generators = torch.Generator | Sequence[torch.Generator]


def select_device(name: str = "auto") -> torch.device:
    """The device to compute on: `auto` takes a GPU when there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device: {name!r} was asked for, but torch sees no GPU here; use 'auto' or 'cpu'")
    return torch.device(name)


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively; elsewhere it is emulated and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def autocast(device: torch.device, precision: str = "auto"):
    """Context in which networks run: bfloat16 where it is native (`auto`), states and losses stay float32."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise UserError(f"precision: {precision!r} is none of auto, float32, bfloat16")
    use = precision == "bfloat16" or (precision == "auto" and bfloat16_is_fast(device))
    return torch.autocast(device.type, dtype=torch.bfloat16) if use else contextlib.nullcontext()


@functools.cache
def can_compile(device: torch.device) -> bool:
    """Whether networks can be compiled for the device; where not, one line on stderr says what is missing."""
    if device.type == "cuda":
        wanted = "a C compiler and the package triton"
        found = any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")))
        found = found and importlib.util.find_spec("triton") is not None
    else:
        wanted = "a C++ compiler (g++, or $CXX)"
        found = shutil.which(os.environ.get("CXX", "g++")) is not None
    if not found:
        print(f"compile: needs {wanted}, which this machine lacks; networks run as they are", file=sys.stderr)
    return found


def compiled(network: torch.nn.Module, device: torch.device) -> Callable:
    """A network with its own weights, compiled for each shape that it is called with: the same to rounding, gradients too.
    Where there is no compiler, as it is."""
    return torch.compile(network.to(memory_format=LAYOUT), dynamic=False) if can_compile(device) else network


class CompiledForBatchSizes:
    """Functions of tensors (rows, ...), or nested lists of them, compiled for few numbers of rows: those of a call are filled
    up to the next power of two, or to the most of any call yet, by copies of the last.

    Every row must be treated by itself, and no gradient be asked for: on a GPU each size is a CUDA graph. Use:
    `a, b = CompiledForBatchSizes(device, a, b)`.
    """

    def __init__(self, device: torch.device, *functions: Callable):
        self.graphs, self.most = device.type == "cuda", 1
        mode = "reduce-overhead" if self.graphs else "default"
        self.functions = [torch.compile(f, dynamic=False, fullgraph=True, mode=mode) for f in functions]

    def __iter__(self) -> Iterator[Callable]:
        return (functools.partial(self._call, function) for function in self.functions)

    def bucket(self, rows: int) -> int:
        """The number of rows that `rows` are filled up to."""
        self.most = max(self.most, rows)
        return min(1 << (rows - 1).bit_length(), self.most)

    def _call(self, function, *arguments):
        rows = len(next(filter(torch.is_tensor, _leaves(arguments))))
        size = self.bucket(rows)

        def filled(tensor):
            if size > rows:
                tensor = torch.cat([tensor, tensor[-1:].expand(size - rows, *tensor.shape[1:])])
            # Another layout would be another graph.
            return tensor.contiguous(memory_format=LAYOUT if tensor.ndim == 4 else torch.contiguous_format)

        def kept(tensor):
            # The next call of a CUDA graph writes where this one did.
            return tensor[:rows].clone() if self.graphs else tensor[:rows]

        return _each(kept, function(*_each(filled, arguments)))


LAYOUT = torch.channels_last  # of images in compiled networks


def _leaves(nested) -> Iterator:
    if isinstance(nested, list | tuple):
        for item in nested:
            yield from _leaves(item)
    else:
        yield nested


def _each(change: Callable, nested):
    """Nested lists of tensors and Nones with every tensor changed."""
    if isinstance(nested, list | tuple):
        return type(nested)(_each(change, item) for item in nested)
    return change(nested) if torch.is_tensor(nested) else nested


class ProcessGroup:
    """The processes that train one model together, as torchrun starts them; alone without it.

    Every process draws the whole batch and learns from its own rows, so what is learnt depends on the number of processes
    in the order of a sum alone.
    """

    def __init__(self, device: torch.device):
        self.rank, self.size = (
            int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1))
        )
        self.device = device
        if device.type == "cuda" and self.size > 1:
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(self.device)

    def __enter__(self) -> "ProcessGroup":
        if self.size > 1:
            torch.distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(self, *_) -> None:
        if self.size > 1:
            torch.distributed.destroy_process_group()

    def rows(self, batch: int) -> slice:
        """This process's rows of a batch; UserError where they cannot be shared out evenly."""
        if batch % self.size:
            raise UserError(f"training.batch: {batch} does not divide among {self.size} devices")
        share = batch // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    @torch.no_grad()
    def average(self, tensors: list[torch.Tensor], *numbers: float) -> list[float]:
        """Replace tensors by their mean over all processes, in one message; the means of further numbers."""
        if self.size == 1:
            return list(numbers)
        flat = torch.cat([*(t.reshape(-1) for t in tensors), torch.tensor(numbers, device=self.device)])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        parts = flat.split([*(t.numel() for t in tensors), len(numbers)])
        for tensor, part in zip(tensors, parts[:-1], strict=True):
            tensor.copy_(part.view_as(tensor))
        return parts[-1].tolist()


def use_threads(threads: int) -> None:
    """Bound torch's intra-operator threads; Snakemake's `threads` arrives here, so jobs do not crowd each other."""
    torch.set_num_threads(max(1, threads))
    keep_memory()


def keep_memory() -> None:
    """Let glibc keep freed memory for what comes next, instead of giving every large temporary back to the kernel and
    asking for it anew, page by page. A process grows to its peak as before; elsewhere this does nothing."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
        trim_threshold, mmap_threshold = -1, -3  # of malloc.h
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_threshold, 2**30)


def derive_seed(*parts) -> int:
    """A 63-bit seed from any printable parts, the same on every machine and Python version.

    Torch's generator on a CPU takes its low 32 bits: of n addresses about n^2 / 2^33 pairs share a stream, one
    pair of 100,000 addresses. Harmless where each draws noise of its own, but no proof that no two are alike.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*parts, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator at the address `parts` (see the module docstring)."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


class MemberStreams:
    """One random stream a member, re-addressed at every step: `streams.at(step)` lists the generators.

    Parameters: the address of the run (any parts), the members' own numbers (not their rows in the batch).
    """

    def __init__(self, *address, members: Sequence[int], device: torch.device | str = "cpu"):
        self.address, self.members = address, list(members)
        self._generators = [torch.Generator(device=device) for _ in self.members]

    def at(self, step: int) -> list[torch.Generator]:
        for member, stream in zip(self.members, self._generators, strict=True):
            stream.manual_seed(derive_seed(*self.address, member, step))
        return self._generators


def spawn(generator: Generators, members: int) -> list[torch.Generator]:
    """One generator a member: a list is passed on, a single generator seeds as many as are asked for."""
    if not isinstance(generator, torch.Generator):
        streams = list(generator)
        if len(streams) != members:
            raise ValueError(f"{len(streams)} random streams for {members} members; give one a member")
        return streams
    seeds = torch.randint(2**62, (members,), generator=generator, device=generator.device).tolist()
    return [torch.Generator(device=generator.device).manual_seed(seed) for seed in seeds]


def normal(streams: Sequence[torch.Generator | None], shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Standard normal numbers (len(streams), *shape), each row from its own stream, with the type of `like`; zeros where
    a row has None."""
    device = next(stream.device for stream in streams if stream is not None)
    rows = torch.empty(len(streams), *shape, dtype=like.dtype, device=device)
    for row, stream in zip(rows, streams, strict=True):
        row.zero_() if stream is None else row.normal_(generator=stream)
    return rows.to(like.device)


def copy_out(tensor: torch.Tensor) -> Callable[[], np.ndarray]:
    """Start to copy a tensor to the host; what is returned waits for the end of it and gives the array."""
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


def progress(total: int, label: str, start: int = 0, every: float = 10.0, aloud: float = 30.0) -> Iterator[int]:
    """Yield start .. total - 1, telling on stderr every few seconds the rate and the time left.

    On a terminal the line replaces itself. Where stderr goes to a log, a job that lasts longer than `aloud` seconds tells
    as often on stdout, too, so that whoever waits sees it live.
    """
    began = last = spoken = time.monotonic()
    for index in range(start, total):
        yield index
        now = time.monotonic()
        if now - last >= every:
            last = now
            rate = (index + 1 - start) / (now - began)
            left = (total - index - 1) / rate
            line = f"{label}: {index + 1}/{total}, {rate:.1f} a second, {left / 60:.1f} min left"
            print(line, file=sys.stderr, end="\r" if sys.stderr.isatty() else "\n", flush=True)
            if now - spoken >= aloud and not sys.stderr.isatty():
                spoken = now
                print(line, flush=True)
