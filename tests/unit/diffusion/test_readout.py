"""The read-out of noise levels from the probabilities of the two heads."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracles import F64

from sns_core.diffusion import LevelReadout
from sns_core.methods.refinement import build_readout
from sns_core.streams import generator

PROBABILITIES = torch.tensor([[0.05, 0.5, 0.2, 0.25], [0.3, 0.1, 0.15, 0.45]], dtype=F64)


@pytest.mark.parametrize(
    ("readout", "expected"),
    [
        (LevelReadout(), [1, 3]),
        (LevelReadout("quantile", 0.04), [0, 0]),
        (LevelReadout("quantile"), [1, 0]),
        (LevelReadout("quantile", 0.35), [1, 1]),
        (LevelReadout("quantile", 0.6), [2, 3]),
        (LevelReadout("quantile", 0.9), [3, 3]),
        (LevelReadout("mean"), [2, 2]),  # 1.65 and 1.75
    ],
)
def test_readouts_of_two_distributions_worked_by_hand(readout, expected):
    levels = readout(PROBABILITIES.log())
    assert levels.dtype == torch.int64 and levels.tolist() == expected
    # Logits are defined up to a constant, and cover both frames at once.
    both = readout((PROBABILITIES.log() + 3.0).float().expand(5, 2, 4))
    assert both.shape == (5, 2) and (both == torch.tensor(expected)).all()


def test_the_mean_of_a_symmetric_distribution_is_its_middle():
    logits = torch.tensor([0.0, 1.0, 2.0, 1.0, 0.0])
    assert LevelReadout("mean")(logits).item() == 2


def test_a_level_above_the_quantile_is_never_skipped_or_overrun():
    certain = torch.full((4,), -torch.inf)
    certain[2] = 0.0
    for q in (1e-6, 0.5, 1 - 1e-12):
        assert LevelReadout("quantile", q)(certain).item() == 2
    # Rounding may leave the last cumulative probability below q.
    flat = torch.zeros(1001)
    assert LevelReadout("quantile", 1 - 1e-16)(flat).item() <= 1000
    assert LevelReadout("sample")(flat, torch.tensor(1.0)).item() <= 1000


def test_the_quantile_readout_rises_with_the_quantile():
    logits = 2 * torch.randn(50, 2, 21, generator=generator("test", "quantile"))
    previous = torch.zeros(50, 2, dtype=torch.int64)
    for q in np.linspace(0.02, 0.98, 25):
        levels = LevelReadout("quantile", float(q))(logits)
        assert (levels >= previous).all()
        cumulative = logits.double().softmax(-1).cumsum(-1)
        assert (cumulative.gather(-1, levels[..., None]) >= q).all()
        below = cumulative.gather(-1, (levels - 1).clamp(min=0)[..., None])[..., 0]
        assert ((below < q) | (levels == 0)).all()
        previous = levels
    assert previous.min() > 0


def test_samples_invert_the_cumulative_distribution():
    readout = LevelReadout("sample")
    uniform = torch.tensor([0.0, 0.04, 0.06, 0.54, 0.56, 0.74, 0.76, 0.999], dtype=F64)
    logits = PROBABILITIES[0].log().expand(8, 4)
    assert readout(logits, uniform).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    even = (torch.arange(1000, dtype=F64) + 0.5) / 1000
    counts = torch.bincount(readout(PROBABILITIES[1].log().expand(1000, 4), even), minlength=4)
    assert counts.tolist() == [300, 100, 150, 450]
    with pytest.raises(ValueError, match="uniform"):
        readout(logits)


def test_the_calibrated_readout_refines_the_set_share_of_the_held_out_pairs_for_each_head():
    # Two heads on 2000 held-out pairs, with logits over 6 levels. One head is far more certain than the other head.
    logits = torch.randn(2000, 2, 6, generator=generator("test", "calibrated"))
    logits[:, 1, 0] += 4.0
    clean = logits.double().softmax(-1)[..., 0]
    quantiles = torch.quantile(clean, torch.linspace(0, 1, 401, dtype=F64), dim=0).T
    for share in (0.05, 0.3):
        readout = LevelReadout("calibrated", share, quantiles)
        refined = (readout(logits) > 0).double().mean(0)
        # The calibration stores 401 quantiles, so the share is exact to 1/400 and to one pair.
        assert ((refined - share).abs() < 1 / 400).all(), refined
    # For a pair that it refines, the read-out gives the median, and never level 0.
    readout = LevelReadout("calibrated", 0.3, quantiles)
    median = LevelReadout("quantile", 0.5)(logits).clamp(min=1)
    levels = readout(logits)
    assert (levels[levels > 0] == median[levels > 0]).all() and (levels > 0).any(0).all()
    # Heads must not be exchanged: with the threshold of the more certain head, the other head would refine nearly all pairs.
    assert (LevelReadout("calibrated", 0.3, quantiles.flip(0))(logits) > 0).double().mean(0)[0] > 0.9


@pytest.mark.parametrize("surplus", [4.0, 20.0, 30.0])
def test_heads_that_are_nearly_certain_refine_the_set_share_of_the_held_out_pairs(surplus):
    """In single precision, a probability above 1 - 3e-8 is 1, and no true pair would reach the share's threshold."""
    logits = torch.randn(2000, 2, 6, generator=generator("test", "certain"))
    logits[:, :, 0] += surplus
    clean = logits.double().softmax(-1)[..., 0]
    note = {"clean_probability": torch.quantile(clean, torch.linspace(0, 1, 401, dtype=F64), dim=0).T.tolist()}
    readout = build_readout(
        SimpleNamespace(models={"denoiser": SimpleNamespace(note=note)}), {"kind": "calibrated", "refine_share": 0.05}
    )
    refined = (readout(logits) > 0).double().mean(0)
    assert ((refined - 0.05).abs() < 1 / 400).all(), refined


def test_a_calibrated_readout_without_a_calibration_is_refused():
    with pytest.raises(ValueError, match="calibrated"):
        LevelReadout("calibrated")


def test_readouts_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"'median'.*argmax, .*sample"):
        LevelReadout("median")
    for q in (0.0, 1.0, -0.1, 2.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            LevelReadout("quantile", q)
