"""A flow without a solver: its frames were simulated elsewhere, and nothing here can step it."""

import math

import torch

from sns_core.grids import Grid
from sns_core.systems.base import Carry, System

# What `velocity` may be: nothing that the frames say, a streamfunction's, or two of the channels.
NO_VELOCITY, VORTICITY = "none", "vorticity"


class RecordedFlow(System):
    """Frames (B, C, H, W) of somebody else's flow on a periodic rectangle.

    `resolution`: points per side, or (H, W), equally far apart along both axes; `dt`: time between frames; `length`: of the
    longer side; `variable`, `layers`, `units`, `length_units`, `time_units`: names and units in files. `offset`: a number per
    channel that was subtracted from the files' values, where their mean is far from zero. `velocity`: "vorticity" where each
    channel is the vorticity dv/dx - du/dy of a flow without divergence, ["u", "v"] where two channels are the velocity, "none"
    otherwise. `homogeneous`: whether the flow looks the same everywhere along y and along x, so that training may translate it.
    `mirrored`: whether frames hold the field and then its mirror image along y and along x, where it is not periodic; `resolution`
    and `length` count both. Fourier series of such frames are the cosine series of the field.

    A channel that is no vorticity is its own "velocity": its energy is half its mean square, and the sum over u and v is the
    kinetic energy.
    """

    shows_own_units = True

    def __init__(
        self,
        resolution: Grid,
        dt: float,
        length: float,
        layers: list[str],
        variable: str = "field",
        units: str = "1",
        length_units: str = "1",
        time_units: str = "1",
        velocity: str | list[str] = NO_VELOCITY,
        homogeneous: list[bool] = (False, False),
        offset: list[float] | None = None,
        mirrored: list[bool] = (False, False),
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.resolution, self.dt, self.length = resolution, dt, length
        self.layers, self.channels = tuple(layers), len(layers)
        self.variable, self.units, self.length_units, self.time_units = variable, units, length_units, time_units
        self.has_velocity, self._inverts = velocity != NO_VELOCITY, velocity == VORTICITY
        self._across = None if isinstance(velocity, str) else self.layers.index(velocity[1])
        self._homogeneous, self.offset, self.mirrored = tuple(homogeneous), offset, tuple(mirrored)
        if self.has_velocity:
            self.energy_units = f"{length_units}2 {time_units}-2" if length_units != "1" else "1"

    def initial_state(self, members: int, generator) -> torch.Tensor:
        raise NotImplementedError("a recorded flow has no solver, and so no states but those of its files")

    def step(self, carry: Carry) -> Carry:
        raise NotImplementedError("a recorded flow has no solver, which could step it")

    def velocity(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the velocity (u, v), each (B, C, H, W), of frames with axes (y, x)."""
        if self._inverts:
            return self._from_vorticity(state)
        u, v = state, torch.zeros_like(state)
        if self._across is not None:
            along = torch.ones(self.channels, 1, 1, dtype=state.dtype, device=state.device)
            along[self._across] = 0
            u, v = state * along, state * (1 - along)
        return u, v

    def velocity_components(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the components of a velocity, (B, C, 2, m, m), or the single one of each channel, (B, C, 1, m, m)."""
        return super().velocity_components(u, v) if self._inverts else (u + v)[:, :, None]

    def kinetic_energy(self, state: torch.Tensor) -> torch.Tensor:
        """Return the mean of (u^2 + v^2) / 2 of each channel, (B, C): half the mean square of all channels but vorticity."""
        return super().kinetic_energy(state) if self._inverts else 0.5 * state.square().mean((-2, -1))

    def _from_vorticity(self, vorticity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the velocity (u, v) without divergence and without a mean of a vorticity (B, C, H, W)."""
        height, width = vorticity.shape[-2:]
        spacing, options = self.length / max(height, width), {"dtype": torch.float64, "device": vorticity.device}
        # The real transform runs over y, as in KolmogorovFlow: Nyquist modes of the two axes are treated differently by it.
        k_x = 2 * math.pi * torch.fft.fftfreq(width, spacing, **options)[:, None]
        k_y = 2 * math.pi * torch.fft.rfftfreq(height, spacing, **options)[None, :]
        squared = k_y**2 + k_x**2
        inverse = torch.where(squared > 0, 1 / squared.clamp(min=1e-30), 0.0).to(vorticity.dtype)
        streamfunction = inverse * torch.fft.rfft2(vorticity.transpose(-1, -2))
        factors = (1j * k_y.to(vorticity.dtype), -1j * k_x.to(vorticity.dtype))
        u, v = (torch.fft.irfft2(factor * streamfunction, s=(width, height)).transpose(-1, -2) for factor in factors)
        return u, v

    def admissible(self, frames: torch.Tensor) -> torch.Tensor:
        """Return frames (..., C, H, W) whose second half is the mirror image of the first along each mirrored axis."""
        for axis, mirror in zip((-2, -1), self.mirrored, strict=True):
            if mirror:
                frames = 0.5 * (frames + frames.flip(axis))
        return frames

    def augment(self, frames: torch.Tensor, generator: torch.Generator, symmetries: str = "all") -> torch.Tensor:
        """Translate each sample of frames (B, F, C, H, W) along the axes on which the flow is homogeneous."""
        batch, (height, width) = len(frames), frames.shape[-2:]

        def positions(points: int, moves: bool) -> torch.Tensor:
            shift = torch.randint(points if moves else 1, (batch, 1), generator=generator, device=generator.device)
            return torch.arange(points, device=frames.device) + shift.to(frames.device)

        y, x = (positions(*axis) for axis in zip((height, width), self._homogeneous, strict=True))
        return self._rearranged(frames, y, x, torch.ones(batch, 1, device=frames.device))
