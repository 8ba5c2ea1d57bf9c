"""Two-layer quasi-geostrophic flow on a beta plane, driven by a vertical shear of the mean flow.

    dq_i/dt + (u_i + U_i) dq_i/dx + v_i dq_i/dy + Qy_i dpsi_i/dx = -delta_{i2} rek laplacian(psi_2) + small scales,
    q_1 = laplacian(psi_1) + F1 (psi_2 - psi_1),   q_2 = laplacian(psi_2) + F2 (psi_1 - psi_2),

q the anomaly of potential vorticity, u = -dpsi/dy, v = dpsi/dx, Qy_i the gradient of the mean. Arrays are
[layer, y, x], the real transform over x; lengths are metres and times seconds. Numerics are those of pyqg's `QGModel`:
advection in flux form, third-order Adams-Bashforth started by Euler and AB2, and an exponential filter that multiplies
each new state in place of viscosity.

`arithmetic="real"` computes the same from fewer numbers: velocities by way of the streamfunction, the mean flow carries q
within the fluxes, and real factors multiply real and imaginary parts. Equal to rounding, and up to 1.2 times as fast.

Good values: the defaults, the jet of the paper (dt 3600; 64 to 256 points); `EDDY` for isotropic eddies, dt 7200.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from sns_core.runtime import Generators, spawn
from sns_core.systems.base import Carry, System
from sns_core.systems.spectral import PlanarTransforms, SpectralGrid, symmetrise

# Weights of the newest tendency and of those stored, by how many are stored: Euler, AB2, AB3.
ADAMS_BASHFORTH = ((1.0,), (1.5, -0.5), (23 / 12, -16 / 12, 5 / 12))

# Parameters that make eddies instead of jets (Ross et al. 2023, doi 10.1029/2022MS003258).
EDDY = {"beta": 1.5e-11, "bottom_drag": 5.787e-7, "layer_ratio": 0.25}

# AB3 is stable for advection up to |lambda| dt = 0.72 on the imaginary axis; the filter leaves scales down to
# theta = 0.65 pi undamped, where |lambda| <= 0.65 pi speed / dx; |u| + |v| is at most sqrt(2) times the speed.
FILTER_START = 0.65 * math.pi
CFL_LIMIT = 0.72 / FILTER_START * math.sqrt(2)


class TwoLayerQG(System):
    """Potential vorticity anomaly (B, 2, N, N) in 1/s, upper layer first, axes [y, x].

    Parameters: `resolution` N (even); `dt` in s; `length` of the square in m; `beta` in 1/(m s); `bottom_drag` rek >= 0
    in 1/s; `layer_ratio` delta = H1 / H2; `deformation_radius` rd in m; `upper_velocity` and `lower_velocity` of the mean
    flow in m/s; `filter_strength` of the exponential filter; `eddy_frames`: frames are the deviation from the zonal
    mean (the paper) instead of from the mean of the whole square; `arithmetic` "complex" or "real" (faster, see above).
    Raises ValueError out of range.
    """

    channels = 2
    cfl_limit = CFL_LIMIT
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
        self.depth_share = (layer_ratio / (1 + layer_ratio), 1 / (1 + layer_ratio))  # H_i / H
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
        # What a step multiplies spectra by, all of it transposed, (k, l), as PlanarTransforms wants it.
        self._real = arithmetic == "real"
        kx, ky, inversion = grid.k_last.T, grid.k_first.T, inversion.permute(3, 2, 1, 0)  # (of q, layer, N // 2 + 1, N)
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
            self._velocity = velocity.to(complex_type)  # (2: of q, 2: u v, 1, 2: layer, N // 2 + 1, N)
            self._minus_divergence = (-1j * torch.stack([kx, ky])).to(complex_type)
            self._linear_columns = self.linear.permute(3, 2, 1, 0).contiguous().to(complex_type)  # (of q, layer, ...)

    def _numbers(self, spectrum: torch.Tensor) -> torch.Tensor:
        """What real factors multiply: in real arithmetic real and imaginary parts (..., 2). The complex numbers as they are
        take longer, and are rounded as in all data made so far."""
        return torch.view_as_real(spectrum) if self._real else spectrum

    def _doubled(self, factor: torch.Tensor) -> torch.Tensor:
        """A real factor (...) of real and imaginary parts (..., 2)."""
        return torch.stack([factor, factor], -1).to(self.dtype).contiguous()

    @staticmethod
    def _exponential_filter(grid: SpectralGrid, strength: float) -> torch.Tensor:
        # By numpy and in pyqg's order of operations: the same numpy on the same processor gives the same bits.
        kx, ky = ((axis * grid.spacing).cpu().numpy() for axis in (grid.k_last, grid.k_first))
        theta = np.sqrt(kx**2.0 + ky**2.0)
        damping = np.exp(-strength * (theta - FILTER_START) ** 4.0)
        return torch.from_numpy(np.where(theta <= FILTER_START, 1.0, damping)).to(grid.k_squared.device)

    def _inversion(self, grid: SpectralGrid) -> torch.Tensor:
        """psi_hat_i = sum_j [..., i, j] q_hat_j: (N, N // 2 + 1, 2, 2), zero for the mean."""
        (f1, f2), square = self.coupling, grid.k_squared
        determinant = square * (square + f1 + f2)
        gain = torch.where(determinant > 0, -1 / torch.where(determinant > 0, determinant, 1.0), 0.0)
        rows = [(square + f2) * gain, f1 * gain, f2 * gain, (square + f1) * gain]
        return torch.stack(rows, -1).unflatten(-1, (2, 2))

    def _linear(self, grid: SpectralGrid, inversion: torch.Tensor, drag: float) -> torch.Tensor:
        """The linear part of dq_hat/dt = L q_hat: advection by and of the mean flow, and the drag of the lower layer."""
        velocity = torch.tensor(self.mean_velocity, dtype=torch.float64, device=self.device)
        gradient = torch.tensor(self.mean_gradient, dtype=torch.float64, device=self.device)
        advection = torch.diag(velocity) + gradient[:, None] * inversion
        linear = -1j * grid.k_last[..., None, None] * advection
        linear[..., 1, :] += drag * grid.k_squared[..., None] * inversion[..., 1, :]
        return linear

    def growth_rates(self, bottom_drag: bool = True) -> torch.Tensor:
        """Growth rate in 1/s, (N, N // 2 + 1), of the fastest small disturbance of each wavenumber (l, k)."""
        linear = self.linear
        if not bottom_drag:
            grid = SpectralGrid(self.resolution, self.length, torch.float64, self.device)
            linear = self._linear(grid, self._inversion(grid), 0.0)
        return torch.linalg.eigvals(linear).real.amax(-1)

    def tendency(self, spectrum: torch.Tensor) -> torch.Tensor:
        """dq_hat/dt before the filter: (B, 2, N, N // 2 + 1) -> the same."""
        held = spectrum.transpose(-1, -2).contiguous()
        return self._tendency(held)(torch.empty_like(held)).transpose(-1, -2)

    def _tendency(self, spectrum: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """A function that computes `tendency` of what the transposed spectra (B, 2, N // 2 + 1, N) hold when it is called,
        into its argument."""
        n, transforms = self.resolution, self._transforms
        spectra, flux = spectrum.new_empty(2, *spectrum.shape), spectrum.new_empty(2, *spectrum.shape)
        velocity = torch.empty(2, len(spectrum), 2, n, n, dtype=self.dtype, device=self.device)
        q = torch.empty_like(velocity[0])
        to_velocity, to_q = transforms.inverse(spectra, velocity), transforms.inverse(spectrum, q)
        forward = transforms.forward(velocity, flux)

        def fluxes() -> None:
            """Of q by the velocity in `spectra`, to `flux`."""
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
        """`_tendency` by way of the streamfunction, with factors that are real, or of one axis alone."""
        psi = torch.empty_like(spectrum)
        parts, psi_parts, flux_parts = (torch.view_as_real(tensor) for tensor in (spectrum, psi, flux[0]))
        q1, q2, psi_lower, (flux_x, flux_y), (u, v) = parts[:, 0:1], parts[:, 1:2], psi_parts[:, 1], flux, spectra
        (of_upper, of_lower), (minus_dy, dx, minus_dx), mean = self._streamfunction_of, self._axes, u[..., 0, 0]
        gradient, drag, mean_flow = self._gradient, self._drag, self._mean_flow

        def evaluate(out: torch.Tensor) -> torch.Tensor:
            torch.mul(of_upper, q1, out=psi_parts).addcmul_(of_lower, q2)
            torch.mul(psi, minus_dy, out=u)
            torch.mul(psi, dx, out=v)
            mean.copy_(mean_flow)  # the fields carry q with the mean flow
            fluxes()
            flux_parts.addcmul_(psi_parts, gradient)
            torch.mul(flux_x, minus_dx, out=out).addcmul_(flux_y, minus_dy)
            torch.view_as_real(out)[:, 1].addcmul_(psi_lower, drag)
            return out

        return evaluate

    def start(self, state: torch.Tensor) -> Carry:
        n = self.resolution
        if state.ndim != 4 or state.shape[1:] != (2, n, n):
            raise ValueError(f"potential vorticity of shape {tuple(state.shape)}, expected (B, 2, {n}, {n})")
        spectrum = torch.fft.rfft2(state.to(self.device, torch.float64))
        return {"spectrum": spectrum.to(self.dtype.to_complex())}

    def state(self, carry: Carry) -> torch.Tensor:
        return torch.fft.irfft2(carry["spectrum"], s=(self.resolution, self.resolution))

    def steps(self, carry: Carry, count: int) -> Carry:
        """The carry holds the tendencies of the last two steps; a fresh one has none and starts with Euler and AB2."""
        held = {name: tensor.transpose(-1, -2).contiguous() for name, tensor in carry.items()}
        spectrum = held["spectrum"]
        stored = [held[name] for name in ("tendency_1", "tendency_2") if name in held]
        evaluate, spare, numbers = self._tendency(spectrum), None, self._numbers(spectrum)
        edges = spectrum[..., :: spectrum.shape[-2] - 1, :]  # the wavenumbers that hold both k and -k
        for _ in range(count):
            newest = evaluate(torch.empty_like(spectrum) if spare is None else spare)
            weights = ADAMS_BASHFORTH[len(stored)]
            for weight, tendency in zip(weights, [newest, *stored], strict=True):
                numbers.add_(self._numbers(tendency), alpha=weight * self.dt)
            numbers.mul_(self._filter)
            symmetrise(edges)
            spare, stored = stored[1] if len(stored) == 2 else None, [newest, *stored[:1]]
        following = dict(zip(("spectrum", "tendency_1", "tendency_2"), [spectrum, *stored], strict=False))
        return {name: tensor.transpose(-1, -2).contiguous() for name, tensor in following.items()}

    def _streamfunction(self, state: torch.Tensor) -> tuple[SpectralGrid, torch.Tensor]:
        key = (state.shape[-1], state.dtype, state.device)
        if key not in self._inversions:
            grid = SpectralGrid(state.shape[-1], self.length, torch.float64, state.device)
            inversion = self._inversion(grid).permute(3, 2, 0, 1).to(state.dtype)
            self._inversions[key] = SpectralGrid(state.shape[-1], self.length, state.dtype, state.device), inversion
        grid, (of_upper, of_lower) = self._inversions[key]
        q = grid.forward(state)
        return grid, of_upper * q[..., :1, :, :] + of_lower * q[..., 1:, :, :]

    def velocity(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the anomaly; the mean flow comes on top."""
        grid, psi = self._streamfunction(state)
        return grid.inverse(-1j * grid.k_first * psi), grid.inverse(1j * grid.k_last * psi)

    def _courant(self, state: torch.Tensor) -> torch.Tensor:
        u, v = self.velocity(state)
        mean = torch.tensor(self.mean_velocity, dtype=u.dtype, device=u.device)[:, None, None]
        return ((u + mean).abs() + v.abs()).amax((-3, -2, -1)) * self.dt * self.resolution / self.length

    def diagnostics(self, state: torch.Tensor) -> dict[str, torch.Tensor]:
        """As pyqg defines them, of states (B, 2, N, N); spectra (B, 2, N, N // 2 + 1) hold half of all modes.

        `kinetic_energy_spectrum` |k psi_hat|^2 and `enstrophy_spectrum` |q_hat|^2 in units of a squared field;
        `eddy_kinetic_energy` (B, 2) in m^2/s^2, of the whole anomaly; `drag_dissipation` (B,) and `energy_generation`
        (B,) by the mean shear in m^2/s^3, averaged over the depth.
        """
        grid, psi = self._streamfunction(state)
        u, v = self.velocity(state)
        shear = self.mean_velocity[0] - self.mean_velocity[1]
        # The mean flow gives energy where heat is carried down its gradient: F1 H1 / H (U1 - U2) <psi1 v2>.
        transport = (grid.inverse(psi)[..., 0, :, :] * v[..., 1, :, :]).mean((-2, -1))
        return {
            "kinetic_energy_spectrum": grid.k_squared * psi.abs() ** 2 / state.shape[-1] ** 4,
            "enstrophy_spectrum": grid.forward(state).abs() ** 2 / state.shape[-1] ** 4,
            "eddy_kinetic_energy": 0.5 * (u**2 + v**2).mean((-2, -1)),
            "drag_dissipation": self.bottom_drag * self.depth_share[1] * (u**2 + v**2)[..., 1, :, :].mean((-2, -1)),
            "energy_generation": self.coupling[0] * self.depth_share[0] * shear * transport,
        }

    def energy(self, state: torch.Tensor) -> torch.Tensor:
        """Total energy of the anomaly (B,) in m^2/s^2, kinetic and available potential, averaged over the depth."""
        grid, psi = self._streamfunction(state)
        u, v = self.velocity(state)
        share = torch.tensor(self.depth_share, dtype=u.dtype, device=u.device)
        kinetic = (share * 0.5 * (u**2 + v**2).mean((-2, -1))).sum(-1)
        upper, lower = grid.inverse(psi).unbind(-3)
        return kinetic + 0.5 * self.coupling[0] * self.depth_share[0] * ((upper - lower) ** 2).mean((-2, -1))

    def observe(self, state: torch.Tensor, resolution: int) -> torch.Tensor:
        """Deviation from the mean, with `eddy_frames` from the zonal mean, in block means down to (B, 2, m, m)."""
        if self.resolution % resolution:
            raise ValueError(f"cannot take block means of {self.resolution} points down to {resolution}: no divisor")
        factor, state = self.resolution // resolution, self.admissible(state)
        return torch.nn.functional.avg_pool2d(state, factor) if factor > 1 else state

    def admissible(self, frames: torch.Tensor) -> torch.Tensor:
        """The mean of the potential vorticity neither moves anything nor ever changes, so a learnt one would drift unseen."""
        return frames - frames.mean(-1 if self.eddy_frames else (-2, -1), keepdim=True)

    def frame_velocity(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.velocity(frames)

    def augment(self, frames: torch.Tensor, generator: torch.Generator, symmetries: str = "all") -> torch.Tensor:
        """Translations in x and y; with "all" also reflection in y, which turns the sign of the potential vorticity."""
        batch, _, _, height, width = frames.shape

        def draw(high):
            return torch.randint(high, (batch, 1), generator=generator, device=generator.device).to(frames.device)

        x, y = draw(width) + torch.arange(width, device=frames.device), torch.arange(height, device=frames.device)
        shift_y, reflect = draw(height), draw(2) if symmetries == "all" else 0 * x[:, :1]
        sign = 1 - 2 * reflect
        return self._rearranged(frames, sign * y + shift_y, x, sign)

    def initial_state(self, members: int, generator: Generators) -> torch.Tensor:
        """Random upper layer and still lower layer (members, 2, N, N), as pyqg's default start: 1e-7 r(y, x) + 1e-6 r(x)
        with r uniform on [0, 1).

        `generator`: one torch.Generator for all members, or a list with one a member.
        """
        n = self.resolution
        options = {"dtype": torch.float64}
        streams = spawn(generator, members)
        numbers = torch.stack([torch.rand(n + 1, n, generator=g, device=g.device, **options) for g in streams])
        upper = 1e-7 * numbers[:, :n] + 1e-6 * numbers[:, n:]
        return torch.stack([upper, torch.zeros_like(upper)], 1).to(self.device, self.dtype)
