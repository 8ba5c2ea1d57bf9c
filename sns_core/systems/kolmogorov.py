"""Kolmogorov flow: two-dimensional turbulence driven by a steady sinusoidal force.

    dw/dt + u . grad w = nu laplacian(w) - drag w - a n cos(n y),   w = dv/dx - du/dy,   on [0, 2 pi)^2,

the curl of the Navier-Stokes equations with the body force f_x = a sin(n y) and linear drag. Arrays are [x, y], the
real transform over y. Numerics are those of jax-cfd's spectral `ForcedNavierStokes2D` with `crank_nicolson_rk4`:
advection in the advective form with a 2/3 filter, explicit five-stage fourth-order Runge-Kutta (Carpenter and
Kennedy, NASA TM-109112, 1994), viscosity and drag by Crank-Nicolson within each stage.

`advection="stress"` keeps the state, too, within the filter and writes advection as the curl of the divergence of the
Reynolds stress, for which the velocity is transformed alone (Basdevant, J. Comput. Phys. 50, 1983): 2 inverse and 2 forward
transforms of two thirds of the columns, against 4 and 1. Products of modes within the filter alias to none within it, so
both forms are equal to rounding from any start that the filter leaves as it is; another start is filtered once.

Good values: 64 x 64, viscosity 1e-3, dt 0.0125 (laptop); 512 x 512, viscosity 1e-4, dt 1e-3 (the paper).
"""

import math
from collections.abc import Callable

import torch

from sns_core.runtime import Generators
from sns_core.systems.base import Carry, System
from sns_core.systems.spectral import PlanarTransforms, SpectralGrid, symmetrise, truncate

# Carpenter-Kennedy low-storage coefficients. Python floats: double precision also in float32 runs.
ALPHA = (0.0, 0.1496590219993, 0.3704009573644, 0.6222557631345, 0.9582821306748, 1.0)
BETA = (0.0, -0.4178904745, -1.192151694643, -1.697784692471, -1.514183444257)
GAMMA = (0.1496590219993, 0.3792103129999, 0.8229550293869, 0.6994504559488, 0.1530572479681)

# The scheme is stable for advection up to |lambda| dt = 3.34 on the imaginary axis; the filter keeps |k| <= N / 3,
# so (|u| + |v|) dt / dx <= 3.34 * 3 / (2 pi).
CFL_LIMIT = 3.34 * 3 / (2 * math.pi)


