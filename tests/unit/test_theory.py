"""The theorems on a Gaussian process: slopes, exact limits, and the scales that reveal a level."""

import numpy as np
import pytest
import torch

from sns_core.diffusion import NoiseSchedule
from sns_core.theory.compute import (
    COLOURS,
    PATHS,
    SAMPLERS,
    field_process,
    law_errors,
    learn_process,
    level_information,
    score_difference,
    trade_off,
)

SCHEDULE = NoiseSchedule.cosine(20)


def test_the_random_field_has_unit_variance_and_forgets_small_scales_first():
    oracle = field_process(8, SCHEDULE)
    assert torch.allclose(oracle.stationary.diagonal(), torch.ones(64, dtype=torch.float64), atol=1e-12)
    wave = torch.cos(2 * np.pi * torch.arange(8, dtype=torch.float64) / 8)
    large, small = wave.repeat(8), torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(32)
    assert torch.allclose(oracle.transition @ large, 0.97 * large, atol=1e-12)
    assert torch.allclose(oracle.transition @ small, 0.97**4 * small, atol=1e-12)


def test_every_path_and_sampler_converges_to_the_one_law():
    levels = [40, 80, 160]
    error = law_errors(levels)["law_error"][1]
    slopes = -np.diff(np.log(error), axis=-1) / np.diff(np.log(levels))
    for index, sampler in enumerate(SAMPLERS):
        assert (slopes[:, index] > 0.75).all(), sampler
    ddim, heun = (error[:, list(SAMPLERS).index(name)] for name in ("ddim", "heun"))
    assert (heun < 0.2 * ddim).all() and error.shape == (len(PATHS), len(SAMPLERS), 3)


def test_conditional_scores_are_the_halves_of_the_joint_one():
    assert score_difference(SCHEDULE, 0) < 1e-13


def test_a_network_nears_the_oracle_and_its_loss_exceeds_the_oracles():
    torch.set_num_threads(1)
    result = learn_process(field_process(4, SCHEDULE), 4, [2, 150], seed=0)
    loss, least = result["network_loss"][1], result["oracle_loss"][1]
    assert least < loss[1] < loss[0]
    assert result["network_distance"][1][1].mean() < 0.3 * result["network_distance"][1][0].mean()


def test_the_best_level_of_a_condition_rises_with_its_drift():
    result = trade_off(field_process(8, SCHEDULE), [0.0, 0.4, 0.8, 2.0], seed=0)
    error, best = result["condition_error"][1], result["best_level"][1]
    assert error[0, 0] == pytest.approx(0, abs=1e-12) and best[0] == 0
    assert (np.diff(best) >= 0).all() and best[-1] > 0
    assert np.allclose(error[:, -1], error[0, -1], rtol=0.05)  # pure noise hides the drift
    estimated = result["estimated_level"][1].mean(1)
    assert (np.diff(estimated) > 0).all()


def test_white_noise_is_read_in_the_smallest_scales_and_full_colour_hides_the_level():
    information = level_information(SCHEDULE, 32, 2.0)["information"][1]
    white, quarter, full = (information[COLOURS.index(p)] for p in (0.0, 0.25, 1.0))
    low = 1
    assert white[low, 12:].sum() > 0.8 * white[low].sum() > quarter[low].sum()
    assert np.abs(full).max() < 1e-20
