"""What every system offers, and the guarded time loop that all of them share.

A *state* is what a user holds: real fields (B, C, N, N). A *carry* is what time stepping holds: a dict of tensors
with everything that continuing bit for bit needs (spectra, for multi-step schemes also stored tendencies).
A *frame* is what an emulator sees: fields (B, C, m, m) with axes (y, x).
"""

import abc
import importlib
import math

import torch

from sns_core.catalogue import SYSTEMS
from sns_core.plugins import is_own, load
from sns_core.systems.spectral import truncate

Carry = dict[str, torch.Tensor]


class InstabilityError(FloatingPointError):
    """A member of an integration became NaN or broke the CFL bound.

    Attributes: `member`, `step` (counted from the start of the call), `cfl`, `suggested_dt`.
    """

    def __init__(self, reason: str, member: int, step: int, cfl: float, suggested_dt: float):
        self.reason, self.member, self.step, self.cfl, self.suggested_dt = reason, member, step, cfl, suggested_dt
        super().__init__(
            f"member {member} {reason} at step {step} with CFL number {cfl:.3g}; a time step of {suggested_dt:g} would do"
        )

    def of_member(self, member: int) -> "InstabilityError":
        """The same of a member by another number than its row in the batch."""
        return InstabilityError(self.reason, member, self.step, self.cfl, self.suggested_dt)