class KolmogorovFlow(System):
    """Vorticity (B, 1, N, N) of Kolmogorov flow, axes [x, y]; lengths and times are dimensionless.

    Parameters: `resolution` N (even); `viscosity` nu >= 0; `dt` > 0; `drag` >= 0; `forcing_wavenumber` n and
    `forcing_scale` a; `advection` "advective" (jax-cfd's) or "stress" (faster, see above); `symmetric_filter` replaces
    jax-cfd's 2/3 mask, which is asymmetric in kx, by |kx|, |ky| <= N // 3 - 1, for which advection conserves energy and
    enstrophy to rounding. Raises ValueError out of range.
    """

    channels = 1
    length = 2 * math.pi
    cfl_limit = CFL_LIMIT
    variable, units, length_units, time_units, energy_units = "vorticity", "1", "1", "1", "1"
    layers = ("flow",)

    def __init__(
        self,
        resolution: int = 64,
        viscosity: float = 1e-3,
        dt: float = 1e-3,
        drag: float = 0.1,
        forcing_wavenumber: int = 4,
        forcing_scale: float = 1.0,
        symmetric_filter: bool = False,
        advection: str = "advective",
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ):
        for name, value in {"viscosity": viscosity, "drag": drag}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} {value} must be finite and not negative")
        if not 0 < dt < math.inf:
            raise ValueError(f"dt {dt} must be finite and positive")
        if not 0 < forcing_wavenumber < resolution // 3:
            raise ValueError(f"forcing_wavenumber {forcing_wavenumber} must lie in 1 .. {resolution // 3 - 1}")
        if advection not in ("advective", "stress"):
            raise ValueError(f"advection {advection!r} is neither 'advective' nor 'stress'")
        self.resolution, self.viscosity, self.dt, self.drag = resolution, viscosity, dt, drag
        self.forcing_wavenumber, self.forcing_scale = forcing_wavenumber, forcing_scale
        self.dtype, self.device = dtype, torch.device(device)
        self._grids: dict[tuple, SpectralGrid] = {}
        grid = SpectralGrid(resolution, self.length, torch.float64, device)
        complex_type = torch.complex64 if dtype == torch.float32 else torch.complex128
        self.filter = (self._symmetric_mask() if symmetric_filter else self._brick_wall()).to(self.device)

        # Operators and the state between steps are transposed, (ky, kx), as PlanarTransforms wants them.
        kx, ky, inverse = grid.k_first.T, grid.k_last.T, grid.inverse_laplacian.T
        self._stress = advection == "stress"
        self._kept = int(self.filter.any(0).sum())  # columns that the filter does not empty
        held = self._held = self._kept if self._stress else resolution // 2 + 1
        self._transforms = PlanarTransforms(resolution)
        ones, keep = torch.ones_like(inverse), self.filter.T.to(torch.float64)
        if self._stress:  # u, v; then (kx^2 - ky^2) [uv]^ + kx ky [v^2 - u^2]^
            operators = [-ky * inverse, kx * inverse]
            outward = [(kx**2 - ky**2) * keep, kx * ky * keep]
        else:  # u, v, dw/dx, dw/dy; then minus their product
            operators = [-ky * inverse, kx * inverse, kx * ones, ky * ones]
            outward = [-keep]
        self._operators = (1j * torch.stack(operators)[:, None, :held]).to(complex_type)
        self._outward = self._factor(torch.stack(outward)[:, : self._kept])
        forcing = torch.zeros(self._kept, resolution, dtype=complex_type, device=device)
        forcing[forcing_wavenumber, 0] = -0.5 * forcing_scale * forcing_wavenumber * resolution**2
        self._forcing = self._numbers(forcing)

        # Crank-Nicolson inside each stage: w <- keep w + gain h.
        decay = (-viscosity * grid.k_squared - drag).T[:held]
        self._stages = []
        for stage in range(5):
            mu = 0.5 * dt * (ALPHA[stage + 1] - ALPHA[stage])
            keep = self._factor((1 + mu * decay) / (1 - mu * decay))
            gain = self._factor((GAMMA[stage] * dt / (1 - mu * decay))[: self._kept])
            self._stages.append((BETA[stage], keep, gain))

    def _brick_wall(self) -> torch.Tensor:
        n = self.resolution
        rows, columns = int(2 * n / 3), int(2 / 3 * (n // 2 + 1))
        mask = torch.zeros(n, n // 2 + 1, dtype=torch.bool)
        mask[: rows // 2, :columns] = True
        mask[-(rows - rows // 2) :, :columns] = True
        return mask

    def _symmetric_mask(self) -> torch.Tensor:
        n, limit = self.resolution, self.resolution // 3 - 1
        kx, ky = torch.fft.fftfreq(n, 1 / n)[:, None], torch.arange(n // 2 + 1)[None, :]
        return (kx.abs() <= limit) & (ky <= limit)

    def tendency(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Explicit part of dw_hat/dt, filtered advection plus forcing: (B, N, N // 2 + 1) -> the same."""
        result = torch.zeros_like(spectrum)
        held = self._transposed(spectrum)
        kept = torch.empty_like(self._numbers(held[:, : self._kept]), memory_format=torch.contiguous_format)
        self._numbers(result[..., : self._kept].transpose(-1, -2)).copy_(self._tendency(held)(kept))
        return result

    def _numbers(self, spectrum: torch.Tensor) -> torch.Tensor:
        """What real factors multiply: the stress form takes real and imaginary parts (..., 2). The advective form takes the
        complex numbers as they are, slower, and rounded as in all data made so far."""
        return torch.view_as_real(spectrum) if self._stress else spectrum

    def _factor(self, factor: torch.Tensor) -> torch.Tensor:
        """A real factor of `_numbers`."""
        if self._stress:
            return torch.stack([factor, factor], -1).to(self.dtype)
        return factor.to(self._operators.dtype)

    def _transposed(self, spectrum: torch.Tensor) -> torch.Tensor:
        """(B, N, N // 2 + 1) -> the columns that are computed with, (B, M, N), a copy."""
        return spectrum[..., : self._held].transpose(-1, -2).contiguous()

    def _tendency(self, spectrum: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """A function that computes `tendency` of what `spectrum`, the columns that are computed with, (B, M, N), holds
        when it is called: `_numbers` of those that the filter keeps, (B, M', N), into its argument."""
        n, members, stress = self.resolution, len(spectrum), self._stress
        operators, forcing, outward = self._operators, self._forcing, list(self._outward)
        spectra = spectrum.new_empty(len(operators), *spectrum.shape)
        fields = torch.empty(len(operators), members, n, n, dtype=self.dtype, device=self.device)
        products = torch.empty(len(outward), members, n, n, dtype=self.dtype, device=self.device)
        advection = spectrum.new_empty(len(outward), members, self._kept, n)
        inverse, forward = self._transforms.inverse(spectra, fields), self._transforms.forward(products, advection)
        (u, v, *gradient), (first, *second), parts = fields, products, list(self._numbers(advection))

        def evaluate(out: torch.Tensor) -> torch.Tensor:
            torch.mul(operators, spectrum, out=spectra)
            inverse()
            if stress:
                torch.mul(u, v, out=first)
                torch.mul(v, v, out=second[0]).addcmul_(u, u, value=-1)
            else:
                torch.mul(u, gradient[0], out=first).addcmul_(v, gradient[1])
            forward()
            torch.addcmul(forcing, parts[0], outward[0], out=out)
            return out.addcmul_(parts[1], outward[1]) if stress else out

        return evaluate

    def start(self, state: torch.Tensor) -> Carry:
        n = self.resolution
        if state.ndim != 4 or state.shape[1:] != (1, n, n):
            raise ValueError(f"vorticity of shape {tuple(state.shape)}, expected (B, 1, {n}, {n})")
        # Transformed in double precision: once an integration, it halves the rounding of a float32 run.
        spectrum = torch.fft.rfft2(state[:, 0].to(self.device, torch.float64))
        if self._stress:
            band = self.filter.clone()
            band[:, 0] |= band[:, 0].flip(0).roll(1, 0)  # with both of k and -k: filtering twice is filtering once
            spectrum = spectrum * band
        return {"spectrum": spectrum.to(self._operators.dtype)}

    def state(self, carry: Carry) -> torch.Tensor:
        return torch.fft.irfft2(carry["spectrum"], s=(self.resolution, self.resolution))[:, None]

    def steps(self, carry: Carry, count: int) -> Carry:
        spectrum = self._transposed(carry["spectrum"])
        parts = self._numbers(spectrum)
        kept = parts[:, : self._kept]
        evaluate = self._tendency(spectrum)
        edges = spectrum[:, :1] if self._stress else spectrum[:, :: spectrum.shape[1] - 1]  # hold both k and -k
        h, tendency = (torch.empty_like(kept, memory_format=torch.contiguous_format) for _ in range(2))
        for _ in range(count):
            for stage, (beta, keep, gain) in enumerate(self._stages):
                evaluate(tendency)
                if stage:
                    tendency.add_(h, alpha=beta)
                h, tendency = tendency, h
                parts.mul_(keep)
                kept.addcmul_(h, gain)
            symmetrise(edges)
        result = torch.zeros_like(carry["spectrum"])
        result[..., : spectrum.shape[1]] = spectrum.transpose(-1, -2)
        return {"spectrum": result}

    def velocity(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        key = (state.shape[-1], state.dtype, state.device)
        if key not in self._grids:
            self._grids[key] = SpectralGrid(state.shape[-1], self.length, state.dtype, state.device)
        grid = self._grids[key]
        streamfunction = -grid.inverse_laplacian * grid.forward(state)
        u = grid.inverse(1j * grid.k_last * streamfunction)
        v = grid.inverse(-1j * grid.k_first * streamfunction)
        return u, v

    def observe(self, state: torch.Tensor, resolution: int) -> torch.Tensor:
        return truncate(state, resolution).transpose(-1, -2)

    def frame_velocity(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        u, v = self.velocity(frames.transpose(-1, -2))
        return u.transpose(-1, -2), v.transpose(-1, -2)

    def landmarks(self, resolution: int) -> torch.Tensor:
        """The vorticity of the forcing, (1, m, m)."""
        y = torch.arange(resolution, dtype=torch.float64) * self.length / resolution
        return (-math.sqrt(2) * torch.cos(self.forcing_wavenumber * y)).float()[None, :, None].repeat(1, 1, resolution)

    def augment(self, frames: torch.Tensor, generator: torch.Generator, symmetries: str = "all") -> torch.Tensor:
        """The symmetries of the forced flow: translation in x and by 2 pi / n in y ("translations"); with "all" also
        rotation by pi, and reflection in x with half a forcing period in y, which turns the sign of the vorticity."""
        if symmetries not in ("translations", "all"):
            raise ValueError(f"symmetries {symmetries!r} is neither 'translations' nor 'all'")
        batch, _, _, height, width = frames.shape
        period = height // math.gcd(height, self.forcing_wavenumber)
        half_is_whole = height % (2 * self.forcing_wavenumber) == 0

        def draw(high):
            return torch.randint(high, (batch, 1), generator=generator, device=generator.device).to(frames.device)

        shift_x, shift_y = draw(width), draw(height // period) * period
        rotate, reflect = (
            (draw(2), draw(2 if half_is_whole else 1)) if symmetries == "all" else (0 * shift_x, 0 * shift_x)
        )
        shift_y = shift_y + reflect * (period // 2)
        sign_y = 1 - 2 * rotate
        sign_x = sign_y * (1 - 2 * reflect)
        y = sign_y * torch.arange(height, device=frames.device) + shift_y
        x = sign_x * torch.arange(width, device=frames.device) + shift_x
        return self._rearranged(frames, y, x, 1 - 2 * reflect)

    def initial_state(self, members: int, generator: Generators, max_speed: float = 7.0) -> torch.Tensor:
        """Vorticity (members, 1, N, N) of filtered random velocities with peak wavenumber 4.

        `generator`: one torch.Generator for all members, or a list with one a member.
        """
        n = self.resolution
        options = {"dtype": torch.float64}
        if isinstance(generator, torch.Generator):
            noise = torch.randn(members, 2, n, n, generator=generator, device=generator.device, **options)
        else:
            noise = torch.stack([torch.randn(2, n, n, generator=g, device=g.device, **options) for g in generator])
        if len(noise) != members:
            raise ValueError(f"{len(noise)} random streams for {members} members; give one a member")
        velocity = self.solenoidal(self.filtered(noise.to(self.device)), max_speed)
        return self.curl(velocity).to(self.dtype)[:, None]

    def filtered(self, noise: torch.Tensor, peak: float = 4.0, variance: float = 0.25) -> torch.Tensor:
        """White noise (..., N, N) filtered to a log-normal energy spectrum with its mode at `peak`."""
        frequency = torch.fft.fftfreq(self.resolution, 1 / self.resolution, dtype=noise.dtype, device=noise.device)
        k = (frequency[:, None] ** 2 + frequency[None, :] ** 2).sqrt()
        log_k = k.clamp(min=0.5).log()
        shape = torch.exp(-((math.log(peak) + variance - log_k) ** 2) / (2 * variance) - log_k) / k.clamp(min=0.5)
        return torch.fft.ifft2(torch.fft.fft2(noise) * torch.where(k > 0, shape, 0.0)).real

    def solenoidal(self, velocity: torch.Tensor, max_speed: float) -> torch.Tensor:
        """Velocities (..., 2, N, N) projected on the staggered grid and scaled to `max_speed`, three times over."""
        h = self.length / self.resolution
        frequency = torch.fft.fftfreq(self.resolution, 1 / self.resolution, dtype=velocity.dtype)
        sine = torch.sin(frequency.to(velocity.device) * h / 2) ** 2
        eigenvalues = -(4 / h**2) * (sine[:, None] + sine[None, :])
        eigenvalues[0, 0] = 1.0
        for _ in range(3):
            u, v = velocity.unbind(-3)
            divergence = (u - u.roll(1, -2)) / h + (v - v.roll(1, -1)) / h
            spectrum = torch.fft.fft2(divergence) / eigenvalues
            spectrum[..., 0, 0] = 0.0
            pressure = torch.fft.ifft2(spectrum).real
            u = u - (pressure.roll(-1, -2) - pressure) / h
            v = v - (pressure.roll(-1, -1) - pressure) / h
            speed = (u**2 + v**2).sqrt().amax((-2, -1), keepdim=True)
            velocity = torch.stack([u, v], -3) * (max_speed / speed)[..., None, :, :]
        return velocity

    def curl(self, velocity: torch.Tensor) -> torch.Tensor:
        """Vorticity (..., N, N) of staggered velocities (..., 2, N, N), by forward differences."""
        h = self.length / self.resolution
        u, v = velocity.unbind(-3)
        return (v.roll(-1, -2) - v) / h - (u.roll(-1, -1) - u) / h
