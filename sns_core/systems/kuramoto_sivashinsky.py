"""The Kuramoto-Sivashinsky equation: chaos in one space dimension, small enough to know its answers.

The field u on the circle [0, length) obeys

    du/dt + u du/dx + d2u/dx2 + d4u/dx4 = 0.

Large scales grow, small ones decay, and advection carries energy from the ones to the others. The mean of u never changes;
here it is zero. Modes beyond two thirds of the grid's are removed from products, and time is stepped by ETDRK4 (Kassam and
Trefethen, SIAM J. Sci. Comput. 26, 2005). The attractor of length 22 is well known: its largest Lyapunov exponent is about
0.048 (Cvitanovic, Davidchack and Siminos, SIAM J. Appl. Dyn. Syst. 9, 2010).
"""

import math

import torch

from sns_core.grids import Grid, grid_shape
from sns_core.streams import Generators, normal, spawn
from sns_core.systems.base import Carry, System
from sns_core.systems.schemes import ExponentialRungeKutta


class KuramotoSivashinsky(System):
    """Kuramoto-Sivashinsky flow. Its state is u (B, 1, 1, N) on a single row of points; all is dimensionless.

    `resolution`: [1, N] with N even; `dt`: the time step; `length`: of the circle. `dtype`: type of the state. `device`: device of the
    state. Raises ValueError for a parameter out of its range.
    """

    variable = "u"
    has_velocity = False  # beside the field itself, whose energy is half its mean square
    cfl_limit = 10.0  # beyond the explicit part's own, because the exact linear part damps the fast waves

    def __init__(
        self,
        resolution: Grid = (1, 64),
        dt: float = 0.25,
        length: float = 22.0,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ):
        rows, points = grid_shape(resolution)
        if rows != 1 or points < 8 or points % 2:
            raise ValueError(f"resolution {resolution} must be [1, N], a row of N points, with an even N of at least 8")
        for name, value in {"dt": dt, "length": length}.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} {value} must be finite and positive")
        self.resolution, self.points, self.dt, self.length = [1, points], points, dt, length
        self.dtype, self.device = dtype, torch.device(device)
        mode = torch.arange(points // 2 + 1, dtype=torch.float64, device=device)
        k = 2 * math.pi / length * mode
        self.growth = k**2 - k**4
        self._advection = (-0.5j * k * (mode < points / 3)).to(self._complex)
        self._scheme = ExponentialRungeKutta(self.growth.to(dtype), dt)

    @property
    def _complex(self) -> torch.dtype:
        return torch.complex64 if self.dtype == torch.float32 else torch.complex128

    def initial_state(self, members: int, generator: Generators) -> torch.Tensor:
        """Return random states (members, 1, 1, N) of large scales, with zero mean and about the amplitude of the attractor."""
        like = torch.zeros((), dtype=self.dtype, device=self.device)
        spectrum = torch.fft.rfft(normal(spawn(generator, members), (1, 1, self.points), like))
        wavenumber = 2 * math.pi / self.length * torch.arange(spectrum.shape[-1], device=self.device)
        spectrum = spectrum * torch.exp(-2 * wavenumber**2).to(self.dtype)
        spectrum[..., 0] = 0
        field = torch.fft.irfft(spectrum, n=self.points)
        return 1.3 * field / field.std(-1, keepdim=True)

    def start(self, state: torch.Tensor) -> Carry:
        return {"spectrum": torch.fft.rfft(state.to(self.device, torch.float64)).to(self._complex)}

    def state(self, carry: Carry) -> torch.Tensor:
        return torch.fft.irfft(carry["spectrum"], n=self.points)

    def tendency(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return the explicit part of du_hat/dt, advection, of spectra (..., N // 2 + 1)."""
        return self._advection * torch.fft.rfft(torch.fft.irfft(spectrum, n=self.points).square())

    def step(self, carry: Carry) -> Carry:
        return {"spectrum": self._scheme.step(carry["spectrum"], self.tendency)}

    def velocity(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (u, 0), each (B, 1, 1, N): the field is its own velocity along x."""
        return state, torch.zeros_like(state)

    def admissible(self, frames: torch.Tensor) -> torch.Tensor:
        """Return frames without their mean, which never changes."""
        return frames - frames.mean((-2, -1), keepdim=True)

    def augment(self, frames: torch.Tensor, generator: torch.Generator, symmetries: str = "all") -> torch.Tensor:
        """Apply one random symmetry to each sample of frames (B, F, 1, 1, N): a translation and, with "all", for half of the
        samples also the reflection x -> -x, u -> -u. Raises ValueError for other `symmetries`."""
        if symmetries not in ("translations", "all"):
            raise ValueError(f"symmetries {symmetries!r} is neither 'translations' nor 'all'")
        batch, points = len(frames), frames.shape[-1]

        def draw(high):
            return torch.randint(high, (batch, 1), generator=generator, device=generator.device).to(frames.device)

        shift, sign = draw(points), 1 - 2 * draw(2 if symmetries == "all" else 1)
        x = sign * torch.arange(points, device=frames.device) + shift
        return self._rearranged(frames, torch.zeros_like(shift), x, sign)
