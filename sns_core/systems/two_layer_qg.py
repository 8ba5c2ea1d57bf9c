"""Two-layer quasi-geostrophic flow on a beta plane, driven by a vertical shear of the mean flow.

    dq_i/dt + (u_i + U_i) dq_i/dx + v_i dq_i/dy + Qy_i dpsi_i/dx = -delta_{i2} rek laplacian(psi_2) + small scales,
    q_1 = laplacian(psi_1) + F1 (psi_2 - psi_1),   q_2 = laplacian(psi_2) + F2 (psi_1 - psi_2).

q_i is the anomaly of potential vorticity in layer i, psi_i the streamfunction, u = -dpsi/dy, v = dpsi/dx, U_i the mean
flow, and Qy_i the gradient of the mean potential vorticity. Arrays have the axes [layer, y, x], and the real transform
runs over x. Lengths are in metres, times in seconds. The numerics are those of pyqg's `QGModel`: advection in flux
form, the scheme `AdamsBashforth`, and, in place of viscosity, an exponential filter that multiplies each new state.

`arithmetic="real"` computes the same from fewer numbers. Velocities follow from the streamfunction, the fluxes contain
the mean flow, and real factors multiply real and imaginary parts. The results agree to rounding; it is up to 1.2 times
as fast.

Good values: the defaults for the jet of the paper (dt 3600; 64 to 256 points); `EDDY` for isotropic eddies, dt 7200.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from sns_core.streams import Generators, spawn
from sns_core.systems.base import Carry, System
from sns_core.systems.schemes import AdamsBashforth
from sns_core.systems.spectral import PlanarTransforms, SpectralGrid, symmetrise

# Parameters with which eddies form instead of jets (Ross et al. 2023, doi 10.1029/2022MS003258).
EDDY = {"beta": 1.5e-11, "bottom_drag": 5.787e-7, "layer_ratio": 0.25}

# On the imaginary axis, AB3 is stable up to |lambda| dt = 0.72. The filter does not damp scales up to theta = 0.65 pi,
# where |lambda| <= 0.65 pi speed / dx, and |u| + |v| is at most sqrt(2) times the speed.
FILTER_START = 0.65 * math.pi
CFL_LIMIT = 0.72 / FILTER_START * math.sqrt(2)


class TwoLayerQG(System):
    """Two-layer flow. Its state is the potential vorticity anomaly (B, 2, N, N) in 1/s, axes [y, x], upper layer first.

    `resolution`: N, even. `dt`: the time step in s. `length`: side of the square in m. `beta`: in 1/(m s).
    `bottom_drag`: rek >= 0 in 1/s. `layer_ratio`: delta = H1 / H2. `deformation_radius`: rd in m. `upper_velocity`,
    `lower_velocity`: the mean flow of the layers in m/s. `filter_strength`: strength of the exponential filter.
    `eddy_frames`: whether frames are deviations from the zonal mean (as in the paper), or else from the mean of the
    whole square. `arithmetic`: "complex", or "real" (faster; see the module's head). `dtype`: type of the state.
    `device`: device of the state. Raises ValueError for a parameter out of its range.
    """

    channels = 2
    cfl_limit = CFL_LIMIT
    fastest = (("arithmetic", "real"),)
    cache_points = 16384
    variable, units, length_units, time_units, energy_units = "potential_vorticity", "s-1", "m", "s", "m2 s-2"
    layers = ("upper", "lower")

    def __init__(
        self,
        resolution: int = 64,
        dt: float = 3600.0,
        length: float = 1e6,
        beta: float = 1e-11,
        bottom_drag: float = 7e-8,
        layer_ratio: float = 0.1,
        deformation_radius: float = 15e3,
        upper_velocity: float = 0.025,
        lower_velocity: float = 0.0,
        filter_strength: float = 23.6,
        eddy_frames: bool = True,
        arithmetic: str = "complex",
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ):
        positive = {"dt": dt, "length": length, "layer_ratio": layer_ratio, "deformation_radius": deformation_radius}
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} {value} must be finite and positive")
        for name, value in {"bottom_drag": bottom_drag, "filter_strength": filter_strength}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} {value} must be finite and not negative")
        for name, value in {"beta": beta, "upper_velocity": upper_velocity, "lower_velocity": lower_velocity}.items():
            if not math.isfinite(value):
                raise ValueError(f"{name} {value} must be finite")
        if arithmetic not in ("complex", "real"):
            raise ValueError(f"arithmetic {arithmetic!r} is neither 'complex' nor 'real'")
        self.resolution, self.dt, self.length = resolution, dt, length
        self.bottom_drag, self.eddy_frames = bottom_drag, eddy_frames
        self.dtype, self.device = dtype, torch.device(device)
        self.depth_share = (layer_ratio / (1 + layer_ratio), 1 / (1 + layer_ratio))  # H_i / (H_1 + H_2)
        # Coupling of the layers, and the gradients of the mean potential vorticity.
        f1 = deformation_radius**-2 / (1 + layer_ratio)
        self.coupling = (f1, layer_ratio * f1)
        shear = upper_velocity - lower_velocity
        self.mean_velocity = (upper_velocity, lower_velocity)
        self.mean_gradient = (beta + self.coupling[0] * shear, beta - self.coupling[1] * shear)

        grid = SpectralGrid(resolution, length, torch.float64, device)
        self.filter = self._exponential_filter(grid, filter_strength)
        self._inversions: dict[tuple, torch.Tensor] = {}
        complex_type = torch.complex64 if dtype == torch.float32 else torch.complex128
        self._transforms = PlanarTransforms(resolution)
        inversion = self._inversion(grid)
        self.linear = self._linear(grid, inversion, bottom_drag)  # (N, N // 2 + 1, 2, 2) complex128
        self._real = arithmetic == "real"
        self._scheme = AdamsBashforth(dt, self._values)
        # All factors of spectra are transposed to (k, l), the layout of PlanarTransforms. The inversion becomes
        # (layer of q, layer of psi, N // 2 + 1, N).
        kx, ky, inversion = grid.k_last.T, grid.k_first.T, inversion.permute(3, 2, 1, 0)
        if self._real:
            self._filter = self._doubled(self.filter.T)
            self._streamfunction_of = self._doubled(inversion)
            self._axes = [(1j * axis).to(complex_type) for axis in (-ky, kx, -kx)]
            self._gradient = torch.tensor(self.mean_gradient, dtype=dtype, device=device)[:, None, None, None]
            mean = [velocity * resolution**2 for velocity in self.mean_velocity]
            self._mean_flow = torch.tensor(mean, dtype=complex_type, device=device)
            self._drag = self._doubled(bottom_drag * grid.k_squared.T)
        else:
            self._filter = self.filter.T.to(complex_type).contiguous()
            kx, ky = torch.broadcast_tensors(kx, ky)
            velocity = torch.stack([-1j * ky, 1j * kx])[:, None, None] * inversion[:, None, None]
            # The axes are (layer of q, u and v, 1, layer of the velocity, N // 2 + 1, N).
            self._velocity = velocity.to(complex_type)
            self._minus_divergence = (-1j * torch.stack([kx, ky])).to(complex_type)
            # The axes are (layer of q, layer of the tendency, N // 2 + 1, N).
            self._linear_columns = self.linear.permute(3, 2, 1, 0).contiguous().to(complex_type)

    def _values(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return the view of complex spectra that real factors multiply.

        Real arithmetic multiplies real and imaginary parts (..., 2). Complex arithmetic is slower, but its rounding is
        the same as in the data sets that exist.
        """
        return torch.view_as_real(spectrum) if self._real else spectrum

    def _doubled(self, factor: torch.Tensor) -> torch.Tensor:
        """Return a real factor (...) as a factor (..., 2) of real and imaginary parts."""
        return torch.stack([factor, factor], -1).to(self.dtype).contiguous()

    @staticmethod
    def _exponential_filter(grid: SpectralGrid, strength: float) -> torch.Tensor:
        """Return the filter (N, N // 2 + 1). It is computed by numpy in pyqg's order of operations: pyqg's own bits."""
        kx, ky = ((axis * grid.spacing).cpu().numpy() for axis in (grid.k_last, grid.k_first))
        theta = np.sqrt(kx**2.0 + ky**2.0)
        damping = np.exp(-strength * (theta - FILTER_START) ** 4.0)
        return torch.from_numpy(np.where(theta <= FILTER_START, 1.0, damping)).to(grid.k_squared.device)

    def _inversion(self, grid: SpectralGrid) -> torch.Tensor:
        """Return the matrices (N, N // 2 + 1, 2, 2) that map q_hat to psi_hat: psi_hat_i = sum_j [..., i, j] q_hat_j.

        The matrix of the mean is zero.
        """
        (f1, f2), square = self.coupling, grid.k_squared
        determinant = square * (square + f1 + f2)
        gain = torch.where(determinant > 0, -1 / torch.where(determinant > 0, determinant, 1.0), 0.0)
        rows = [(square + f2) * gain, f1 * gain, f2 * gain, (square + f1) * gain]
        return torch.stack(rows, -1).unflatten(-1, (2, 2))

    def _linear(self, grid: SpectralGrid, inversion: torch.Tensor, drag: float) -> torch.Tensor:
        """Return the matrices L (N, N // 2 + 1, 2, 2) of the linear part dq_hat/dt = L q_hat.

        It consists of the advection by the mean flow, the advection of the mean potential vorticity, and the drag of
        the lower layer.
        """
        velocity = torch.tensor(self.mean_velocity, dtype=torch.float64, device=self.device)
        gradient = torch.tensor(self.mean_gradient, dtype=torch.float64, device=self.device)
        advection = torch.diag(velocity) + gradient[:, None] * inversion
        linear = -1j * grid.k_last[..., None, None] * advection
        linear[..., 1, :] += drag * grid.k_squared[..., None] * inversion[..., 1, :]
        return linear

    def growth_rates(self, bottom_drag: bool = True) -> torch.Tensor:
        """Return the growth rate (N, N // 2 + 1) in 1/s of the fastest growing small disturbance of each wavenumber.

        `bottom_drag`: whether the drag is included.
        """
        linear = self.linear
        if not bottom_drag:
            grid = SpectralGrid(self.resolution, self.length, torch.float64, self.device)
            linear = self._linear(grid, self._inversion(grid), 0.0)
        return torch.linalg.eigvals(linear).real.amax(-1)

    def tendency(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return dq_hat/dt (B, 2, N, N // 2 + 1), before the filter, of spectra of the same shape."""
        transposed = spectrum.transpose(-1, -2).contiguous()
        return self._tendency(transposed)(torch.empty_like(transposed)).transpose(-1, -2)

    def _tendency(self, spectrum: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return `evaluate(out)`, which writes the tendency of the current content of `spectrum` into `out`.

        Both have the shape (B, 2, N // 2 + 1, N) of transposed spectra. All memory is allocated here, once.
        """
        n, transforms = self.resolution, self._transforms
        spectra, flux = spectrum.new_empty(2, *spectrum.shape), spectrum.new_empty(2, *spectrum.shape)
        velocity = torch.empty(2, len(spectrum), 2, n, n, dtype=self.dtype, device=self.device)
        q = torch.empty_like(velocity[0])
        to_velocity, to_q = transforms.inverse(spectra, velocity), transforms.inverse(spectrum, q)
        forward = transforms.forward(velocity, flux)

        def fluxes() -> None:
            """Write the fluxes of q by the velocity in `spectra` into `flux`."""
            to_velocity()
            to_q()
            velocity.mul_(q)
            forward()

        if self._real:
            return self._in_real_arithmetic(spectrum, spectra, flux, fluxes)
        q1, q2, (flux_x, flux_y) = spectrum[:, 0:1], spectrum[:, 1:2], flux
        (of_upper, of_lower), (from_upper, from_lower) = self._velocity, self._linear_columns
        minus_dx, minus_dy = self._minus_divergence

        def evaluate(out: torch.Tensor) -> torch.Tensor:
            torch.mul(of_upper, q1, out=spectra).addcmul_(of_lower, q2)
            fluxes()
            torch.mul(from_upper, q1, out=out).addcmul_(from_lower, q2)
            return out.addcmul_(minus_dx, flux_x).addcmul_(minus_dy, flux_y)

        return evaluate

    def _in_real_arithmetic(self, spectrum, spectra, flux, fluxes) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return `evaluate(out)` as `_tendency` does, computed from the streamfunction in real arithmetic."""
        psi = torch.empty_like(spectrum)
        parts, psi_parts, flux_parts = (torch.view_as_real(tensor) for tensor in (spectrum, psi, flux[0]))
        q1, q2, psi_lower, (flux_x, flux_y), (u, v) = parts[:, 0:1], parts[:, 1:2], psi_parts[:, 1], flux, spectra
        (of_upper, of_lower), (minus_dy, dx, minus_dx), mean = self._streamfunction_of, self._axes, u[..., 0, 0]
        gradient, drag, mean_flow = self._gradient, self._drag, self._mean_flow

        def evaluate(out: torch.Tensor) -> torch.Tensor:
            torch.mul(of_upper, q1, out=psi_parts).addcmul_(of_lower, q2)
            torch.mul(psi, minus_dy, out=u)
            torch.mul(psi, dx, out=v)
            # The mean of the velocity is the mean flow, so that the fluxes contain the advection by it.
            mean.copy_(mean_flow)
            fluxes()
            flux_parts.addcmul_(psi_parts, gradient)
            torch.mul(flux_x, minus_dx, out=out).addcmul_(flux_y, minus_dy)
            torch.view_as_real(out)[:, 1].addcmul_(psi_lower, drag)
            return out

        return evaluate

    def start(self, state: torch.Tensor) -> Carry:
        """Return the carry of a new integration. Raise ValueError for a state of another shape than (B, 2, N, N)."""
        n = self.resolution
        if state.ndim != 4 or state.shape[1:] != (2, n, n):
            raise ValueError(f"potential vorticity of shape {tuple(state.shape)}, expected (B, 2, {n}, {n})")
        spectrum = torch.fft.rfft2(state.to(self.device, torch.float64))
        return {"spectrum": spectrum.to(self.dtype.to_complex())}

    def state(self, carry: Carry) -> torch.Tensor:
        """Return the potential vorticity (B, 2, N, N) of a carry."""
        return torch.fft.irfft2(carry["spectrum"], s=(self.resolution, self.resolution))

    def steps(self, carry: Carry, count: int) -> Carry:
        """Return the carry after `count` time steps.

        The carry holds the tendencies of the last two steps. A new integration has none, and starts with Euler and AB2.
        """
        transposed = {name: tensor.transpose(-1, -2).contiguous() for name, tensor in carry.items()}
        spectrum = transposed["spectrum"]
        stored = [transposed[name] for name in ("tendency_1", "tendency_2") if name in transposed]
        values = self._values(spectrum)
        # These columns hold both k and -k.
        edges = spectrum[..., :: spectrum.shape[-2] - 1, :]

        def finish() -> None:
            values.mul_(self._filter)
            symmetrise(edges)

        stored = self._scheme.run(
            values, self._tendency(spectrum), count, stored, lambda: torch.empty_like(spectrum), finish
        )
        following = dict(zip(("spectrum", "tendency_1", "tendency_2"), [spectrum, *stored], strict=False))
        return {name: tensor.transpose(-1, -2).contiguous() for name, tensor in following.items()}

    def _streamfunction(self, state: torch.Tensor) -> tuple[SpectralGrid, torch.Tensor]:
        """Return the grid and the spectrum (B, 2, N, N // 2 + 1) of the streamfunction of a state at any resolution."""
        key = (state.shape[-1], state.dtype, state.device)
        if key not in self._inversions:
            grid = SpectralGrid(state.shape[-1], self.length, torch.float64, state.device)
            inversion = self._inversion(grid).permute(3, 2, 0, 1).to(state.dtype)
            self._inversions[key] = SpectralGrid(state.shape[-1], self.length, state.dtype, state.device), inversion
        grid, (of_upper, of_lower) = self._inversions[key]
        q = grid.forward(state)
        return grid, of_upper * q[..., :1, :, :] + of_lower * q[..., 1:, :, :]

    def velocity(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the velocity (u, v), each (B, 2, N, N), of the anomaly. The mean flow is not included."""
        grid, psi = self._streamfunction(state)
        return grid.inverse(-1j * grid.k_first * psi), grid.inverse(1j * grid.k_last * psi)

    def _courant(self, state: torch.Tensor) -> torch.Tensor:
        """Return the CFL number of each member, (B,), with the mean flow included."""
        u, v = self.velocity(state)
        mean = torch.tensor(self.mean_velocity, dtype=u.dtype, device=u.device)[:, None, None]
        return ((u + mean).abs() + v.abs()).amax((-3, -2, -1)) * self.dt * self.resolution / self.length

    def diagnostics(self, state: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return diagnostics of states (B, 2, N, N), as pyqg defines them.

        `kinetic_energy_spectrum` |k psi_hat|^2 and `enstrophy_spectrum` |q_hat|^2, (B, 2, N, N // 2 + 1), hold one half
        of all modes, in units of a squared field. `eddy_kinetic_energy` (B, 2) is that of the whole anomaly, in
        m^2/s^2. `drag_dissipation` (B,) and `energy_generation` (B,) by the mean shear are in m^2/s^3, averaged over
        the depth.
        """
        grid, psi = self._streamfunction(state)
        u, v = self.velocity(state)
        shear = self.mean_velocity[0] - self.mean_velocity[1]
        # The mean flow loses energy to the anomaly where heat flows down the mean gradient. The energy is
        # F1 H1 / H (U1 - U2) <psi1 v2>.
        transport = (grid.inverse(psi)[..., 0, :, :] * v[..., 1, :, :]).mean((-2, -1))
        return {
            "kinetic_energy_spectrum": grid.k_squared * psi.abs() ** 2 / state.shape[-1] ** 4,
            "enstrophy_spectrum": grid.forward(state).abs() ** 2 / state.shape[-1] ** 4,
            "eddy_kinetic_energy": 0.5 * (u**2 + v**2).mean((-2, -1)),
            "drag_dissipation": self.bottom_drag * self.depth_share[1] * (u**2 + v**2)[..., 1, :, :].mean((-2, -1)),
            "energy_generation": self.coupling[0] * self.depth_share[0] * shear * transport,
        }

    def energy(self, state: torch.Tensor) -> torch.Tensor:
        """Return the kinetic plus available potential energy of the anomaly, (B,) in m^2/s^2, averaged over depth."""
        grid, psi = self._streamfunction(state)
        u, v = self.velocity(state)
        share = torch.tensor(self.depth_share, dtype=u.dtype, device=u.device)
        kinetic = (share * 0.5 * (u**2 + v**2).mean((-2, -1))).sum(-1)
        upper, lower = grid.inverse(psi).unbind(-3)
        return kinetic + 0.5 * self.coupling[0] * self.depth_share[0] * ((upper - lower) ** 2).mean((-2, -1))

    def observe(self, state: torch.Tensor, resolution: int) -> torch.Tensor:
        """Return frames (B, 2, m, m): the deviation of a state from its mean, averaged over blocks of points.

        The mean is the zonal one with `eddy_frames`. Raises ValueError where `resolution` m does not divide N.
        """
        if self.resolution % resolution:
            raise ValueError(f"cannot take block means of {self.resolution} points down to {resolution}: no divisor")
        factor, state = self.resolution // resolution, self.admissible(state)
        return torch.nn.functional.avg_pool2d(state, factor) if factor > 1 else state

    def admissible(self, frames: torch.Tensor) -> torch.Tensor:
        """Return frames (..., 2, m, m) without their mean, or without their zonal mean with `eddy_frames`.

        The mean potential vorticity has no effect on the flow and never changes, so the mean of an emulator's frames
        could drift without any sign.
        """
        return frames - frames.mean(-1 if self.eddy_frames else (-2, -1), keepdim=True)

    def augment(self, frames: torch.Tensor, generator: torch.Generator, symmetries: str = "all") -> torch.Tensor:
        """Apply one random symmetry to each sample of frames (B, F, 2, m, m).

        "translations" are those in x and y. "all" adds the reflection in y, which changes the sign of the potential
        vorticity.
        """
        batch, _, _, height, width = frames.shape

        def draw(high):
            return torch.randint(high, (batch, 1), generator=generator, device=generator.device).to(frames.device)

        x, y = draw(width) + torch.arange(width, device=frames.device), torch.arange(height, device=frames.device)
        shift_y, reflect = draw(height), draw(2) if symmetries == "all" else 0 * x[:, :1]
        sign = 1 - 2 * reflect
        return self._rearranged(frames, sign * y + shift_y, x, sign)

    def initial_state(self, members: int, generator: Generators) -> torch.Tensor:
        """Return states (members, 2, N, N) with a random upper layer and a lower layer at rest.

        As in pyqg's default start, the upper layer is 1e-7 r(y, x) + 1e-6 r(x), with r uniform on [0, 1). `generator`:
        one torch.Generator for all members, or a list with one per member.
        """
        n = self.resolution
        options = {"dtype": torch.float64}
        streams = spawn(generator, members)
        numbers = torch.stack([torch.rand(n + 1, n, generator=g, device=g.device, **options) for g in streams])
        upper = 1e-7 * numbers[:, :n] + 1e-6 * numbers[:, n:]
        return torch.stack([upper, torch.zeros_like(upper)], 1).to(self.device, self.dtype)
