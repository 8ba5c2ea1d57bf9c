"""The interface of every system, and the guarded time loop that all systems share.

state  The real fields (B, C, N, N) of the solver, or (B, C, H, W). A user passes and receives states.
carry  A dict of tensors with everything that an exact continuation needs: spectra and, for multi-step schemes, the
       tendencies of earlier steps. Each has a row for each member. Time stepping maps a carry to a carry.
frame  The fields (B, C, m, m) that an emulator sees, with axes (y, x).

In one space dimension, states and frames are a single row of points, (B, C, 1, N), and `resolution` is [1, N].
"""

import abc
import importlib
import math

import torch

from sns_core.catalogue import SYSTEMS
from sns_core.grids import Grid, grid_shape, longer_side
from sns_core.plugins import is_own, load
from sns_core.systems.spectral import truncate

Carry = dict[str, torch.Tensor]


class InstabilityError(FloatingPointError):
    """A member of an integration became NaN or broke the CFL bound.

    Attributes: `reason`; `member`, its row in the batch; `step`, counted from the start of the call; `cfl`, its CFL
    number; `suggested_dt`, a time step that would be small enough.
    """

    def __init__(self, reason: str, member: int, step: int, cfl: float, suggested_dt: float):
        self.reason, self.member, self.step, self.cfl, self.suggested_dt = reason, member, step, cfl, suggested_dt
        super().__init__(
            f"member {member} {reason} at step {step} with CFL number {cfl:.3g}; a time step of {suggested_dt:g} "
            "would do (solver.dt)"
        )

    def of_member(self, member: int, steps_before: int = 0, frame_step: float | None = None) -> "InstabilityError":
        """Return the same error as a stage tells it.

        `member`: another number for the member, such as its number in the split. `steps_before`: solver steps that the
        stage made before the call. `frame_step`: time between frames, which the time step of the message then divides.
        """
        dt = self.suggested_dt if frame_step is None else _dividing(frame_step, self.suggested_dt)
        return InstabilityError(self.reason, member, steps_before + self.step, self.cfl, dt)


def _dividing(whole: float, part: float) -> float:
    """Return the largest whole / n <= part that six digits write down; `part` where n would be 10 times as large."""
    least = math.ceil(whole / part * (1 - 1e-9))
    for count in range(least, 10 * least + 1):
        written = float(f"{whole / count:g}")
        if abs(written * count - whole) < 1e-9 * whole:
            return written
    return part