class System(abc.ABC):
    """A dynamical system on a doubly periodic square, batched over members.

    A subclass sets `resolution` and `dt`, and defines `initial_state`, `step` and `velocity`; all else has a default, which
    holds for one dimensionless field (B, 1, N, N) with axes (y, x) that is its own carry and has no symmetry. No class
    knows how its frames are learnt.
    """

    resolution: int
    dt: float
    channels = 1
    length = 2 * math.pi
    cfl_limit = 1.0
    variable = "field"  # name and units of the field in files
    units = length_units = time_units = energy_units = "1"
    layers: tuple[str, ...] = ("flow",)
    cache_points = 65536  # points of the members that are stepped together on a CPU: what its caches hold
    check_every = 32  # steps between looks at the state; a look costs a transform and, on a GPU, a synchronisation

    @abc.abstractmethod
    def initial_state(self, members: int, generator) -> torch.Tensor:
        """Random states (members, C, N, N) from one generator, or from a list with one a member."""

    def start(self, state: torch.Tensor) -> Carry:
        """Carry of a fresh integration from `state`."""
        return {"state": state}

    def state(self, carry: Carry) -> torch.Tensor:
        """Real fields (B, C, N, N) of a carry."""
        return carry["state"]

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if cls.step is System.step and cls.steps is System.steps:
            raise TypeError(f"{cls.__name__} defines neither step nor steps")

    def step(self, carry: Carry) -> Carry:
        """One time step; must not modify `carry`."""
        return self.steps(carry, 1)

    def steps(self, carry: Carry, count: int) -> Carry:
        """`count` time steps. A subclass defines this or `step`, whichever suits it; members do not see each other."""
        for _ in range(count):
            carry = self.step(carry)
        return carry

    @abc.abstractmethod
    def velocity(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Velocity (u, v), each (B, C, N, N), of a state at any resolution."""

    def observe(self, state: torch.Tensor, resolution: int) -> torch.Tensor:
        """Frame (B, C, m, m), axes (y, x), that an emulator sees of a state: unless redefined, its spectral truncation."""
        return truncate(state, resolution)

    def frame_velocity(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Velocity (u, v), each (B, C, m, m), of frames as `observe` makes them."""
        return self.velocity(frames)

    def admissible(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames (..., C, m, m) without what no frame of the system can hold; learnt steps are brought back by it."""
        return frames

    def landmarks(self, resolution: int) -> torch.Tensor:
        """What stands still, such as the forcing, and looks the same after every symmetry: fields (S, m, m) of unit variance that
        a network may be told, since by itself it treats every place alike. Unless redefined, S = 0."""
        return torch.zeros(0, resolution, resolution)

    def augment(self, frames: torch.Tensor, generator: torch.Generator, symmetries: str = "all") -> torch.Tensor:
        """Apply to each sample of (B, F, C, m, m) one random symmetry of the system, the same for all its frames.

        `symmetries`: "translations" or "all". Unless redefined, the identity.
        """
        return frames

    @staticmethod
    def _rearranged(frames: torch.Tensor, y: torch.Tensor, x: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
        """Pick rows y (B, H) and columns x (B, W), periodically, of samples (B, F, C, H, W), times `sign` (B, 1)."""
        batch, _, _, height, width = frames.shape
        rows = torch.arange(batch, device=frames.device)[:, None, None]
        picked = frames.permute(0, 3, 4, 1, 2)[rows, (y % height)[:, :, None], (x % width)[:, None, :]]
        return picked.permute(0, 3, 4, 1, 2) * sign.to(frames.dtype).view(batch, 1, 1, 1, 1)

    def advance(self, state: torch.Tensor, steps: int) -> torch.Tensor:
        """Integrate `state` (B, C, N, N) over `steps` time steps of `dt`.

        Raises InstabilityError when a member becomes NaN or breaks the CFL bound.
        """
        return self.state(self.run(self.start(state), steps))

    def run(self, carry: Carry, steps: int) -> Carry:
        """`advance` on a carry: k calls of n steps give bitwise what one call of k n steps gives."""
        done = 0
        while done < steps:
            block = min(self.check_every, steps - done)
            before, carry = carry, self._in_cache(carry, block)
            self._check(before, carry, done, block)
            done += block
        return carry

    def _in_cache(self, carry: Carry, count: int) -> Carry:
        """`steps`, on a CPU by as many members at a time as stay in its caches."""
        members = len(next(iter(carry.values())))
        size = max(1, self.cache_points // self.resolution**2)
        if members <= size or next(iter(carry.values())).is_cuda:
            return self.steps(carry, count)
        parts = [
            self.steps({name: tensor[first : first + size] for name, tensor in carry.items()}, count)
            for first in range(0, members, size)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def kinetic_energy(self, state: torch.Tensor) -> torch.Tensor:
        """Mean of (u^2 + v^2) / 2 in each layer, (B, C)."""
        u, v = self.velocity(state)
        return 0.5 * (u.square() + v.square()).mean((-2, -1))

    def _courant(self, state: torch.Tensor) -> torch.Tensor:
        """CFL number (|u| + |v|) dt / dx of each member."""
        u, v = self.velocity(state)
        return (u.abs() + v.abs()).amax((-3, -2, -1)) * self.dt * self.resolution / self.length

    def _judge(self, state: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """CFL number of each member, and whether it is lost: not finite, or beyond the bound and on the move."""
        courant = self._courant(state)
        # A steady state has nothing to advect wrongly: the laminar flow is a fixed point for any dt.
        moves = (state - start).abs().amax((-3, -2, -1)) > 1e-9 * start.abs().amax((-3, -2, -1))
        return courant, ~torch.isfinite(courant) | ((courant > self.cfl_limit) & moves)

    def _check(self, before: Carry, after: Carry, done: int, block: int) -> None:
        if bool(self._judge(self.state(after), self.state(before))[1].any()):
            self._explain(before, done, block)

    def _explain(self, carry: Carry, done: int, block: int) -> None:
        """Replay a failed block step by step to find the first offending step and member, and raise."""
        start = self.state(carry)
        courant = self._courant(start)
        for step in range(done + 1, done + block + 1):
            last, carry = courant, self.step(carry)
            courant, bad = self._judge(self.state(carry), start)
            if bool(bad.any()):
                # A step from beyond the bound multiplies the state: the number before it is the one to go by.
                numbers = torch.where(torch.isfinite(courant) & ~(last > self.cfl_limit), courant, last)
                member = int(bad.nonzero()[0])
                broke = bool(torch.isfinite(courant[member]))
                reason = f"broke the CFL bound {self.cfl_limit:.3g}" if broke else "became NaN"
                worst = float(numbers[bad].nan_to_num(nan=0.0).max())
                raise InstabilityError(reason, member, step, float(numbers[member]), self._safe_dt(worst))
        raise AssertionError("a failed block passed its replay: the time step is not deterministic")

    def _safe_dt(self, courant: float) -> float:
        """A time step at half the bound, rounded down to 1, 2 or 5 times a power of ten."""
        if not math.isfinite(courant) or courant <= 0:
            courant = 10 * self.cfl_limit
        wanted = min(self.dt / 2, 0.5 * self.dt * self.cfl_limit / courant)
        power = 10.0 ** math.floor(math.log10(wanted))
        return max(factor for factor in (1, 2, 5) if factor * power <= wanted * (1 + 1e-12)) * power


def build_system(name: str, parameters: dict, dtype=torch.float32, device="cpu") -> System:
    """A system by its class name, as configurations and data manifests give it: one of this project or, as `module.Name`,
    the user's own. ValueError for an unknown one."""
    if is_own(name):
        return load(name)(**parameters, dtype=dtype, device=device)
    if name not in SYSTEMS:
        raise ValueError(f"unknown system {name!r}; known: {', '.join(sorted(SYSTEMS))}")
    return getattr(importlib.import_module(SYSTEMS[name]), name)(**parameters, dtype=dtype, device=device)
