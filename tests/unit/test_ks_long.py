"""The measures of a run of millions of steps, on frames whose scores are known."""

from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def ks_long(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import ks_long

    return ks_long


def cosines(amplitudes: torch.Tensor) -> torch.Tensor:
    """Return frames (step, member, 1, 1, 8) that are cosines of the second shell with amplitudes (step, member)."""
    wave = torch.cos(2 * torch.pi * 2 * torch.arange(8) / 8)
    return amplitudes[:, :, None, None, None] * wave


def test_a_wave_has_its_energy_power_and_change(ks_long):
    amplitudes = torch.tensor([[1.0, 2.0]]) * (-1.0) ** torch.arange(21)[:, None]
    start, *frames = cosines(amplitudes)
    run = ks_long.measure(start, iter(frames), 20)
    np.testing.assert_allclose(run.energy, [[0.5, 2.0]] * 10, rtol=1e-6)
    np.testing.assert_allclose(run.change, [[2.0, 8.0]] * 10, rtol=1e-6)  # the sign changes at each step
    np.testing.assert_allclose(run.power[..., 2], [[2.0, 8.0]] * 10, rtol=1e-6)  # Parseval: 2 P / 8 = energy
    np.testing.assert_allclose(run.power[..., [0, 1, 3, 4]], 0, atol=1e-10)


def test_a_member_counts_until_the_tenth_in_which_it_is_lost(ks_long):
    amplitudes = torch.ones(21, 3)
    amplitudes[7:, 1] = 100.0
    amplitudes[20, 2] = torch.nan
    start, *frames = cosines(amplitudes)
    run = ks_long.measure(start, iter(frames), 20)
    assert run.lost_step.tolist() == [-1, 7, 20]
    assert np.isnan(run.energy).sum(0).tolist() == [0, 7, 1]  # step 7 is in the fourth tenth
    scores = ks_long.score(slice(0, 3), run, run.__class__(**{**vars(run), "power": np.ones((10, 3, 5))}), (2, 2))
    assert scores["members"] == "3 of 3"
    assert scores["spectrum error"] == f"{np.log10(2):.5f}"


def test_half_the_spread_is_a_quarter_of_the_variance(ks_long):
    """The energy of a run is 1, 3, 1, 3, ..., that of the reference 0, 4, 0, 4, ...: variances of 1 and 4, means of 2."""
    alternating = (torch.arange(40) % 2)[:, None] * torch.ones(1, 4)
    run, reference = (
        ks_long.measure(frames[0], iter(frames), 40)
        for frames in (cosines((2 * energy).sqrt()) for energy in (1 + 2 * alternating, 4 * alternating))
    )
    scores = ks_long.score(slice(None), run, reference, (2, 2))
    assert scores["energy"] == "1.0000 ± 0.0000"
    assert scores["its variance"] == "0.2500 ± 0.0000"
