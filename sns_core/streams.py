"""Random streams. Every random number has an address, and is never drawn in the order of some other work.

A generator is seeded by a hash of an address: (run seed, purpose, ...). A job that resumes therefore needs a step
number and no state of a generator, the numbers of a member do not depend on the batch that it is in, and work may be
split over jobs without a change of a single bit. All purposes and the rest of their addresses:

    purpose          rest of the address            drawn
    "initial state"  split, member                  initial states of the data, the split "reference" among them
                                                    (data.trajectories)
    "anchors"        none                           true frames for resampled anchors (data.pairs)
    "weights"        model, or "theory"             initial weights of a network (training.trainer, theory)
    "train"          model, step                    batch, levels and noise of a training step (training.trainer)
    "validation"     model, batch                   batch, levels and noise of the validation (training.trainer)
    "calibration"    model                          true pairs to calibrate the level heads (training.trainer)
    "closed loop"    method, member, step           levels and noise of the loop of a calibration (evaluation.calibration)
    "departure"      method, row of the pair, 1     levels and noise of single refinements (evaluation.calibration)
    "rollout"        method, member, step           levels and noise of a rollout (rollout.chain, library)
    "ensemble"       method, start, member, step    levels and noise of an ensemble (rollout.ensemble)
    "disturbance"    start, member                  disturbances of initial states (rollout.ensemble)
    "lyapunov"       method, member 0, step         levels and noise that all disturbed states share (evaluation.lyapunov)
    "lyapunov disturbances"  method             first directions of the disturbances (library)
    "cost"           method, member, step           levels and noise of a timed rollout (evaluation.timing)
    "grids"          member, step                   nothing: solvers draw none (evaluation.coarse_solver)
    "diagnose"       none                           pairs, anchors and noise (evaluation.denoiser_diagnosis)
    "amplitudes"     without a seed               frames and noise of signed amplitudes (evaluation.denoiser_diagnosis)
    "restoring"      row of the pair                noise of restored pairs (evaluation.denoiser_diagnosis)
    "one step"       row of the pair                noise of single refinements (evaluation.denoiser_diagnosis)
    "unused"         member, without a seed         anchors, and levels by the read-out "sample" (evaluation.denoiser_diagnosis)
    "theory"         "held out", or "train", step   pairs, levels and noise of a Gaussian process (theory)
    "score"          none                           pairs of a Gaussian process (theory)
    "drift"          none                           frames of a Gaussian process (theory)
    "direction"      none                           drifts of these frames (theory)

All addresses but those without a seed start with the run's seed. A new purpose needs a row in this table: tests/unit/test_streams.py
compares the table with the code.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Generators = torch.Generator | Sequence[torch.Generator]


def derive_seed(*parts) -> int:
    """Return a 63-bit seed for any printable parts, the same on every machine and with every version of Python.

    Torch's generator on a CPU uses the low 32 bits of a seed. Among n addresses, about n^2 / 2^33 pairs therefore share
    a stream: one pair of 100,000 addresses. That is harmless where each stream is noise for one purpose, but streams of
    different addresses are not guaranteed to differ.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*parts, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new generator at the address `parts`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


class MemberStreams:
    """One random stream per member, with a new address at every step.

    Parameters: `address`, any parts; `members`, the numbers of the members in the run (not their rows in the batch);
    `device` of the generators.
    """

    def __init__(self, *address, members: Sequence[int], device: torch.device | str = "cpu"):
        self.address, self.members = address, list(members)
        self._generators = [torch.Generator(device=device) for _ in self.members]

    def at(self, step: int) -> list[torch.Generator]:
        """Return the generators of all members at a step. A later call reuses the same generator objects."""
        for member, stream in zip(self.members, self._generators, strict=True):
            stream.manual_seed(derive_seed(*self.address, member, step))
        return self._generators


def spawn(generator: Generators, members: int) -> list[torch.Generator]:
    """Return one generator per member.

    A list of generators is returned as it is. A single generator draws the seeds of `members` new ones. Raises
    ValueError for a list of another length.
    """
    if not isinstance(generator, torch.Generator):
        streams = list(generator)
        if len(streams) != members:
            raise ValueError(f"{len(streams)} random streams for {members} members; give one per member")
        return streams
    seeds = torch.randint(2**62, (members,), generator=generator, device=generator.device).tolist()
    return [torch.Generator(device=generator.device).manual_seed(seed) for seed in seeds]


@dataclass
class GivenNoise:
    """Stands in the place of the streams of all members, and holds the normal numbers that `normal` would draw.

    `numbers` (B, n): of each member, in the order in which they are needed. `taken`: how many of the n have been given.
    """

    numbers: torch.Tensor
    taken: int = 0

    def take(self, shape: Sequence[int]) -> torch.Tensor:
        """Return the next numbers of each member, (B, *shape)."""
        first, self.taken = self.taken, self.taken + math.prod(shape)
        return self.numbers[:, first : self.taken].reshape(-1, *shape)


def normal(
    streams: Sequence[torch.Generator | None] | GivenNoise, shape: Sequence[int], like: torch.Tensor
) -> torch.Tensor:
    """Return standard normal numbers (len(streams), *shape), each row from its own stream; zeros where a stream is
    None.

    The result has the type and the device of `like`. At least one stream must not be None.
    """
    if isinstance(streams, GivenNoise):
        return streams.take(shape)
    device = next(stream.device for stream in streams if stream is not None)
    rows = torch.empty(len(streams), *shape, dtype=like.dtype, device=device)
    for row, stream in zip(rows, streams, strict=True):
        row.zero_() if stream is None else row.normal_(generator=stream)
    return rows.to(like.device)
