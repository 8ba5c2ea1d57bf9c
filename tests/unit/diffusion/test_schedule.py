"""Schedules of noise levels against the published formulas."""

import math

import pytest
import torch
from oracles import F64, levels_of, same_bits, schedule_of

from sns_core.diffusion import NoiseSchedule
from sns_core.streams import generator


@pytest.mark.parametrize("kind", ["cosine", "linear", "log_spaced"])
@pytest.mark.parametrize("levels", [1, 20, 100, 1000])
def test_every_schedule_starts_clean_and_falls_strictly(kind, levels):
    table = NoiseSchedule.build(kind, levels).alpha_bar
    assert table.dtype == F64 and table.shape == (levels + 1,)
    assert table[0] == 1 and table[-1] > 0
    assert (table.diff() < 0).all()


def test_the_number_of_levels_is_the_noisiest_level():
    schedule = NoiseSchedule.cosine(7)
    assert schedule.levels == 7
    assert schedule.sigma(levels_of(0))[0] == 0 and schedule.signal(levels_of(0))[0] == 1
    total = schedule.signal(torch.arange(8)) ** 2 + schedule.sigma(torch.arange(8)) ** 2
    torch.testing.assert_close(total, torch.ones(8, dtype=F64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("levels", [10, 1000])
def test_cosine_betas_are_the_published_ones_clipped(levels):
    table = NoiseSchedule.cosine(levels).alpha_bar.tolist()

    def published(t):
        return math.cos((t / levels + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in range(1, levels + 1):
        beta = min(1 - published(t) / published(t - 1), 0.999)
        assert 1 - table[t] / table[t - 1] == pytest.approx(beta, rel=1e-9)
    # Without the clip, the last beta would be 1 and would remove the whole signal.
    assert 1 - table[-1] / table[-2] == pytest.approx(0.999, abs=1e-12)
    assert table[levels // 2] == pytest.approx(published(levels // 2) / published(0), rel=1e-9)


def test_linear_betas_are_the_published_ones_at_a_thousand_levels():
    table = NoiseSchedule.linear(1000).alpha_bar
    beta = 1 - table[1:] / table[:-1]
    expected = torch.tensor([1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)], dtype=F64)
    torch.testing.assert_close(beta, expected, rtol=1e-9, atol=0)


def test_the_total_noise_of_the_linear_schedule_hardly_depends_on_the_number_of_levels():
    # The sum of the betas does not depend on the number of levels. The sum of their squares does: 3 % at 200 levels.
    long, short = (math.log(NoiseSchedule.linear(n).alpha_bar[-1]) for n in (1000, 200))
    assert short == pytest.approx(long, rel=0.05)


def test_log_spaced_levels_multiply_the_noise_to_signal_ratio():
    table = NoiseSchedule.log_spaced(5, first=0.01, last=100.0).alpha_bar[1:]
    ratio = ((1 - table) / table).sqrt()
    torch.testing.assert_close(ratio, torch.tensor([0.01, 0.1, 1, 10, 100], dtype=F64), rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    "table", [[0.9, 0.5], [1.0, 0.5, 0.5], [1.0, 0.5, 0.6], [1.0, 0.0], [1.0, -0.1], [1.0], [[1.0, 0.5]]]
)
def test_a_table_that_is_no_schedule_is_refused(table):
    with pytest.raises(ValueError, match="alpha_bar"):
        NoiseSchedule(torch.tensor(table, dtype=F64))


def test_the_message_for_an_unknown_schedule_lists_the_schedules():
    with pytest.raises(ValueError, match=r"'sigmoid'.*cosine, linear, log_spaced"):
        NoiseSchedule.build("sigmoid", 10)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_noising_to_level_zero_returns_the_same_bits(dtype):
    g = generator("test", "add_noise")
    x, noise = (torch.randn(5, 2, 4, 4, generator=g, dtype=dtype) * 10 for _ in range(2))
    noised = schedule_of(10).add_noise(x, levels_of(0, 3, 0, 10, 0), noise)
    for member in (0, 2, 4):
        assert same_bits(noised[member], x[member])
    for member in (1, 3):
        assert not torch.allclose(noised[member], x[member], atol=0.1)


def test_noising_mixes_signal_and_noise_by_each_members_own_level():
    schedule, g = schedule_of(10), generator("test", "add_noise")
    x, noise = (torch.randn(3, 1, 2, 2, generator=g, dtype=F64) for _ in range(2))
    noised = schedule.add_noise(x, levels_of(2, 9, 5), noise)
    for member, level in enumerate((2, 9, 5)):
        a = schedule.alpha_bar[level].item()
        torch.testing.assert_close(noised[member], math.sqrt(a) * x[member] + math.sqrt(1 - a) * noise[member])
