"""The one function that measures frames: the solver's ensemble and every rollout are measured by the same lines.

Rollouts call `measure` once for each block of steps, and the reference once for each trajectory of the solver. The caller
takes the means over time, because a rollout keeps series and the reference keeps means and mean squares.
"""

import torch

from sns_core.metrics.distributions import components, histogram
from sns_core.metrics.spectra import kinetic_energy_spectrum
from sns_core.metrics.temporal import centred, lagged_correlation, zonal_direction
from sns_core.systems import System

COUNTED = ("vorticity", "velocity", "gradient")  # the quantities whose values are counted in histograms


def measure(
    frames: torch.Tensor,
    before: torch.Tensor,
    *,
    system: System,
    scale: torch.Tensor,
    component_scales: dict[str, torch.Tensor],
    step_size: float,
) -> dict[str, torch.Tensor]:
    """Measure consecutive frames of each member.

    frames: (B, n, C, m, m), in units of `scale` (C, 1, 1), the standard deviation of the training data; before:
    (B, L, C, m, m), the L >= 1 frames before them, oldest first, NaN where there are none; component_scales: units of the
    histograms of vectors, from `component_scales`; step_size: time between frames.

    Returns, in the system's units unless stated:
    kinetic_energy, enstrophy   (B, n, C) means over space of (u^2 + v^2) / 2 and of half the squared field
    energy_spectrum             (B, n, C, K) energy density over wavenumber shells
    zonal_velocity              (B, n, C, m) mean over x of the velocity along x
    zonal_direction             (B, n, C, m) see the function of that name
    rate_of_change              (B, n) mean of |x_t - x_{t-1}| over time step, in `scale`; all layers together
    relative_change             (B, n) root mean square of x_t - x_{t-1}, divided by that of x_{t-1}
    correlation                 (B, n, L + 1) correlation of each frame with those 0 .. L frames before it
    max_abs                     (B, n) largest absolute value, in `scale`
    vorticity_counts, velocity_counts, gradient_counts   (B, C, bins) histograms over space and all n frames
    """
    members, count, channels = frames.shape[:3]
    history = torch.cat([before, frames], 1)
    previous = history[:, -count - 1 : -1]
    change = frames - previous

    field = (frames * scale).flatten(0, 1)
    u, v = system.frame_velocity(field)
    vectors = components(system, field, u, v)
    spectra = [kinetic_energy_spectrum(u[:, [c]], v[:, [c]], system.length)[1] for c in range(channels)]
    unit = centred(history)
    lags = before.shape[1]

    def by_member(values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(0, (members, count))

    measured = {
        "kinetic_energy": by_member(0.5 * (u.square() + v.square()).mean((-2, -1))),
        "enstrophy": by_member(0.5 * field.square().mean((-2, -1))),
        "energy_spectrum": by_member(torch.stack(spectra, 1)),
        "zonal_velocity": by_member(u.mean(-1)),
        "zonal_direction": zonal_direction(frames),
        "rate_of_change": change.abs().mean((2, 3, 4)) / step_size,
        "relative_change": (change.square().mean((2, 3, 4)) / previous.square().mean((2, 3, 4))).sqrt(),
        "correlation": lagged_correlation(unit[:, :lags], unit[:, lags:]),
        "max_abs": frames.abs().amax((2, 3, 4)),
        "vorticity_counts": histogram(frames.transpose(1, 2)),
    }
    for name, values in vectors.items():
        measured[f"{name}_counts"] = histogram(by_member(values / component_scales[name]).transpose(1, 2))
    return measured
