"""Count instead of timing: floating-point operations, bytes moved and kernels of a piece of torch code.

Networks are counted on meta tensors, at their full size and in no time; a solver, for one member, by a real step.
"""

import math
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

TRANSFORMS = {"_fft_r2c", "_fft_c2r", "_fft_c2c"}


@dataclass
class OperationCount:
    """Floating-point operations, bytes read and written, and kernels started."""

    flops: float = 0.0
    bytes: float = 0.0
    kernels: float = 0.0

    def __add__(self, count: "OperationCount") -> "OperationCount":
        return OperationCount(self.flops + count.flops, self.bytes + count.bytes, self.kernels + count.kernels)

    def times(self, rows: float, calls: float) -> "OperationCount":
        """Return `calls` times the same for `rows` times as many rows of a batch: kernels grow larger, not more."""
        return OperationCount(self.flops * rows * calls, self.bytes * rows * calls, self.kernels * calls)


class Counter(TorchDispatchMode):
    """Counts what runs inside `with Counter() as counter: ...`; the count is `counter.work`."""

    def __enter__(self):
        self.work = OperationCount()
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        views = any(r.alias_info is not None and not r.alias_info.is_write for r in function._schema.returns)
        if views or function.namespace != "aten" or "empty" in function.__name__:
            return result  # nothing moves
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
        self.work += OperationCount(
            _flops(function, args, kwargs, result), sum(t.numel() * t.element_size() for t in tensors), 1
        )
        return result


def _flops(function, args, kwargs, result) -> float:
    packet = function.overloadpacket
    if packet in flop_registry:
        return flop_registry[packet](*args, **(kwargs or {}), out_val=result)
    if packet.__name__ in TRANSFORMS:
        points = max(args[0].numel(), result.numel())
        side = max(args[0].shape[-1], result.shape[-1])
        real = packet.__name__ != "_fft_c2c"
        return (2.5 if real else 5.0) * points * math.log2(side) * len(args[1])
    return float(result.numel()) if isinstance(result, torch.Tensor) else 0.0
