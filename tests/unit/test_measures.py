"""The one function that measures frames, the one rule for lost members, and the shells that all rooms share."""

import numpy as np
import pytest
import torch
import xarray as xr

from sns_core.metrics.distances import BINS
from sns_core.metrics.distributions import component_scales
from sns_core.metrics.lost import LOST_BEYOND, count_lost, first_lost_step, is_alive, is_lost, steps_alive
from sns_core.metrics.measures import measure
from sns_core.metrics.temporal import rate_of_change, temporal_correlation
from sns_core.shells import filtered, mode_weight, shell_index, shell_power
from sns_core.systems import KolmogorovFlow, TwoLayerQG

STEP = 0.1


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measured(system, channels, members=3, count=6, before=4):
    scale = (1 + torch.arange(channels, dtype=torch.float32))[:, None, None]
    states = noise(4, channels, 16, 16, seed=1) * scale
    frames = noise(members, before + count, channels, 16, 16, seed=2)
    options = {"system": system, "scale": scale, "component_scales": component_scales(system, states, 16)}
    return frames, scale, measure(frames[:, before:], frames[:, :before], step_size=STEP, **options)


@pytest.mark.parametrize(
    ("system", "channels"), [(KolmogorovFlow(16), 1), (TwoLayerQG(16, dt=3600.0), 2)], ids=["Kolmogorov", "two layers"]
)
def test_every_measure_is_what_its_definition_gives(system, channels):
    frames, scale, measures = measured(system, channels)
    shown = frames[:, 4:]
    field = (shown * scale).flatten(0, 1)
    u, v = system.frame_velocity(field)
    energy = (0.5 * (u**2 + v**2)).mean((-2, -1)).view(3, 6, channels)
    assert torch.allclose(measures["kinetic_energy"], energy, rtol=1e-6)
    assert torch.allclose(measures["enstrophy"].flatten(0, 1), 0.5 * (field**2).mean((-2, -1)), rtol=1e-6)
    spacing = 2 * np.pi / system.length
    assert torch.allclose((measures["energy_spectrum"] * spacing).sum(-1), energy, rtol=1e-5), "Parseval"
    assert torch.allclose(measures["zonal_velocity"].flatten(0, 1), u.mean(-1))
    assert torch.allclose(measures["rate_of_change"].mean(0), rate_of_change(frames[:, 3:], STEP), rtol=1e-5)
    change = (shown - frames[:, 3:-1]).square().mean((2, 3, 4)) / frames[:, 3:-1].square().mean((2, 3, 4))
    assert torch.allclose(measures["relative_change"], change.sqrt())
    assert measures["correlation"].shape == (3, 6, 5)
    assert float(measures["correlation"][..., 4].mean()) == pytest.approx(
        float(temporal_correlation(frames, 4)[4]), abs=1e-6
    )
    assert torch.equal(measures["max_abs"], shown.abs().amax((2, 3, 4)))
    for name, components in (("vorticity", 1), ("velocity", 2), ("gradient", 2)):
        counts = measures[f"{name}_counts"]
        assert counts.shape == (3, channels, BINS) and (counts.sum(-1) == 6 * 256 * components).all()


def test_blocks_measure_what_the_whole_series_does():
    system = KolmogorovFlow(16)
    frames, scale, whole = measured(system, 1, count=8)
    units = component_scales(system, noise(4, 1, 16, 16, seed=1) * scale, 16)
    options = {"system": system, "scale": scale, "component_scales": units, "step_size": STEP}
    parts = [measure(frames[:, s : s + 4], frames[:, s - 4 : s], **options) for s in (4, 8)]
    for name, values in whole.items():
        joined = sum(p[name] for p in parts) if name.endswith("_counts") else torch.cat([p[name] for p in parts], 1)
        assert torch.allclose(joined.float(), values.float(), rtol=1e-5, atol=1e-6), name


def test_what_comes_before_a_trajectory_is_unknown():
    system = KolmogorovFlow(16)
    frames, scale, _ = measured(system, 1)
    units = component_scales(system, noise(4, 1, 16, 16, seed=1) * scale, 16)
    measures = measure(
        frames,
        torch.full_like(frames[:, :4], torch.nan),
        system=system,
        scale=scale,
        component_scales=units,
        step_size=STEP,
    )
    assert measures["rate_of_change"][:, 0].isnan().all() and not measures["rate_of_change"][:, 1:].isnan().any()
    earlier = torch.arange(10)[:, None] - torch.arange(5) < 0
    assert torch.equal(measures["correlation"].isnan(), earlier.expand(3, -1, -1))


# --- lost members ---


def test_a_member_is_lost_at_its_first_step_beyond_the_limit_or_without_a_value():
    max_abs = np.ones((4, 5))
    max_abs[1, 3:] = LOST_BEYOND + 1e-3
    max_abs[2, 0] = np.nan
    max_abs[3, 4] = LOST_BEYOND
    lost = first_lost_step(max_abs, 11)
    assert lost.tolist() == [-1, 14, 11, -1]
    assert is_lost(lost).tolist() == [False, True, True, False]
    assert steps_alive(lost, 20).tolist() == [20, 13, 10, 20]
    assert [count_lost(lost, step) for step in (10, 11, 13, 14)] == [0, 1, 1, 2] and count_lost(lost) == 2


def test_a_member_is_alive_in_a_block_if_it_is_at_its_last_step():
    lost = xr.DataArray([-1, 11, 20], dims="member")
    alive = is_alive(lost, xr.DataArray([10, 20], dims="block"))
    assert alive.values.tolist() == [[True, True], [True, False], [True, False]]


# --- shells ---


@pytest.mark.parametrize("n", [8, 12, 9])
def test_shells_and_weights_count_every_mode_of_the_full_spectrum_once(n):
    first, last = np.meshgrid(np.fft.fftfreq(n, 1 / n), np.fft.fftfreq(n, 1 / n), indexing="ij")
    whole = np.bincount(np.rint(np.hypot(first, last)).astype(int).ravel())
    assert np.bincount(shell_index(n).ravel(), mode_weight(n).ravel()).tolist() == whole.tolist()
    assert mode_weight(n).sum() == n * n


def test_white_noise_has_the_power_of_one_in_every_shell():
    power = shell_power(noise(4, 500, 2, 8, 8, seed=3).numpy()) / 2000
    assert power.shape == (2, 7) and power == pytest.approx(np.ones((2, 7)), abs=0.12)


def test_a_filter_keeps_the_modes_that_it_lets_through_whatever_the_batch():
    fields = noise(3, 2, 8, 8, seed=4)
    low = torch.from_numpy(shell_index(8) <= 2)
    passed = filtered(fields, low)
    assert torch.allclose(filtered(passed, low), passed, atol=1e-6)
    assert torch.allclose(passed + filtered(fields, ~low), fields, atol=1e-6)
    assert torch.equal(filtered(fields[:1], low), passed[:1]), "alone as in company, bit for bit"
