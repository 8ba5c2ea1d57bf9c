"""Kolmogorov flow: two-dimensional turbulence driven by a steady sinusoidal force.

The vorticity w = dv/dx - du/dy on [0, 2 pi)^2 obeys the curl of the Navier-Stokes equations with the body force
f_x = a sin(n y) and linear drag:

    dw/dt + u . grad w = nu laplacian(w) - drag w - a n cos(n y).

Arrays have the axes [x, y], and the real transform runs over y. The numerics are those of jax-cfd's spectral
`ForcedNavierStokes2D` with `crank_nicolson_rk4`: advection in the advective form with a 2/3 filter, and the scheme
`CrankNicolsonRungeKutta`, which treats viscosity and drag implicitly.

`advection="stress"` is a faster form. It writes advection as the curl of the divergence of the Reynolds stress, for
which only the velocity is transformed (Basdevant, J. Comput. Phys. 50, 1983). A stage then takes 2 inverse and 2
forward transforms of two thirds of the columns, instead of 4 inverse and 1 forward transforms of all columns. The state
is kept within the filter. No product of modes within the filter aliases to a mode within it, so both forms agree to
rounding where the filter leaves the start unchanged. Any other start is filtered once.

Good values: 64 x 64, viscosity 1e-3, dt 0.01 (the demo); 512 x 512, viscosity 1e-4, dt 1e-3 (the paper).
"""

import math
from collections.abc import Callable

import torch

from sns_core.streams import Generators
from sns_core.systems.base import Carry, System
from sns_core.systems.schemes import CrankNicolsonRungeKutta
from sns_core.systems.spectral import PlanarTransforms, SpectralGrid, symmetrise, truncate

# On the imaginary axis, the scheme is stable up to |lambda| dt = 3.34. The filter keeps wavenumbers up to N / 3, so
# advection is stable where (|u| + |v|) dt / dx <= 3.34 * 3 / (2 pi).
CFL_LIMIT = 3.34 * 3 / (2 * math.pi)