class System(abc.ABC):
    """A dynamical system on a doubly periodic square or on a circle, batched over members.

    A subclass sets `resolution` and `dt`, and defines `initial_state`, `velocity`, and `step` or `steps`. All other
    methods have a default, for a system of one dimensionless field (B, 1, N, N) with axes (y, x) whose state is its
    carry and which has no symmetries. A system knows nothing of networks and training.
    """

    resolution: Grid
    dt: float
    channels = 1
    length = 2 * math.pi
    cfl_limit = 1.0
    # False where frames hold no velocity beside themselves: a channel then stands for it, and its energy is half its mean square.
    has_velocity = True
    # Whether figures keep the units of the files. They show days for seconds, and kilometres for metres, where it is False.
    shows_own_units = False
    # Axes (y, x) along which a frame holds a field and then its mirror image, because the field is not periodic there.
    mirrored = (False, False)
    # A number per channel that frames of files lack, because it was subtracted from them; None for a solver's.
    offset: list[float] | None = None
    # The name and the units of the field in files.
    variable = "field"
    units = length_units = time_units = energy_units = "1"
    layers: tuple[str, ...] = ("flow",)
    # Parameters of the fastest form of the numerics, which equals the others to rounding or within the filter.
    fastest: tuple[tuple[str, object], ...] = ()
    # On a CPU, the members that are stepped together have at most this many grid points in total, so that their fields
    # stay in the caches.
    cache_points = 65536
    # The state is checked after this many steps. A check takes a transform and, on a GPU, a synchronisation.
    check_every = 32

    @abc.abstractmethod
    def initial_state(self, members: int, generator) -> torch.Tensor:
        """Return random states (members, C, N, N), from one generator or from a list with one per member."""

    def start(self, state: torch.Tensor) -> Carry:
        """Return the carry of a new integration from `state` (B, C, N, N)."""
        return {"state": state}

    def state(self, carry: Carry) -> torch.Tensor:
        """Return the state (B, C, N, N) of a carry."""
        return carry["state"]

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if cls.step is System.step and cls.steps is System.steps:
            raise TypeError(f"{cls.__name__} defines neither step nor steps")

    def step(self, carry: Carry) -> Carry:
        """Return the carry after one time step. An implementation must not modify `carry`."""
        return self.steps(carry, 1)

    def steps(self, carry: Carry, count: int) -> Carry:
        """Return the carry after `count` time steps. A subclass defines `step` or `steps`; members are independent."""
        for _ in range(count):
            carry = self.step(carry)
        return carry

    @abc.abstractmethod
    def velocity(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the velocity (u, v), each (B, C, N, N), of a state at any resolution."""

    def observe(self, state: torch.Tensor, resolution: Grid) -> torch.Tensor:
        """Return the frames (B, C, m, m), axes (y, x), of a state. By default, this is a spectral truncation."""
        return truncate(state, resolution)

    def frame_velocity(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the velocity (u, v), each (B, C, m, m), of frames."""
        return self.velocity(frames)

    def velocity_components(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the components of a velocity (u, v), each (B, C, m, m), that a channel may have: both, (B, C, 2, m, m)."""
        return torch.stack((u, v), 2)

    def admissible(self, frames: torch.Tensor) -> torch.Tensor:
        """Return frames (..., C, m, m) without the parts that no frame of the system has, such as a mean.

        Emulators apply it to their output, which may contain such parts.
        """
        return frames

    def landmarks(self, resolution: Grid) -> torch.Tensor:
        """Return constant fields (S, m, m) of unit variance, such as the forcing, that every symmetry leaves unchanged.

        A network may take them as an input, because without them it treats all places alike. By default, S = 0.
        """
        return torch.zeros(0, *grid_shape(resolution))

    def augment(self, frames: torch.Tensor, generator: torch.Generator, symmetries: str = "all") -> torch.Tensor:
        """Apply one random symmetry of the system to each sample of frames (B, F, C, m, m).

        All F frames of a sample get the same symmetry. `symmetries`: "translations" or "all". By default, frames are
        returned unchanged.
        """
        return frames

    @staticmethod
    def _rearranged(frames: torch.Tensor, y: torch.Tensor, x: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
        """Return samples (B, F, C, H, W) with other rows and columns, times `sign` (B, 1).

        `y` (B, H) and `x` (B, W) are the rows and the columns to take from each sample, periodically.
        """
        batch, _, _, height, width = frames.shape
        rows = torch.arange(batch, device=frames.device)[:, None, None]
        picked = frames.permute(0, 3, 4, 1, 2)[rows, (y % height)[:, :, None], (x % width)[:, None, :]]
        return picked.permute(0, 3, 4, 1, 2) * sign.to(frames.dtype).view(batch, 1, 1, 1, 1)

    def advance(self, state: torch.Tensor, steps: int) -> torch.Tensor:
        """Integrate a state (B, C, N, N) over `steps` time steps of length `dt`, and return the new state.

        Raises InstabilityError where a member becomes NaN or breaks the CFL bound.
        """
        return self.state(self.run(self.start(state), steps))

    def run(self, carry: Carry, steps: int) -> Carry:
        """Integrate a carry over `steps` time steps, as `advance` integrates a state.

        k calls of n steps give the same bits as one call of k n steps. Raises ValueError for a carry whose tensors do
        not all have a row for each member.
        """
        rows = {len(tensor) if tensor.ndim else 0 for tensor in carry.values()}
        if len(rows) != 1 or 0 in rows:
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in carry.items())
            raise ValueError(
                f"{type(self).__name__}: the tensors of its carry need a first axis of members, but have the shapes {shapes}; "
                "give each a row for each member"
            )
        done = 0
        while done < steps:
            block = min(self.check_every, steps - done)
            before, carry = carry, self._in_cache(carry, block)
            self._check(before, carry, done, block)
            done += block
        return carry

    def _in_cache(self, carry: Carry, count: int) -> Carry:
        """Run `steps`; on a CPU, for only as many members at a time as fit into its caches."""
        members = len(next(iter(carry.values())))
        size = max(1, self.cache_points // math.prod(grid_shape(self.resolution)))
        if members <= size or next(iter(carry.values())).is_cuda:
            return self.steps(carry, count)
        # The transform of a single field may differ in the last bit from the same field's transform in a batch. So a
        # single member that is left over joins the group before it, unless all members are stepped one by one.
        starts = range(0, members - (size > 1 and members % size == 1), size)
        parts = [
            self.steps({name: tensor[first:stop] for name, tensor in carry.items()}, count)
            for first, stop in zip(starts, [*starts[1:], members], strict=True)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def kinetic_energy(self, state: torch.Tensor) -> torch.Tensor:
        """Return the mean of (u^2 + v^2) / 2 in each layer, (B, C)."""
        u, v = self.velocity(state)
        return 0.5 * (u.square() + v.square()).mean((-2, -1))

    def _courant(self, state: torch.Tensor) -> torch.Tensor:
        """Return the CFL number (|u| + |v|) dt / dx of each member, (B,)."""
        u, v = self.velocity(state)
        return (u.abs() + v.abs()).amax((-3, -2, -1)) * self.dt * longer_side(self.resolution) / self.length

    def _stability(self, state: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the CFL number (B,) of each member, and whether the member has become unstable (B,).

        A member is unstable where it is not finite, or where it breaks the CFL bound and has changed since `start`. A
        steady flow is exempt: the laminar flow is a fixed point of the scheme for any time step.
        """
        courant = self._courant(state)
        moves = (state - start).abs().amax((-3, -2, -1)) > 1e-9 * start.abs().amax((-3, -2, -1))
        return courant, ~torch.isfinite(courant) | ((courant > self.cfl_limit) & moves)

    def _check(self, before: Carry, after: Carry, done: int, block: int) -> None:
        """Raise InstabilityError where a member has become unstable in a block of steps."""
        if bool(self._stability(self.state(after), self.state(before))[1].any()):
            self._raise_instability(before, done, block)

    def _raise_instability(self, carry: Carry, done: int, block: int) -> None:
        """Repeat a failed block step by step, and raise an error for the first unstable step and member."""
        start = self.state(carry)
        courant = self._courant(start)
        for step in range(done + 1, done + block + 1):
            last, carry = courant, self.step(carry)
            courant, unstable = self._stability(self.state(carry), start)
            if bool(unstable.any()):
                # A step from a state beyond the bound multiplies the state, so its own CFL number says little. The
                # number before such a step is reported.
                numbers = torch.where(torch.isfinite(courant) & ~(last > self.cfl_limit), courant, last)
                member = int(unstable.nonzero()[0])
                finite = bool(torch.isfinite(courant[member]))
                reason = f"broke the CFL bound {self.cfl_limit:.3g}" if finite else "became NaN"
                worst = float(numbers[unstable].nan_to_num(nan=0.0).max())
                raise InstabilityError(reason, member, step, float(numbers[member]), self._safe_dt(worst))
        raise AssertionError("a failed block did not fail when it was repeated: the time step is not deterministic")

    def _safe_dt(self, courant: float) -> float:
        """Return a time step at half the CFL bound, rounded down to 1, 2 or 5 times a power of ten."""
        if not math.isfinite(courant) or courant <= 0:
            courant = 10 * self.cfl_limit
        bound = min(self.dt / 2, 0.5 * self.dt * self.cfl_limit / courant)
        power = 10.0 ** math.floor(math.log10(bound))
        return max(factor for factor in (1, 2, 5) if factor * power <= bound * (1 + 1e-12)) * power


def build_system(name: str, parameters: dict, dtype=torch.float32, device="cpu") -> System:
    """Build a system by the name that configurations and data manifests give it.

    `name`: the class of a system of this project, or `module.Name` for a system of the user's own. `parameters`: the
    keyword arguments of the class. Raises ValueError for an unknown name.
    """
    if is_own(name):
        return load(name)(**parameters, dtype=dtype, device=device)
    if name not in SYSTEMS:
        raise ValueError(f"unknown system {name!r}; known: {', '.join(sorted(SYSTEMS))}")
    return getattr(importlib.import_module(SYSTEMS[name]), name)(**parameters, dtype=dtype, device=device)