class KolmogorovFlow(System):
    """Kolmogorov flow. Its state is the vorticity (B, 1, N, N) with axes [x, y], dimensionless like all lengths and
    times.

    `resolution`: N, even. `viscosity`: nu >= 0. `dt`: the time step, > 0. `drag`: >= 0. `forcing_wavenumber`: n, an
    integer below N // 3. `forcing_scale`: a. `symmetric_filter`: replace jax-cfd's 2/3 mask, which is asymmetric in kx,
    by |kx|, |ky| <= N // 3 - 1, with which advection conserves energy and enstrophy to rounding. `advection`:
    "advective" (as in jax-cfd) or "stress" (faster; see the module's head). `dtype`: type of the state. `device`:
    device of the state. Raises ValueError for a parameter out of its range.
    """

    channels = 1
    length = 2 * math.pi
    cfl_limit = CFL_LIMIT
    fastest = (("advection", "stress"),)
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

        # The operators, and the state between steps, are transposed to (ky, kx), the layout of PlanarTransforms.
        kx, ky, inverse = grid.k_first.T, grid.k_last.T, grid.inverse_laplacian.T
        self._stress = advection == "stress"
        # `_filtered_columns` columns of a half spectrum pass the filter. The state has `_state_columns` columns.
        self._filtered_columns = int(self.filter.any(0).sum())
        self._state_columns = self._filtered_columns if self._stress else resolution // 2 + 1
        self._transforms = PlanarTransforms(resolution)
        ones, mask = torch.ones_like(inverse), self.filter.T.to(torch.float64)
        if self._stress:
            # The fields are u and v. The tendency is (kx^2 - ky^2) [uv]^ + kx ky [v^2 - u^2]^.
            to_fields = [-ky * inverse, kx * inverse]
            of_products = [(kx**2 - ky**2) * mask, kx * ky * mask]
        else:
            # The fields are u, v, dw/dx and dw/dy. The tendency is -[u dw/dx + v dw/dy]^.
            to_fields = [-ky * inverse, kx * inverse, kx * ones, ky * ones]
            of_products = [-mask]
        self._to_fields = (1j * torch.stack(to_fields)[:, None, : self._state_columns]).to(complex_type)
        self._of_products = self._factor(torch.stack(of_products)[:, : self._filtered_columns])
        forcing = torch.zeros(self._filtered_columns, resolution, dtype=complex_type, device=device)
        forcing[forcing_wavenumber, 0] = -0.5 * forcing_scale * forcing_wavenumber * resolution**2
        self._forcing = self._values(forcing)
        linear = (-viscosity * grid.k_squared - drag).T[: self._state_columns]
        self._scheme = CrankNicolsonRungeKutta(linear, dt, slice(self._filtered_columns), self._factor)

    def _brick_wall(self) -> torch.Tensor:
        """Return jax-cfd's 2/3 mask (N, N // 2 + 1)."""
        n = self.resolution
        rows, columns = int(2 * n / 3), int(2 / 3 * (n // 2 + 1))
        mask = torch.zeros(n, n // 2 + 1, dtype=torch.bool)
        mask[: rows // 2, :columns] = True
        mask[-(rows - rows // 2) :, :columns] = True
        return mask

    def _symmetric_mask(self) -> torch.Tensor:
        """Return the mask (N, N // 2 + 1) of |kx|, |ky| <= N // 3 - 1."""
        n, limit = self.resolution, self.resolution // 3 - 1
        kx, ky = torch.fft.fftfreq(n, 1 / n)[:, None], torch.arange(n // 2 + 1)[None, :]
        return (kx.abs() <= limit) & (ky <= limit)

    def tendency(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return the explicit part of dw_hat/dt, filtered advection plus forcing, for spectra (B, N, N // 2 + 1)."""
        result = torch.zeros_like(spectrum)
        columns = self._transposed(spectrum)
        out = torch.empty_like(
            self._values(columns[:, : self._filtered_columns]), memory_format=torch.contiguous_format
        )
        filtered = self._values(result[..., : self._filtered_columns].transpose(-1, -2))
        filtered.copy_(self._tendency(columns)(out))
        return result

    def _values(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return the view of complex spectra that real factors multiply.

        The stress form multiplies real and imaginary parts (..., 2). The advective form multiplies complex numbers:
        that is slower, but the rounding is the same as in the data sets that exist.
        """
        return torch.view_as_real(spectrum) if self._stress else spectrum

    def _factor(self, factor: torch.Tensor) -> torch.Tensor:
        """Convert a real factor to the type and layout of `_values`."""
        if self._stress:
            return torch.stack([factor, factor], -1).to(self.dtype)
        return factor.to(self._to_fields.dtype)

    def _transposed(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return a copy (B, M, N) of the state's columns of spectra (B, N, N // 2 + 1)."""
        return spectrum[..., : self._state_columns].transpose(-1, -2).contiguous()

    def _tendency(self, spectrum: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return `evaluate(out)`, which writes the tendency of the current content of `spectrum` (B, M, N) into `out`.

        `out` has the layout of `_values` for the columns (B, M', N) that pass the filter. All memory is allocated here,
        once.
        """
        n, members, stress = self.resolution, len(spectrum), self._stress
        to_fields, forcing, of_products = self._to_fields, self._forcing, list(self._of_products)
        spectra = spectrum.new_empty(len(to_fields), *spectrum.shape)
        fields = torch.empty(len(to_fields), members, n, n, dtype=self.dtype, device=self.device)
        products = torch.empty(len(of_products), members, n, n, dtype=self.dtype, device=self.device)
        advection = spectrum.new_empty(len(of_products), members, self._filtered_columns, n)
        inverse, forward = self._transforms.inverse(spectra, fields), self._transforms.forward(products, advection)
        (u, v, *gradient), (first, *second), parts = fields, products, list(self._values(advection))

        def evaluate(out: torch.Tensor) -> torch.Tensor:
            torch.mul(to_fields, spectrum, out=spectra)
            inverse()
            if stress:
                torch.mul(u, v, out=first)
                torch.mul(v, v, out=second[0]).addcmul_(u, u, value=-1)
            else:
                torch.mul(u, gradient[0], out=first).addcmul_(v, gradient[1])
            forward()
            torch.addcmul(forcing, parts[0], of_products[0], out=out)
            return out.addcmul_(parts[1], of_products[1]) if stress else out

        return evaluate

    def start(self, state: torch.Tensor) -> Carry:
        """Return the carry of a new integration. Raise ValueError for a state of another shape than (B, 1, N, N)."""
        n = self.resolution
        if state.ndim != 4 or state.shape[1:] != (1, n, n):
            raise ValueError(f"vorticity of shape {tuple(state.shape)}, expected (B, 1, {n}, {n})")
        # The transform runs in double precision. It is made once per integration, and halves the rounding error of a
        # float32 run.
        spectrum = torch.fft.rfft2(state[:, 0].to(self.device, torch.float64))
        if self._stress:
            # The first column holds both k and -k. Where the mask has one of them, the start keeps both. With one of
            # them alone, a start that is filtered twice would not equal a start that is filtered once.
            band = self.filter.clone()
            band[:, 0] |= band[:, 0].flip(0).roll(1, 0)
            spectrum = spectrum * band
        return {"spectrum": spectrum.to(self._to_fields.dtype)}

    def state(self, carry: Carry) -> torch.Tensor:
        """Return the vorticity (B, 1, N, N) of a carry."""
        return torch.fft.irfft2(carry["spectrum"], s=(self.resolution, self.resolution))[:, None]

    def steps(self, carry: Carry, count: int) -> Carry:
        """Return the carry after `count` time steps."""
        spectrum = self._transposed(carry["spectrum"])
        values = self._values(spectrum)
        # These columns hold both k and -k.
        edges = spectrum[:, :1] if self._stress else spectrum[:, :: spectrum.shape[1] - 1]
        self._scheme.run(
            values,
            self._tendency(spectrum),
            count,
            explicit_values=values[:, : self._filtered_columns],
            finish=lambda: symmetrise(edges),
        )
        result = torch.zeros_like(carry["spectrum"])
        result[..., : spectrum.shape[1]] = spectrum.transpose(-1, -2)
        return {"spectrum": result}

    def velocity(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the velocity (u, v), each (B, 1, N, N), of a vorticity (B, 1, N, N) with axes [x, y]."""
        key = (state.shape[-1], state.dtype, state.device)
        if key not in self._grids:
            self._grids[key] = SpectralGrid(state.shape[-1], self.length, state.dtype, state.device)
        grid = self._grids[key]
        streamfunction = -grid.inverse_laplacian * grid.forward(state)
        u = grid.inverse(1j * grid.k_last * streamfunction)
        v = grid.inverse(-1j * grid.k_first * streamfunction)
        return u, v

    def observe(self, state: torch.Tensor, resolution: int) -> torch.Tensor:
        """Return the spectral truncation (B, 1, m, m) of a state, with axes (y, x)."""
        return truncate(state, resolution).transpose(-1, -2)

    def frame_velocity(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the velocity (u, v), each (B, 1, m, m), of frames with axes (y, x)."""
        u, v = self.velocity(frames.transpose(-1, -2))
        return u.transpose(-1, -2), v.transpose(-1, -2)

    def landmarks(self, resolution: int) -> torch.Tensor:
        """Return the vorticity of the forcing, (1, m, m), with unit variance."""
        y = torch.arange(resolution, dtype=torch.float64) * self.length / resolution
        return (-math.sqrt(2) * torch.cos(self.forcing_wavenumber * y)).float()[None, :, None].repeat(1, 1, resolution)

    def augment(self, frames: torch.Tensor, generator: torch.Generator, symmetries: str = "all") -> torch.Tensor:
        """Apply one random symmetry of the forced flow to each sample of frames (B, F, 1, m, m).

        "translations" are those in x by any distance, and those in y by multiples of the forcing's period 2 pi / n.
        "all" adds the rotation by pi, and the reflection in x with a shift by half a forcing period in y; this
        reflection changes the sign of the vorticity. Raises ValueError for other `symmetries`.
        """
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
        """Return the vorticity (members, 1, N, N) of filtered random velocities with peak wavenumber 4.

        `generator`: one torch.Generator for all members, or a list with one per member. `max_speed`: the largest speed.
        Raises ValueError where the list has another length than `members`.
        """
        n = self.resolution
        options = {"dtype": torch.float64}
        if isinstance(generator, torch.Generator):
            noise = torch.randn(members, 2, n, n, generator=generator, device=generator.device, **options)
        else:
            noise = torch.stack([torch.randn(2, n, n, generator=g, device=g.device, **options) for g in generator])
        if len(noise) != members:
            raise ValueError(f"{len(noise)} random streams for {members} members; give one per member")
        velocity = self.solenoidal(self.filtered(noise.to(self.device)), max_speed)
        return self.curl(velocity).to(self.dtype)[:, None]

    def filtered(self, noise: torch.Tensor, peak: float = 4.0, variance: float = 0.25) -> torch.Tensor:
        """Filter white noise (..., N, N) to a log-normal energy spectrum with its maximum at the wavenumber `peak`."""
        frequency = torch.fft.fftfreq(self.resolution, 1 / self.resolution, dtype=noise.dtype, device=noise.device)
        k = (frequency[:, None] ** 2 + frequency[None, :] ** 2).sqrt()
        log_k = k.clamp(min=0.5).log()
        shape = torch.exp(-((math.log(peak) + variance - log_k) ** 2) / (2 * variance) - log_k) / k.clamp(min=0.5)
        return torch.fft.ifft2(torch.fft.fft2(noise) * torch.where(k > 0, shape, 0.0)).real

    def solenoidal(self, velocity: torch.Tensor, max_speed: float) -> torch.Tensor:
        """Make velocities (..., 2, N, N) on the staggered grid free of divergence, and scale them to `max_speed`.

        As in jax-cfd, both are repeated three times.
        """
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
        """Return the vorticity (..., N, N) of staggered velocities (..., 2, N, N), by forward differences."""
        h = self.length / self.resolution
        u, v = velocity.unbind(-3)
        return (v.roll(-1, -2) - v) / h - (u.roll(-1, -1) - u) / h
