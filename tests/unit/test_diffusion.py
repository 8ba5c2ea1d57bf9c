"""The plane of noise levels against closed forms: schedule, paths, exact oracle, walk, noise colour and read-out."""

import math

import numpy as np
import pytest
import torch

from sns_core.diffusion import PATHS, GaussianOracle, LevelReadout, NoiseColour, NoiseSchedule, Path, Sampler, walk
from sns_core.diffusion.prediction import Prediction, ResidualPrediction, build_prediction
from sns_core.diffusion.schedule import PREDICTIONS
from sns_core.runtime import generator

F64 = torch.float64
SAMPLERS = {"ancestral": Sampler(), "forward": Sampler(variance="forward"), "ddim": Sampler(eta=0.0)}
TO_CLEAN = ("left_then_down", "down_then_left", "diagonal")

# Not symmetric and with complex eigenvalues, so that a transposed block or a swapped frame cannot hide.
TRANSITION = torch.tensor([[0.8, 0.3, 0.0], [-0.25, 0.7, 0.2], [0.1, 0.0, 0.5]], dtype=F64)
INNOVATION = torch.tensor([[0.3, 0.05, 0.0], [0.05, 0.2, 0.02], [0.0, 0.02, 0.4]], dtype=F64)


def schedule_of(levels: int) -> NoiseSchedule:
    return NoiseSchedule.cosine(levels)


def oracle_3d(levels: int) -> GaussianOracle:
    return GaussianOracle(TRANSITION, INNOVATION, schedule_of(levels))


def oracle_1d(levels: int, correlation: float = 0.9) -> GaussianOracle:
    """Unit variance in both frames."""
    return scalar_oracle(correlation, 1 - correlation**2, schedule_of(levels))


def scalar_oracle(correlation: float, innovation: float, schedule: NoiseSchedule) -> GaussianOracle:
    return GaussianOracle(*(torch.tensor([[x]], dtype=F64) for x in (correlation, innovation)), schedule)


def levels_of(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def visited(path: Path, member: int = 0) -> list[tuple[int, int]]:
    return [tuple(pair) for pair in path.levels[:, member].tolist()]


def streams_of(members, purpose="walk") -> list[torch.Generator]:
    return [generator("test", purpose, member) for member in members]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    whole = {torch.float32: torch.int32, torch.float64: torch.int64}[a.dtype]
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(whole), b.contiguous().view(whole))


class Recorder:
    """A denoiser that keeps what it was asked, in front of another one."""

    def __init__(self, denoiser):
        self.denoiser, self.asked = denoiser, []

    def __call__(self, x_prev, x_next, s_prev, s_next, anchor=None):
        self.asked.append((x_prev.clone(), x_next.clone(), s_prev.clone(), s_next.clone(), anchor))
        return self.denoiser(x_prev, x_next, s_prev, s_next, anchor)


# --- schedules -------------------------------------------------------------------------------------------------------


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
    # Unclipped, the last beta is 1: nothing of the signal would be left.
    assert 1 - table[-1] / table[-2] == pytest.approx(0.999, abs=1e-12)
    assert table[levels // 2] == pytest.approx(published(levels // 2) / published(0), rel=1e-9)


def test_linear_betas_are_the_published_ones_at_a_thousand_levels():
    table = NoiseSchedule.linear(1000).alpha_bar
    beta = 1 - table[1:] / table[:-1]
    expected = torch.tensor([1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)], dtype=F64)
    torch.testing.assert_close(beta, expected, rtol=1e-9, atol=0)


def test_the_total_noise_of_the_linear_schedule_hardly_depends_on_the_number_of_levels():
    # The sum of the betas is kept; their squares, 3 % of it at 200 levels, are not.
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


def test_an_unknown_schedule_names_the_known_ones():
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


# --- reverse steps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cosine", "linear", "log_spaced"])
def test_ancestral_steps_have_the_mean_and_variance_of_the_ddpm_posterior(kind):
    schedule = NoiseSchedule.build(kind, 25)
    a = schedule.alpha_bar.tolist()
    start = torch.arange(1, 26)
    of_x, of_noise, fresh = schedule.reverse_coefficients(start, start - 1)
    x_s, clean = 0.7, -1.3
    for row, t in enumerate(range(1, 26)):
        # Ho et al. 2020, equations 6 and 7, in terms of the clean value.
        beta = 1 - a[t] / a[t - 1]
        mean = math.sqrt(a[t - 1]) * beta / (1 - a[t]) * clean + math.sqrt(1 - beta) * (1 - a[t - 1]) / (1 - a[t]) * x_s
        variance = (1 - a[t - 1]) / (1 - a[t]) * beta
        noise = (x_s - math.sqrt(a[t]) * clean) / math.sqrt(1 - a[t])
        # The noisiest cosine level divides by sqrt(a) = 2e-3 or so, which costs three digits.
        assert (of_x[row] * x_s + of_noise[row] * noise).item() == pytest.approx(mean, rel=1e-10, abs=1e-10)
        assert (fresh[row] ** 2).item() == pytest.approx(variance, rel=1e-12, abs=1e-15)


def test_an_ancestral_stride_is_the_posterior_given_the_clean_value_by_bayes():
    schedule = schedule_of(30)
    a = schedule.alpha_bar.tolist()
    x_s, clean = 0.7, -1.3
    for s, r in ((30, 22), (17, 3), (9, 1), (5, 4)):
        # x^r | clean is a prior, x^s | x^r a likelihood: precisions add.
        keep = a[s] / a[r]
        precision = 1 / (1 - a[r]) + keep / (1 - keep)
        mean = (math.sqrt(a[r]) * clean / (1 - a[r]) + math.sqrt(keep) * x_s / (1 - keep)) / precision
        noise = (x_s - math.sqrt(a[s]) * clean) / math.sqrt(1 - a[s])
        of_x, of_noise, fresh = schedule.reverse_coefficients(levels_of(s), levels_of(r))
        assert (of_x * x_s + of_noise * noise).item() == pytest.approx(mean, rel=1e-10, abs=1e-10)
        assert (fresh**2).item() == pytest.approx(1 / precision, rel=1e-10)


def test_deterministic_steps_are_ddim_and_add_no_noise():
    schedule = schedule_of(30)
    a = schedule.alpha_bar.tolist()
    x_s, noise = 0.7, -0.4
    for s, r in ((30, 29), (30, 10), (8, 3), (4, 0)):
        clean = (x_s - math.sqrt(1 - a[s]) * noise) / math.sqrt(a[s])
        of_x, of_noise, fresh = schedule.reverse_coefficients(levels_of(s), levels_of(r), eta=0.0)
        expected = math.sqrt(a[r]) * clean + math.sqrt(1 - a[r]) * noise
        assert (of_x * x_s + of_noise * noise).item() == pytest.approx(expected, rel=1e-10)
        assert fresh.item() == 0


def test_two_deterministic_steps_of_a_point_mass_compose_to_one():
    schedule = schedule_of(30)
    clean, noise = 1.7, -0.6  # for a point, the noise in x^s is known exactly and is the same at every level

    def step(x, s, r):
        of_x, of_noise, _ = schedule.reverse_coefficients(levels_of(s), levels_of(r), eta=0.0)
        return (of_x * x + of_noise * noise).item()

    x = (schedule.signal(levels_of(28)) * clean + schedule.sigma(levels_of(28)) * noise).item()
    assert step(step(x, 28, 13), 13, 5) == pytest.approx(step(x, 28, 5), rel=1e-12)
    assert step(step(x, 28, 13), 13, 0) == pytest.approx(clean, rel=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_a_reverse_step_of_a_point_mass_keeps_the_law_of_the_level_for_every_eta(eta):
    schedule = schedule_of(12)
    start, stop = (side.flatten() for side in torch.meshgrid(torch.arange(13), torch.arange(13), indexing="ij"))
    start, stop = start[stop < start], stop[stop < start]
    of_x, of_noise, fresh = schedule.reverse_coefficients(start, stop, eta)
    from_noise = of_x * schedule.sigma(start) + of_noise
    torch.testing.assert_close(of_x * schedule.signal(start), schedule.signal(stop), rtol=1e-12, atol=0)
    torch.testing.assert_close(from_noise**2 + fresh**2, schedule.sigma(stop) ** 2, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variance", ["posterior", "forward"])
def test_eta_scales_the_standard_deviation_of_the_fresh_noise(variance):
    start, stop = levels_of(12, 7, 3), levels_of(11, 2, 1)
    fresh = [schedule_of(12).reverse_coefficients(start, stop, eta, variance)[2] for eta in (0.3, 1.0)]
    torch.testing.assert_close(fresh[0], 0.3 * fresh[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_a_step_to_the_same_level_changes_nothing_and_arrival_adds_no_noise(sampler):
    schedule = schedule_of(12)
    every = torch.arange(13)
    of_x, of_noise, fresh = schedule.reverse_coefficients(every, every, sampler.eta, sampler.variance)
    assert (of_x == 1).all() and (of_noise == 0).all() and (fresh == 0).all()
    _, _, fresh = schedule.reverse_coefficients(every, torch.zeros_like(every), sampler.eta, sampler.variance)
    assert (fresh == 0).all()


def test_forward_variance_is_the_noise_of_the_forward_step():
    schedule = schedule_of(12)
    a = schedule.alpha_bar.tolist()
    start, stop = levels_of(12, 7, 3, 3), levels_of(11, 4, 1, 0)
    means = schedule.reverse_coefficients(start, stop)[:2]
    *same_means, fresh = schedule.reverse_coefficients(start, stop, variance="forward")
    assert all(torch.equal(x, y) for x, y in zip(means, same_means, strict=True))
    expected = [1 - a[12] / a[11], 1 - a[7] / a[4], 1 - a[3] / a[1], 0.0]
    torch.testing.assert_close(fresh**2, torch.tensor(expected, dtype=F64), rtol=1e-12, atol=0)


def test_an_unknown_variance_is_refused():
    with pytest.raises(ValueError, match=r"'learned'.*posterior, forward"):
        schedule_of(4).reverse_coefficients(levels_of(2), levels_of(1), variance="learned")


# --- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "start", "stride", "expected"),
    [
        ("left_then_down", (2, 3), 1, [(2, 3), (1, 3), (0, 3), (0, 2), (0, 1), (0, 0)]),
        ("left_then_down", (3, 4), 2, [(3, 4), (1, 4), (0, 4), (0, 2), (0, 0)]),
        ("left_then_down", (0, 2), 1, [(0, 2), (0, 1), (0, 0)]),
        ("down_then_left", (2, 3), 1, [(2, 3), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0)]),
        ("down_then_left", (4, 3), 3, [(4, 3), (4, 0), (1, 0), (0, 0)]),
        ("down_then_left", (2, 0), 1, [(2, 0), (1, 0), (0, 0)]),
        ("diagonal", (2, 4), 1, [(2, 4), (2, 3), (2, 2), (1, 1), (0, 0)]),
        ("diagonal", (3, 1), 1, [(3, 1), (2, 1), (1, 1), (0, 0)]),
        ("diagonal", (5, 2), 2, [(5, 2), (3, 2), (2, 2), (0, 0)]),
        ("diagonal", (3, 6), 2, [(3, 6), (3, 4), (3, 3), (1, 1), (0, 0)]),
        ("diagonal", (2, 2), 5, [(2, 2), (0, 0)]),
        ("fixed_condition", (2, 3), 1, [(2, 3), (2, 2), (2, 1), (2, 0)]),
        ("fixed_condition", (4, 3), 2, [(4, 3), (4, 1), (4, 0)]),
        ("clean", (0, 2), 1, [(0, 2), (0, 1), (0, 0)]),
        ("unconditional", (6, 2), 1, [(6, 2), (6, 1), (6, 0)]),
        ("acdm", (3, 3), 1, [(3, 3), (2, 2), (1, 1), (0, 0)]),
        ("acdm", (3, 3), 2, [(3, 3), (1, 1), (0, 0)]),
        ("left_then_down", (0, 0), 1, [(0, 0)]),
        ("diagonal", (0, 0), 1, [(0, 0)]),
    ],
)
def test_each_path_visits_the_levels_written_out_by_hand(name, start, stride, expected):
    path = getattr(Path, name)(*start, stride)
    assert visited(path) == expected
    assert path.levels.dtype == torch.int64
    assert path.start.tolist() == [list(start)]
    assert path.calls.tolist() == [len(expected) - 1]
    assert path.renoise == (name == "acdm")


def starts_for(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    s_prev, s_next = levels_of(5, 0, 1, 7, 3, 0, 4), levels_of(2, 3, 0, 7, 8, 0, 5)
    if name == "clean":
        s_prev = torch.zeros_like(s_prev)
    return (s_next, s_next) if name == "acdm" else (s_prev, s_next)


@pytest.mark.parametrize("stride", [1, 2, 3, 50])
@pytest.mark.parametrize("name", PATHS)
def test_members_of_a_batch_follow_their_own_path_and_then_wait(name, stride):
    s_prev, s_next = starts_for(name)
    path = getattr(Path, name)(s_prev, s_next, stride)
    longest = 0
    for member in range(len(s_next)):
        alone = visited(getattr(Path, name)(int(s_prev[member]), int(s_next[member]), stride))
        together = visited(path, member)
        assert together[: len(alone)] == alone
        assert all(pair == alone[-1] for pair in together[len(alone) :])
        assert path.calls[member] == len(alone) - 1
        longest = max(longest, len(alone))
    assert len(path.levels) == longest


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("name", PATHS)
def test_no_path_ever_goes_up_or_right_or_further_than_its_stride(name, stride):
    path = getattr(Path, name)(*starts_for(name), stride)
    moves = path.levels.diff(dim=0)
    assert (moves <= 0).all() and (moves >= -stride).all() and (moves < 0).any()
    assert (path.levels[-1, :, 1] == 0).all()
    arrives = name in (*TO_CLEAN, "clean", "acdm")
    assert bool((path.levels[-1] == 0).all()) == arrives


def test_one_level_is_shared_by_all_members_of_the_other():
    path = Path.left_then_down(1, levels_of(2, 0))
    assert visited(path, 0) == [(1, 2), (0, 2), (0, 1), (0, 0)]
    assert visited(path, 1) == [(1, 0), (0, 0), (0, 0), (0, 0)]


@pytest.mark.parametrize("name", PATHS)
def test_negative_levels_and_strides_below_one_are_refused(name):
    with pytest.raises(ValueError, match="negative"):
        getattr(Path, name)(-1, -1)
    with pytest.raises(ValueError, match="stride 0"):
        getattr(Path, name)(0, 0, 0)


def test_paths_refuse_starts_that_they_cannot_have():
    with pytest.raises(ValueError, match="same level"):
        Path.acdm(levels_of(3, 3), levels_of(3, 2))
    with pytest.raises(ValueError, match="s_prev = 0"):
        Path.clean(levels_of(0, 1), levels_of(3, 2))


# --- the exact oracle ------------------------------------------------------------------------------------------------


def stationary_by_series(transition: torch.Tensor, innovation: torch.Tensor) -> torch.Tensor:
    """Sum of A^k Q A^kT: the stationary covariance without solving a linear system."""
    total, term = innovation.clone(), innovation
    for _ in range(400):  # spectral radius 0.76: 0.76^800 is far below rounding
        term = transition @ term @ transition.T
        total = total + term
    return total


def test_the_stationary_covariance_solves_the_lyapunov_equation():
    oracle = oracle_3d(5)
    sigma = oracle.stationary
    torch.testing.assert_close(TRANSITION @ sigma @ TRANSITION.T + INNOVATION, sigma, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sigma, stationary_by_series(TRANSITION, INNOVATION), rtol=1e-12, atol=1e-12)
    # E[x_t x_{t-1}^T] = A Sigma stands in the lower left block: previous frame first.
    torch.testing.assert_close(oracle.covariance[3:, :3], TRANSITION @ sigma)
    torch.testing.assert_close(oracle.covariance, oracle.covariance.T)
    assert torch.equal(oracle.covariance[3:, 3:], oracle.covariance[:3, :3])


def test_sampled_pairs_obey_the_transition():
    oracle, members = oracle_3d(5), 20_000
    x_prev, x_next = oracle.sample(members, generator("test", "sample"), (1, 1, 3))
    assert x_prev.shape == x_next.shape == (members, 1, 1, 3)
    x_prev, x_next = x_prev.reshape(members, 3), x_next.reshape(members, 3)
    rest = x_next - x_prev @ TRANSITION.T
    # Standard errors of covariances of unit size are 1 / sqrt(20,000) = 0.007.
    torch.testing.assert_close(rest.T @ rest / members, INNOVATION, rtol=0, atol=0.03)
    torch.testing.assert_close(rest.T @ x_prev / members, torch.zeros(3, 3, dtype=F64), rtol=0, atol=0.03)
    torch.testing.assert_close(x_prev.T @ x_prev / members, oracle.stationary, rtol=0, atol=0.06)


@pytest.mark.parametrize(
    ("transition", "innovation", "reason"),
    [
        (torch.eye(2), torch.eye(2), "not stationary"),
        (torch.tensor([[0.0, 2.0], [-2.0, 0.0]]), torch.eye(2), "not stationary"),
        (torch.zeros(2, 3), torch.eye(2), "square"),
        (torch.zeros(2, 2), torch.eye(3), "square"),
    ],
)
def test_processes_without_a_stationary_law_are_refused(transition, innovation, reason):
    with pytest.raises(ValueError, match=reason):
        GaussianOracle(transition, innovation, schedule_of(4))


# Every kind of corner: both noised, one clean, both clean, both at the top.
CORNERS = [(4, 7), (7, 4), (0, 5), (5, 0), (0, 0), (10, 10), (1, 10)]


def noised_pairs(oracle: GaussianOracle, corners=CORNERS, seed="pairs"):
    """One pair (members, 1, 1, 3) at each of the corners, and the levels."""
    g = generator("test", seed)
    s_prev, s_next = (levels_of(*side) for side in zip(*corners, strict=True))
    frames = oracle.sample(len(corners), g, (1, 1, 3))
    noised = [
        oracle.schedule.add_noise(x, s, torch.randn(x.shape, generator=g, dtype=F64))
        for x, s in zip(frames, (s_prev, s_next), strict=True)
    ]
    return *noised, s_prev, s_next


def test_the_clean_estimate_is_the_conditional_mean_in_information_form():
    oracle = oracle_3d(10)
    corners = [(s2, s1) for s2, s1 in CORNERS if s2 and s1]
    x_prev, x_next, s_prev, s_next = noised_pairs(oracle, corners)
    estimate = torch.cat([x.reshape(-1, 3) for x in oracle.clean_estimate(x_prev, x_next, s_prev, s_next)], 1)
    # From the Markov chain: precision of (x_{t-1}, x_t) = stationary prior + transition + two observations.
    prior = torch.linalg.inv(stationary_by_series(TRANSITION, INNOVATION))
    inner = torch.linalg.inv(INNOVATION)
    pair_precision = torch.zeros(6, 6, dtype=F64)
    pair_precision[:3, :3] = prior + TRANSITION.T @ inner @ TRANSITION
    pair_precision[:3, 3:] = -TRANSITION.T @ inner
    pair_precision[3:, :3] = -inner @ TRANSITION
    pair_precision[3:, 3:] = inner
    for row, corner in enumerate(corners):
        a = torch.tensor([oracle.schedule.alpha_bar[s].item() for s in corner], dtype=F64).repeat_interleave(3)
        y = torch.cat([x_prev[row].flatten(), x_next[row].flatten()])
        expected = torch.linalg.solve(pair_precision + torch.diag(a / (1 - a)), a.sqrt() / (1 - a) * y)
        torch.testing.assert_close(estimate[row], expected, rtol=1e-9, atol=1e-10)


def test_the_clean_estimate_at_level_zero_is_the_frame_itself():
    oracle = oracle_3d(10)
    x_prev, x_next, s_prev, s_next = noised_pairs(oracle, [(0, 6), (6, 0), (0, 0)])
    prev, nxt = oracle.clean_estimate(x_prev, x_next, s_prev, s_next)
    assert prev.shape == x_prev.shape
    torch.testing.assert_close(prev[[0, 2]], x_prev[[0, 2]], rtol=0, atol=1e-12)
    torch.testing.assert_close(nxt[[1, 2]], x_next[[1, 2]], rtol=0, atol=1e-12)
    # ... and with a clean previous frame the top level says A x_{t-1} and nothing else (alpha_bar there is 2e-5).
    top = torch.zeros(1, dtype=torch.int64), levels_of(10)
    _, nxt = oracle.clean_estimate(x_prev[:1], torch.zeros_like(x_next[:1]), *top)
    torch.testing.assert_close(nxt.flatten(), TRANSITION @ x_prev[0].flatten(), rtol=1e-3, atol=1e-3)


def test_the_clean_estimate_minimises_the_squared_error_over_linear_maps():
    oracle, members = oracle_3d(10), 40_000
    g = generator("test", "regression")
    x_prev, x_next = oracle.sample(members, g)
    s_prev, s_next = torch.full((members,), 4), torch.full((members,), 7)
    y = torch.cat(
        [oracle.schedule.add_noise(x, s, torch.randn(x.shape, generator=g, dtype=F64))
         for x, s in ((x_prev, s_prev), (x_next, s_next))], 1,
    )  # fmt: skip
    fitted = torch.linalg.lstsq(y, torch.cat([x_prev, x_next], 1)).solution
    basis = torch.eye(6, dtype=F64)
    exact = torch.cat(oracle.clean_estimate(basis[:, :3], basis[:, 3:], s_prev[:6], s_next[:6]), 1)
    # Standard error of a coefficient: residual over noised deviation, both about 1, over sqrt(members) = 0.005.
    torch.testing.assert_close(fitted, exact, rtol=0, atol=0.03)
    assert (exact[:3, 3:] - exact[3:, :3]).abs().max() > 0.1  # a swapped frame would be seen


def test_predicted_noise_and_clean_estimate_are_the_two_halves_of_tweedie():
    oracle = oracle_3d(10)
    x_prev, x_next, s_prev, s_next = noised_pairs(oracle)
    noises = oracle(x_prev, x_next, s_prev, s_next)
    cleans = oracle.clean_estimate(x_prev, x_next, s_prev, s_next)
    for x, noise, clean, level in zip((x_prev, x_next), noises, cleans, (s_prev, s_next), strict=True):
        assert noise.shape == x.shape
        torch.testing.assert_close(oracle.schedule.add_noise(clean, level, noise), x, rtol=0, atol=1e-11)
        assert (noise[level == 0] == 0).all()


def covariance_blocks(oracle: GaussianOracle, s_prev: int, s_next: int):
    """Covariances (prev, cross = E[next prev^T], next) of the noised pair, from the process itself."""
    sigma, identity = stationary_by_series(TRANSITION, INNOVATION), torch.eye(3, dtype=F64)
    a2, a1 = (oracle.schedule.alpha_bar[s].item() for s in (s_prev, s_next))
    cross = math.sqrt(a1 * a2) * TRANSITION @ sigma
    return a2 * sigma + (1 - a2) * identity, cross, a1 * sigma + (1 - a1) * identity


def test_the_noised_covariance_is_that_of_the_blocks():
    oracle = oracle_3d(10)
    for s_prev, s_next in CORNERS:
        first, cross, last = covariance_blocks(oracle, s_prev, s_next)
        expected = torch.cat([torch.cat([first, cross.T], 1), torch.cat([cross, last], 1)])
        torch.testing.assert_close(oracle.noised_covariance(levels_of(s_prev), levels_of(s_next))[0], expected)


def test_the_score_is_the_gradient_of_the_log_density_jointly_and_conditionally():
    """Corollary 3.4: the halves of the joint score are the conditional scores."""

    def log_normal(x, mean, covariance):
        return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)

    oracle = oracle_3d(10)
    x_prev, x_next, s_prev, s_next = noised_pairs(oracle)
    scores = oracle.score(x_prev, x_next, s_prev, s_next)
    for row, corner in enumerate(CORNERS):
        first, cross, last = covariance_blocks(oracle, *corner)
        prev, nxt = (x[row].flatten().clone().requires_grad_() for x in (x_prev, x_next))
        next_gain, prev_gain = cross @ torch.linalg.inv(first), cross.T @ torch.linalg.inv(last)
        next_given_prev = log_normal(nxt, next_gain @ prev, last - next_gain @ cross.T)
        prev_given_next = log_normal(prev, prev_gain @ nxt, first - prev_gain @ cross)
        joint = log_normal(prev, torch.zeros(3, dtype=F64), first) + next_given_prev
        exact = dict(rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(
            scores[row], torch.cat(torch.autograd.grad(joint, (prev, nxt), retain_graph=True)), **exact
        )
        torch.testing.assert_close(scores[row, 3:], torch.autograd.grad(next_given_prev, nxt)[0], **exact)
        torch.testing.assert_close(scores[row, :3], torch.autograd.grad(prev_given_next, prev)[0], **exact)


# --- the posterior of the levels -------------------------------------------------------------------------------------


def posterior_by_quadrature(schedule: NoiseSchedule, correlation: float, innovation: float, prev: float, nxt: float):
    """p(s2, s1 | pair) for d = 1: the clean pair's density integrated against the two noising kernels."""

    def normal_density(x, mean, variance):
        return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)

    stationary = innovation / (1 - correlation**2)
    grid = np.linspace(-9, 9, 901)  # the trapezoidal rule is exact to rounding once it resolves a Gaussian

    def nodes(observed, level):
        """Where the clean value may be, and with which weight; at level 0 it is what is seen."""
        a = schedule.alpha_bar[level].item()
        if level == 0:
            return np.array([observed]), np.array([1.0])
        return grid, normal_density(observed, np.sqrt(a) * grid, 1 - a) * (grid[1] - grid[0])

    count = schedule.levels + 1
    density = np.empty((count, count))
    for s2 in range(count):
        for s1 in range(count):
            (x2, weight2), (x1, weight1) = nodes(prev, s2), nodes(nxt, s1)
            clean = normal_density(x2, 0, stationary)[:, None] * normal_density(
                x1, correlation * x2[:, None], innovation
            )
            density[s2, s1] = weight2 @ clean @ weight1
    return torch.from_numpy(density / density.sum())


@pytest.mark.parametrize("pair", [(0.3, 0.2), (1.5, -1.0), (-2.5, -2.0), (0.0, 3.0)])
def test_the_level_posterior_equals_quadrature_of_the_noising_kernels(pair):
    schedule = schedule_of(6)
    oracle = scalar_oracle(0.8, 0.3, schedule)
    posterior = oracle.level_posterior(*(torch.tensor([[[[value]]]], dtype=F64) for value in pair))[0]
    expected = posterior_by_quadrature(schedule, 0.8, 0.3, *pair)
    torch.testing.assert_close(posterior, expected, rtol=1e-9, atol=1e-12)
    assert (expected - expected.T).abs().max() > 1e-5  # swapped frames would be seen


def test_the_level_posterior_of_fields_is_bayes_rule_with_a_flat_prior():
    oracle = oracle_3d(4)
    x_prev, x_next, *_ = noised_pairs(oracle, [(1, 3), (4, 0)])
    posterior = oracle.level_posterior(x_prev, x_next)
    assert posterior.shape == (2, 5, 5)
    for row in range(2):
        y = torch.cat([x_prev[row].flatten(), x_next[row].flatten()])
        density = torch.empty(5, 5, dtype=F64)
        for s2 in range(5):
            for s1 in range(5):
                first, cross, last = covariance_blocks(oracle, s2, s1)
                m = torch.cat([torch.cat([first, cross.T], 1), torch.cat([cross, last], 1)])
                density[s2, s1] = torch.distributions.MultivariateNormal(torch.zeros(6, dtype=F64), m).log_prob(y).exp()
        torch.testing.assert_close(posterior[row], density / density.sum(), rtol=1e-9, atol=1e-14)


def test_the_level_posterior_is_calibrated():
    oracle, members = scalar_oracle(0.8, 0.3, schedule_of(3)), 20_000
    g = generator("test", "calibration")
    levels = torch.randint(4, (2, members), generator=g)
    frames = oracle.sample(members, g, (1, 1, 1))
    noised = [
        oracle.schedule.add_noise(x, s, torch.randn(x.shape, generator=g, dtype=F64))
        for x, s in zip(frames, levels, strict=True)
    ]
    posterior = oracle.level_posterior(*noised)
    truth = torch.zeros_like(posterior)
    truth[torch.arange(members), levels[0], levels[1]] = 1
    # Whatever is read from the posterior, the truth minus it averages to nothing: here the classes and a weighted sum.
    surprise = truth - posterior
    weighted = (surprise * posterior).sum((1, 2))
    assert weighted.mean().abs() < 4 * weighted.std() / members**0.5
    assert (surprise.mean(0).abs() < 4 * surprise.std(0) / members**0.5).all()
    # The heads of a perfect network are the marginals, previous frame first; they know more than chance.
    for side, marginal in enumerate((posterior.sum(2), posterior.sum(1))):
        told = marginal[torch.arange(members), levels[side]]
        assert told.mean() > 0.25 + 10 * told.std() / members**0.5


# --- theorem 3.1: the law at (0, 0) does not depend on the path ------------------------------------------------------


class FramesSwapped(GaussianOracle):
    """Believes that the previous frame's level is the next one's."""

    def noised_covariance(self, s_prev, s_next):
        return super().noised_covariance(s_next, s_prev)


class TimeReversed(GaussianOracle):
    """Believes that the next frame comes first."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.covariance = self.covariance.roll((self.size, self.size), (0, 1))


class LevelOff(GaussianOracle):
    """Believes that the pair stands a fifth of the schedule higher than it does."""

    def noised_covariance(self, s_prev, s_next):
        top = self.schedule.levels
        return super().noised_covariance(*((s + top // 5).clamp(max=top) for s in (s_prev, s_next)))


class OneLevelOff(GaussianOracle):
    """An off-by-one."""

    def noised_covariance(self, s_prev, s_next):
        top = self.schedule.levels
        return super().noised_covariance(*((s + 1).clamp(max=top) for s in (s_prev, s_next)))


def walked_errors(levels: int, sampler: Sampler, kind: type[GaussianOracle] = GaussianOracle) -> torch.Tensor:
    """Largest differences of covariances at (0, 0): paths A, B, C from the clean one; A from B; A from C."""
    truth = oracle_3d(levels)
    oracle = kind(TRANSITION, INNOVATION, truth.schedule)
    s_prev, s_next = round(0.45 * levels), round(0.6 * levels)
    start = truth.noised_covariance(levels_of(s_prev), levels_of(s_next))[0]
    ends = [
        oracle.propagate(getattr(Path, name)(s_prev, s_next), torch.zeros(6, dtype=F64), start, sampler)[1]
        for name in TO_CLEAN
    ]
    pairs = [(end, truth.covariance) for end in ends] + [(ends[0], ends[1]), (ends[0], ends[2])]
    return torch.stack([(x - y).abs().max() for x, y in pairs])


def slopes(levels: list[int], errors: torch.Tensor) -> torch.Tensor:
    """Order of convergence of each column of errors (len(levels), columns), by least squares."""
    x = torch.tensor(levels, dtype=F64).log()
    x = x - x.mean()
    return -(x[:, None] * errors.log()).sum(0) / (x**2).sum()


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_all_paths_give_one_law_to_first_order_in_the_number_of_levels(sampler):
    """Theorem 3.1."""
    levels = [80, 160, 320]
    errors = torch.stack([walked_errors(n, sampler) for n in levels])
    order = slopes(levels, errors)
    assert ((order > 0.8) & (order < 1.2)).all(), order
    assert (errors[-1] < 0.05).all()  # the covariance itself is about 1.5


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("wrong", [FramesSwapped, TimeReversed, LevelOff])
def test_a_wrong_oracle_does_not_converge_to_the_clean_law(wrong, sampler):
    coarse, fine = (walked_errors(n, sampler, wrong)[:3].max() for n in (80, 320))
    assert fine > 0.15  # first order would have divided it by four
    assert fine > 0.9 * coarse
    assert walked_errors(320, sampler)[:3].max() < 0.05


@pytest.mark.parametrize(
    ("name", "s_prev"), [("clean", 0.0), ("left_then_down", 0.3), ("left_then_down", 0.6), ("down_then_left", 0.3)]
)
def test_generation_from_pure_noise_reaches_the_joint_law(name, s_prev):
    """From (s2, S), with x_t white and independent of x_{t-1}: clean conditioning for s2 = 0, else SNS generation."""
    errors, levels = [], [80, 160, 320]
    for n in levels:
        oracle = oracle_3d(n)
        start = torch.eye(6, dtype=F64)
        start[:3, :3] = oracle.noised_covariance(levels_of(round(s_prev * n)), levels_of(n))[0, :3, :3]
        path = getattr(Path, name)(round(s_prev * n), n)
        _, end = oracle.propagate(path, torch.zeros(6, dtype=F64), start, Sampler())
        errors.append((end - oracle.covariance).abs().max())
    order = slopes(levels, torch.stack(errors)[:, None])
    assert 0.8 < order < 1.2
    assert errors[-1] < 0.1


def test_holding_the_condition_samples_the_next_frame_given_the_noised_one():
    """Fixed s2, and the unconditional case s2 = S: the pair ends at (s2, 0) with its own joint law."""
    for fraction in (0.3, 1.0):
        errors, levels = [], [80, 160, 320]
        for n in levels:
            oracle, s_prev, s_next = oracle_3d(n), levels_of(round(fraction * n)), levels_of(round(0.6 * n))
            start = oracle.noised_covariance(s_prev, s_next)[0]
            path = Path.fixed_condition(s_prev, s_next)
            _, end = oracle.propagate(path, torch.zeros(6, dtype=F64), start, Sampler())
            errors.append((end - oracle.noised_covariance(s_prev, torch.zeros_like(s_prev))[0]).abs().max())
        assert 0.8 < slopes(levels, torch.stack(errors)[:, None]) < 1.2
        assert errors[-1] < 0.05


def nearly_a_point(kind: type[GaussianOracle], schedule: NoiseSchedule) -> GaussianOracle:
    return kind(0.5 * torch.eye(2, dtype=F64), 1e-14 * torch.eye(2, dtype=F64), schedule)


def white(kind: type[GaussianOracle], schedule: NoiseSchedule) -> GaussianOracle:
    return kind(torch.zeros(2, 2, dtype=F64), torch.eye(2, dtype=F64), schedule)


# A slip of one level in all places vanishes with the number of levels, so slopes cannot see it. Where a sampler is
# exact at every number of levels, it can: each variance choice has such a case.
EXACT_CASES = {
    "ancestral of a point": (nearly_a_point, Sampler()),
    "half ancestral of a point": (nearly_a_point, Sampler(eta=0.5)),
    "deterministic of a point": (nearly_a_point, Sampler(eta=0.0)),
    "forward variance of white data": (white, Sampler(variance="forward")),
}


@pytest.mark.parametrize(("make", "sampler"), EXACT_CASES.values(), ids=EXACT_CASES)
@pytest.mark.parametrize("name", TO_CLEAN)
def test_where_a_sampler_is_exact_every_level_on_the_way_has_its_own_law(name, make, sampler):
    def deviation(kind, stride):
        schedule = schedule_of(16)
        truth, oracle = make(GaussianOracle, schedule), make(kind, schedule)
        path = getattr(Path, name)(6, 11, stride)
        mean, covariance = torch.zeros(4, dtype=F64), truth.noised_covariance(*path.levels[0].mT)[0]
        worst = 0.0
        for here, there in zip(path.levels[:-1], path.levels[1:], strict=True):
            # Arrival draws no fresh noise: with the forward variance exactness ends one move before it.
            if sampler.variance == "forward" and (there == 0).any():
                break
            mean, covariance = oracle.propagate(Path(torch.stack([here, there])), mean, covariance, sampler)
            worst = max(worst, (covariance - truth.noised_covariance(*there.mT)[0]).abs().max().item())
        return worst

    assert deviation(GaussianOracle, 1) < 1e-10
    assert deviation(GaussianOracle, 3) < 1e-10
    if make is nearly_a_point:
        assert deviation(OneLevelOff, 1) > 1e-3


def test_ancestral_steps_return_too_small_a_variance_to_first_order():
    """Known and not a fault of the path: unit variance, correlation 0.9, from (0.45 S, 0.6 S)."""
    for name in TO_CLEAN:
        missing = []
        for n in (40, 160):
            oracle, s_prev, s_next = oracle_1d(n), levels_of(round(0.45 * n)), levels_of(round(0.6 * n))
            start = oracle.noised_covariance(s_prev, s_next)[0]
            path = getattr(Path, name)(s_prev, s_next)
            missing.append(1 - oracle.propagate(path, torch.zeros(2, dtype=F64), start)[1][1, 1].item())
        assert missing[0] == pytest.approx(0.07, abs=0.01)
        assert missing[1] == pytest.approx(0.02, abs=0.005)


def test_propagation_refuses_what_is_not_linear_or_not_one_member():
    oracle, mean, covariance = oracle_1d(5), torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64)
    for path, sampler in (
        (Path.diagonal(levels_of(1, 2), 2), None),
        (Path.acdm(3, 3), None),
        (Path.diagonal(2, 2), Sampler(clip=3.0)),
    ):
        with pytest.raises(ValueError, match="propagation"):
            oracle.propagate(path, mean, covariance, sampler)


# --- the walk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "start", "stride"),
    [(name, (5, 8), stride) for name in (*TO_CLEAN, "fixed_condition") for stride in (1, 3)]
    + [("unconditional", (12, 7), 1), ("clean", (0, 12), 1), ("diagonal", (9, 2), 2)],
)
def test_a_deterministic_walk_is_the_propagated_linear_map(name, start, stride):
    oracle, sampler = oracle_3d(12), Sampler(eta=0.0)
    path = getattr(Path, name)(*start, stride)
    basis = torch.eye(6, dtype=F64)
    x_prev, x_next = walk(
        oracle, path, basis[:, :3].reshape(6, 1, 1, 3), basis[:, 3:].reshape(6, 1, 1, 3),
        schedule=oracle.schedule, generator=generator("unused"), sampler=sampler,
    )  # fmt: skip
    walked = torch.cat([x_prev.reshape(6, 3), x_next.reshape(6, 3)], 1)
    propagated = torch.stack([oracle.propagate(path, e, torch.zeros(6, 6, dtype=F64), sampler)[0] for e in basis])
    torch.testing.assert_close(walked, propagated, rtol=1e-11, atol=1e-11)
    assert (walked - basis).abs().max() > 0.1


@pytest.mark.parametrize("variance", ["posterior", "forward"])
@pytest.mark.parametrize("name", TO_CLEAN)
def test_ancestral_walks_have_the_propagated_mean_and_covariance(name, variance):
    oracle, sampler, each = oracle_1d(20, 0.7), Sampler(variance=variance), 2000
    starts = [(9, 12), (14, 4)]
    mean = torch.tensor([2.0, -1.0], dtype=F64)
    s_prev, s_next = (levels_of(*side).repeat_interleave(each) for side in zip(*starts, strict=True))
    factor = torch.linalg.cholesky(oracle.noised_covariance(s_prev, s_next))
    draws = torch.randn(2 * each, 2, 1, generator=generator("test", "start", name), dtype=F64)
    pair = mean + (factor @ draws)[:, :, 0]
    ends = walk(
        oracle, getattr(Path, name)(s_prev, s_next), *(x.reshape(-1, 1, 1, 1) for x in pair.unbind(1)),
        schedule=oracle.schedule, generator=generator("test", "ancestral", name, variance), sampler=sampler,
    )  # fmt: skip
    for group, start in enumerate(starts):
        x = torch.cat([end.reshape(-1, 1) for end in ends], 1)[group * each : (group + 1) * each]
        path = getattr(Path, name)(*start)
        expected_mean, expected = oracle.propagate(path, mean, oracle.noised_covariance(*path.levels[0].mT)[0], sampler)
        variances = expected.diagonal()
        assert ((x.mean(0) - expected_mean).abs() < 4 * (variances / each).sqrt()).all()
        error = ((variances[:, None] * variances + expected**2) / each).sqrt()
        assert ((x.T.cov() - expected).abs() < 4 * error).all()


MEMBERS = 6
S_PREV, S_NEXT = levels_of(5, 0, 8, 3, 10, 0), levels_of(7, 4, 0, 3, 10, 0)


def field_oracle(levels: int = 10) -> GaussianOracle:
    """Frames of 16 values; torch draws normal numbers in another way from 16 on."""
    g = generator("test", "field")
    transition = torch.randn(16, 16, generator=g, dtype=F64)
    transition = 0.8 * transition / torch.linalg.eigvals(transition).abs().max()
    return GaussianOracle(transition, torch.eye(16, dtype=F64), schedule_of(levels))


def field_frames(oracle: GaussianOracle, members: int = MEMBERS):
    return oracle.sample(members, generator("test", "frames"), (1, 4, 4))


def path_of(name: str, s_prev: torch.Tensor, s_next: torch.Tensor, stride: int = 1) -> Path:
    s_prev = {"clean": torch.zeros_like(s_next), "acdm": s_next}.get(name, s_prev)
    return getattr(Path, name)(s_prev, s_next, stride)


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(eta=0.5, clip=2.0)], ids=["ancestral", "clipped"])
@pytest.mark.parametrize("name", PATHS)
def test_a_members_walk_does_not_depend_on_its_company(name, sampler):
    oracle = field_oracle()
    x_prev, x_next = field_frames(oracle)

    def walked(members):
        rows = torch.tensor(members)
        path = path_of(name, S_PREV[rows], S_NEXT[rows])
        return walk(
            oracle, path, x_prev[rows], x_next[rows], schedule=oracle.schedule, generator=streams_of(members),
            sampler=sampler,
        )  # fmt: skip

    alone = [walked([member]) for member in range(MEMBERS)]
    for company in ([0, 1, 2, 3, 4, 5], [5, 3, 0], [4, 1], [2, 0]):
        for row, member in enumerate(company):
            for together, single in zip(walked(company), alone[member], strict=True):
                assert same_bits(together[row], single[0])


def test_a_member_that_has_become_nan_does_not_touch_the_others():
    oracle = field_oracle()
    x_prev, x_next = field_frames(oracle)
    path, options = Path.diagonal(S_PREV, S_NEXT), dict(schedule=oracle.schedule)
    healthy = walk(oracle, path, x_prev, x_next, generator=streams_of(range(MEMBERS)), **options)
    x_next[3] = torch.nan
    x_prev[4] = torch.inf
    sick = walk(oracle, path, x_prev, x_next, generator=streams_of(range(MEMBERS)), **options)
    for before, after in zip(healthy, sick, strict=True):
        for member in (0, 1, 2, 5):
            assert same_bits(before[member], after[member])


def test_streams_of_other_addresses_give_other_walks():
    oracle = field_oracle()
    x_prev, x_next = field_frames(oracle)
    path = Path.left_then_down(S_PREV, S_NEXT)
    ends = [
        walk(oracle, path, x_prev, x_next, schedule=oracle.schedule, generator=streams_of(range(MEMBERS), purpose))[1]
        for purpose in ("one", "one", "two")
    ]
    assert torch.equal(ends[0], ends[1])
    # Member 1 draws at every level from 4 on; the two at s1 = 0 draw nothing for x_t.
    assert (ends[0] != ends[2]).flatten(1).any(1).tolist() == [True, True, False, True, True, False]


def test_with_a_single_generator_the_first_member_is_the_same_alone_and_in_a_batch():
    oracle = field_oracle()
    x_prev, x_next = field_frames(oracle)
    together, alone = (
        walk(
            oracle, Path.diagonal(S_PREV[:count], S_NEXT[:count]), x_prev[:count], x_next[:count],
            schedule=oracle.schedule, generator=generator("test", "single"),
        )
        for count in (MEMBERS, 1)
    )  # fmt: skip
    for a, b in zip(together, alone, strict=True):
        assert same_bits(a[0], b[0])
    # Members must not share one stream's numbers: equal members at equal levels end apart.
    twins = walk(
        oracle, Path.diagonal(4, 4), x_prev[:1].expand(2, -1, -1, -1), x_next[:1].expand(2, -1, -1, -1),
        schedule=oracle.schedule, generator=generator("test", "single"),
    )  # fmt: skip
    assert not torch.allclose(twins[1][0], twins[1][1], atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", TO_CLEAN)
def test_what_stands_at_level_zero_is_returned_with_the_same_bits(name, dtype):
    oracle = field_oracle()
    x_prev, x_next = (x.to(dtype) for x in field_frames(oracle))
    path = getattr(Path, name)(S_PREV, S_NEXT)
    prev, nxt = walk(oracle, path, x_prev, x_next, schedule=oracle.schedule, generator=streams_of(range(MEMBERS)))
    assert prev.dtype == nxt.dtype == dtype
    for member in range(MEMBERS):
        assert same_bits(prev[member], x_prev[member]) == (S_PREV[member] == 0)
        assert same_bits(nxt[member], x_next[member]) == (S_NEXT[member] == 0)


@pytest.mark.parametrize("name", ["fixed_condition", "unconditional", "clean", "acdm"])
def test_paths_that_only_go_down_return_the_previous_frame_with_the_same_bits(name):
    oracle = field_oracle()
    x_prev, x_next = field_frames(oracle)
    path = path_of(name, S_PREV, S_NEXT)
    prev, nxt = walk(oracle, path, x_prev, x_next, schedule=oracle.schedule, generator=streams_of(range(MEMBERS)))
    assert same_bits(prev, x_prev)
    assert [same_bits(nxt[m], x_next[m]) for m in range(MEMBERS)] == (S_NEXT == 0).tolist()


@pytest.mark.parametrize("name", PATHS)
def test_the_walk_leaves_what_it_was_given_unmodified(name):
    oracle = field_oracle()
    given = field_frames(oracle)
    path = path_of(name, S_PREV, S_NEXT)
    levels, kept = path.levels.clone(), [x.clone() for x in given]
    ends = walk(oracle, path, *given, schedule=oracle.schedule, generator=streams_of(range(MEMBERS)), anchor=given[0])
    assert all(same_bits(x, y) for x, y in zip(given, kept, strict=True))
    assert torch.equal(path.levels, levels)
    assert all(end.data_ptr() != x.data_ptr() for end in ends for x in given)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("name", PATHS)
def test_the_denoiser_is_asked_only_for_moving_members_at_the_levels_where_they_stand(name, stride):
    oracle = field_oracle()
    x_prev, x_next = field_frames(oracle)
    recorder, anchor = Recorder(oracle), torch.arange(MEMBERS, dtype=F64).reshape(-1, 1, 1, 1).expand_as(x_prev)
    path = path_of(name, S_PREV, S_NEXT, stride)
    walk(
        recorder, path, x_prev, x_next, schedule=oracle.schedule, generator=streams_of(range(MEMBERS)), anchor=anchor,
    )  # fmt: skip
    asked = [[] for _ in range(MEMBERS)]
    for _, _, s_prev, s_next, rows in recorder.asked:
        for own, level_prev, level_next in zip(rows[:, 0, 0, 0].int().tolist(), s_prev, s_next, strict=True):
            asked[own].append((int(level_prev), int(level_next)))
    for member in range(MEMBERS):
        calls = int(path.calls[member])
        assert asked[member] == visited(path, member)[:calls]
    assert sum(map(len, asked)) > 0


def test_a_strided_walk_takes_the_written_out_steps():
    oracle, sampler = oracle_3d(12), Sampler(eta=0.0)
    schedule = oracle.schedule
    x_prev, x_next = oracle.sample(1, generator("test", "stride"), (1, 1, 3))
    walked = walk(
        oracle,
        Path.diagonal(5, 9, 3),
        x_prev,
        x_next,
        schedule=schedule,
        generator=generator("unused"),
        sampler=sampler,
    )

    def ddim(x, noise, s, r):
        a, b = schedule.alpha_bar[s].item(), schedule.alpha_bar[r].item()
        return math.sqrt(b) * (x - math.sqrt(1 - a) * noise) / math.sqrt(a) + math.sqrt(1 - b) * noise

    prev, nxt = x_prev, x_next
    for (s2, s1), (r2, r1) in [((5, 9), (5, 6)), ((5, 6), (5, 5)), ((5, 5), (2, 2)), ((2, 2), (0, 0))]:
        of_prev, of_next = oracle(prev, nxt, levels_of(s2), levels_of(s1))
        # Both noises come from the pair before the move: on the diagonal neither frame sees the other's step.
        prev, nxt = ddim(prev, of_prev, s2, r2), ddim(nxt, of_next, s1, r1)
    torch.testing.assert_close(walked[0], prev, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(walked[1], nxt, rtol=1e-11, atol=1e-11)


def test_acdm_noises_the_clean_condition_afresh_before_every_move():
    oracle, members = oracle_1d(8), 500
    recorder = Recorder(oracle)
    x_prev = torch.full((members, 1, 1, 1), 2.0, dtype=F64)
    x_next = torch.randn(members, 1, 1, 1, generator=generator("test", "acdm"), dtype=F64)
    prev, _ = walk(
        recorder, Path.acdm(8, 8), x_prev, x_next, schedule=oracle.schedule, generator=streams_of(range(members))
    )
    assert same_bits(prev, x_prev) and len(recorder.asked) == 8
    noises = []
    for level, (noised, _, s_prev, s_next, _) in zip(range(8, 0, -1), recorder.asked, strict=True):
        assert (s_prev == level).all() and (s_next == level).all()
        a = oracle.schedule.alpha_bar[level].item()
        noises.append(((noised - math.sqrt(a) * 2.0) / math.sqrt(1 - a)).flatten())
    noise = torch.stack(noises)
    # Unit variance and independent from one move to the next: entries deviate by 1 / sqrt(500) = 0.045.
    torch.testing.assert_close(noise @ noise.T / members, torch.eye(8, dtype=F64), rtol=0, atol=0.25)
    assert noise.mean().abs() < 0.06


def acdm_law(schedule: NoiseSchedule, correlation: float) -> tuple[float, float]:
    """(k, v) with x_t | x_{t-1} ~ N(k x_{t-1}, v) where ACDM walks an exact oracle of unit variance, by recursion."""
    a = schedule.alpha_bar.tolist()
    k, v = 0.0, 1.0
    for s in range(schedule.levels, 0, -1):
        r, beta = s - 1, 1 - a[s] / a[s - 1]
        pull = a[s] * correlation  # correlation of the pair noised to (s, s)
        gain = beta / (1 - pull**2)
        of_next, of_prev = (1 - gain) / math.sqrt(1 - beta), gain * pull / math.sqrt(1 - beta)
        fresh = beta * (1 - a[r]) / (1 - a[s])
        k, v = of_next * k + of_prev * math.sqrt(a[s]), of_next**2 * v + of_prev**2 * (1 - a[s]) + fresh
    return k, v


def test_acdm_has_the_law_of_its_recursion_which_is_not_the_transition():
    """A jump to the right is outside theorem 3.1: the freshly noised condition is averaged over and says too little.

    Even with the exact denoiser and ever more levels ACDM's conditional mean stays below A x_{t-1}.
    """
    oracle, members = oracle_1d(20), 4000
    x_prev = torch.full((members, 1, 1, 1), 1.5, dtype=F64)
    x_next = torch.randn(members, 1, 1, 1, generator=generator("test", "acdm law"), dtype=F64)
    _, x = walk(
        oracle, Path.acdm(20, 20), x_prev, x_next, schedule=oracle.schedule, generator=generator("test", "acdm walk")
    )
    k, v = acdm_law(oracle.schedule, 0.9)
    assert abs(x.mean().item() - 1.5 * k) < 4 * math.sqrt(v / members)
    assert abs(x.var().item() - v) < 4 * v * math.sqrt(2 / members)
    k, v = acdm_law(schedule_of(2000), 0.9)
    assert k == pytest.approx(0.627, abs=2e-3) and v == pytest.approx(0.310, abs=2e-3)  # not 0.9 and 0.19


def test_clean_conditioning_has_the_law_of_the_transition():
    oracle, members = oracle_1d(60), 1500
    x_prev = torch.full((members, 1, 1, 1), 1.5, dtype=F64)
    x_next = torch.randn(members, 1, 1, 1, generator=generator("test", "clean"), dtype=F64)
    _, x = walk(
        oracle, Path.clean(0, 60), x_prev, x_next, schedule=oracle.schedule, generator=generator("test", "clean walk")
    )
    assert x.mean().item() == pytest.approx(0.9 * 1.5, abs=4 * math.sqrt(0.19 / members))
    # 60 levels lose some of the variance (first order, see above), and 4 standard errors are 0.028.
    start = torch.eye(2, dtype=F64)
    expected = oracle.propagate(Path.clean(0, 60), torch.zeros(2, dtype=F64), start)[1]
    conditional = (expected[1, 1] - expected[0, 1] ** 2 / expected[0, 0]).item()
    assert x.var().item() == pytest.approx(conditional, abs=4 * 0.19 * math.sqrt(2 / members))
    assert conditional == pytest.approx(0.19, abs=0.03)


def test_a_path_of_one_member_serves_the_whole_batch():
    oracle = field_oracle()
    x_prev, x_next = field_frames(oracle)
    one, many = (
        walk(oracle, path, x_prev, x_next, schedule=oracle.schedule, generator=streams_of(range(MEMBERS)))
        for path in (Path.diagonal(3, 5), Path.diagonal(torch.full((MEMBERS,), 3), torch.full((MEMBERS,), 5)))
    )
    assert all(same_bits(x, y) for x, y in zip(one, many, strict=True))


def test_walks_that_do_not_fit_are_refused():
    oracle = field_oracle()
    x_prev, x_next = field_frames(oracle)
    with pytest.raises(ValueError, match="path of 2 members for a batch of 6"):
        walk(
            oracle, Path.diagonal(levels_of(1, 2), 3), x_prev, x_next, schedule=oracle.schedule, generator=generator(0)
        )
    with pytest.raises(ValueError, match="level 11, the schedule ends at 10"):
        walk(oracle, Path.diagonal(3, 11), x_prev, x_next, schedule=oracle.schedule, generator=generator(0))
    with pytest.raises(ValueError, match="5 random streams for 6 members"):
        walk(oracle, Path.diagonal(3, 3), x_prev, x_next, schedule=oracle.schedule, generator=streams_of(range(5)))


def test_a_clip_bounds_the_clean_estimate_and_nothing_else():
    schedule = schedule_of(12)
    g = generator("test", "clip")
    x = torch.randn(8, 1, 4, 4, generator=g, dtype=F64)
    noise = torch.randn(8, 1, 4, 4, generator=g, dtype=F64)
    start = levels_of(12, 12, 11, 9, 6, 3, 1, 0)
    sigma, signal = (table(start).reshape(-1, 1, 1, 1) for table in (schedule.sigma, schedule.signal))
    clean = (x - sigma * noise) / signal
    assert (clean[:3].abs() > 1.5).any() and clean.abs().max() > 100  # the top level amplifies
    # Arriving at level 0 shows the clean estimate itself.
    arrived = Sampler(clip=1.5).step(schedule, x, noise, start, torch.zeros_like(start), streams_of(range(8)))
    torch.testing.assert_close(arrived[:-1], clean[:-1].clamp(-1.5, 1.5), rtol=1e-9, atol=1e-9)
    # A member that stands at level 0 already is data, not an estimate.
    assert (x[-1].abs() > 1.5).any() and same_bits(arrived[-1], x[-1])
    # Where the bound is not reached a step is what it was, noise included.
    free, bounded = (
        Sampler(clip=clip).step(
            schedule, x, noise, start[3:7].repeat(2), start[3:7].repeat(2) - 1, streams_of(range(8))
        )
        for clip in (None, 1e6)
    )
    torch.testing.assert_close(bounded, free, rtol=1e-9, atol=1e-9)


# --- noise colour ----------------------------------------------------------------------------------------------------

GRID = 32


def full_shells(resolution: int = GRID) -> np.ndarray:
    """round(|k|) of each mode of the full spectrum."""
    k = np.fft.fftfreq(resolution, 1 / resolution)
    return np.rint(np.hypot(k[:, None], k[None, :])).astype(int)


def falling_amplitude(channels: int = 2, slope: float = 1.5) -> np.ndarray:
    """(C, K) falling as K^-(slope + c / 2), scaled as the statistics of data with unit variance are."""
    shells = full_shells()
    shell = np.maximum(np.arange(shells.max() + 1.0), 1.0)
    amplitude = np.stack([shell ** -(slope + c / 2) for c in range(channels)])
    mean_square = (amplitude[:, shells] ** 2).mean((1, 2))
    return amplitude / np.sqrt(mean_square)[:, None]


def unit_noise(members: int = 3, channels: int = 2) -> torch.Tensor:
    """Real white fields each of whose orthonormal modes has modulus one exactly: tests need no statistics."""
    white_noise = torch.randn(members, channels, GRID, GRID, generator=generator("test", "colour"), dtype=F64)
    spectrum = torch.fft.fft2(white_noise, norm="ortho")
    return torch.fft.ifft2(spectrum / spectrum.abs(), norm="ortho").real


def fields_with(amplitude: np.ndarray) -> torch.Tensor:
    """Real fields whose orthonormal modes have the given shell amplitudes exactly."""
    spectrum = torch.fft.fft2(unit_noise(channels=len(amplitude)), norm="ortho")
    return torch.fft.ifft2(spectrum * torch.from_numpy(amplitude[:, full_shells()]), norm="ortho").real


def moduli(field: torch.Tensor) -> np.ndarray:
    return torch.fft.fft2(field.double(), norm="ortho").abs().numpy()


# Filters are kept in float32: a relative 6e-8 a mode.
COLOUR_ROUNDING = dict(rtol=1e-6, atol=1e-6)


def test_without_an_exponent_the_coordinates_are_the_field_itself():
    x = fields_with(falling_amplitude())
    for exponent in (0, 0.0, [0.0, 0.0]):
        colour = NoiseColour(exponent, falling_amplitude(), GRID)
        assert same_bits(colour.whiten(x), x) and same_bits(colour.unwhiten(x), x)


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0, [0.25, 1.0], -0.25])
def test_whitening_and_unwhitening_undo_each_other(exponent):
    colour = NoiseColour(exponent, falling_amplitude(), GRID)
    x = fields_with(falling_amplitude())
    assert colour.whiten(x).shape == x.shape
    torch.testing.assert_close(colour.unwhiten(colour.whiten(x)), x, **COLOUR_ROUNDING)
    torch.testing.assert_close(colour.whiten(colour.unwhiten(x)), x, **COLOUR_ROUNDING)
    assert not torch.allclose(colour.whiten(x), x, atol=0.1)


def test_the_coordinates_keep_the_fields_type_and_leading_axes():
    colour = NoiseColour(0.25, falling_amplitude(), GRID)
    x = fields_with(falling_amplitude()).float()
    pair = torch.stack([x, 2 * x], 1)
    z = colour.whiten(pair)
    assert z.dtype == torch.float32 and z.shape == (3, 2, 2, GRID, GRID)
    torch.testing.assert_close(z[:, 1], 2 * colour.whiten(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0, [0.1, 0.7]])
def test_fields_with_the_training_spectrum_have_unit_variance_in_the_coordinates(exponent):
    z = NoiseColour(exponent, falling_amplitude(), GRID).whiten(fields_with(falling_amplitude()))
    variance = z.square().mean((-2, -1))
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=1e-6, atol=0)


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0])
def test_white_noise_in_the_coordinates_has_the_spectrum_to_the_power_of_twice_the_exponent(exponent):
    amplitude = falling_amplitude()
    noise = NoiseColour(exponent, amplitude, GRID).unwhiten(unit_noise())
    shaped = amplitude[:, full_shells()] ** exponent
    # 1 / c, from the full spectrum: the variance of the data after whitening by A^p alone.
    scale = np.sqrt((amplitude[:, full_shells()] ** (2 - 2 * exponent)).mean((1, 2)))[:, None, None]
    np.testing.assert_allclose(moduli(noise), np.broadcast_to(scale * shaped, noise.shape), rtol=1e-5)


def test_full_whitening_leaves_every_mode_equally_strong():
    z = NoiseColour(1.0, falling_amplitude(), GRID).whiten(fields_with(falling_amplitude()))
    np.testing.assert_allclose(moduli(z), 1.0, rtol=1e-5)


def test_exponents_of_channels_act_on_their_own_channel():
    amplitude = falling_amplitude()
    x = fields_with(amplitude)
    z = NoiseColour([0.0, 0.5], amplitude, GRID).whiten(x)
    torch.testing.assert_close(z[:, 0], x[:, 0], **COLOUR_ROUNDING)
    alone = NoiseColour(0.5, amplitude[1:], GRID).whiten(x[:, 1:])
    torch.testing.assert_close(z[:, 1:], alone, **COLOUR_ROUNDING)
    assert not torch.allclose(z[:, 1], x[:, 1], atol=0.1)


def test_coordinates_commute_with_shifts_of_the_field():
    colour = NoiseColour(0.5, falling_amplitude(), GRID)
    x = fields_with(falling_amplitude())
    torch.testing.assert_close(
        colour.whiten(x.roll((5, 9), (-2, -1))), colour.whiten(x).roll((5, 9), (-2, -1)), rtol=1e-10, atol=1e-10
    )


def test_shells_without_signal_stay_finite():
    amplitude = falling_amplitude()
    amplitude[:, [0, 7]] = 0.0
    x = fields_with(amplitude)
    for exponent in (0.25, 1.0):
        colour = NoiseColour(exponent, amplitude, GRID)
        z = colour.whiten(x)
        assert torch.isfinite(z).all() and torch.isfinite(colour.unwhiten(unit_noise())).all()
        torch.testing.assert_close(colour.unwhiten(z), x, **COLOUR_ROUNDING)


@pytest.mark.parametrize("case", ["empty shells", "a steep spectrum"])
def test_weak_shells_do_not_spoil_the_unit_variance(case):
    amplitude = falling_amplitude(slope=1.5 if case == "empty shells" else 4.0)
    if case == "empty shells":
        amplitude[:, [0, 7]] = 0.0
    z = NoiseColour(1.0, amplitude, GRID).whiten(fields_with(amplitude))
    variance = z.square().mean((-2, -1))
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=1e-6, atol=0)


def test_statistics_of_another_grid_or_channel_count_are_refused():
    amplitude = falling_amplitude()
    for wrong in (amplitude[:, :-1], amplitude[0], np.ones((2, GRID))):
        with pytest.raises(ValueError, match=f"{GRID} x {GRID}"):
            NoiseColour(0.25, wrong, GRID)
    with pytest.raises(ValueError):
        NoiseColour(0.25, amplitude, GRID // 2)


def test_an_exponent_too_many_is_refused():
    with pytest.raises(ValueError):
        NoiseColour([0.1, 0.2, 0.3], falling_amplitude(), GRID)


# --- read-out of the levels ------------------------------------------------------------------------------------------

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
    # Logits are known up to a constant only, and come for both frames at once.
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


def test_the_calibrated_readout_refines_the_asked_share_of_the_held_out_pairs_for_each_head():
    # Two heads of which one is far more easily convinced: 2000 held-out pairs, logits over 6 levels.
    logits = torch.randn(2000, 2, 6, generator=generator("test", "calibrated"))
    logits[:, 1, 0] += 4.0
    clean = logits.double().softmax(-1)[..., 0]
    kept = torch.quantile(clean, torch.linspace(0, 1, 401, dtype=F64), dim=0).T
    for share in (0.05, 0.3):
        readout = LevelReadout("calibrated", share, kept)
        refined = (readout(logits) > 0).double().mean(0)
        # The quantiles are kept at 401 places: a share is met to a 400th, and to one pair.
        assert ((refined - share).abs() < 1 / 400).all(), refined
    # Where it refines, it reads the median, and never level 0.
    readout = LevelReadout("calibrated", 0.3, kept)
    median = LevelReadout("quantile", 0.5)(logits).clamp(min=1)
    levels = readout(logits)
    assert (levels[levels > 0] == median[levels > 0]).all() and (levels > 0).any(0).all()
    # Heads must not be exchanged: the threshold of the convinced one would refine nearly all of the other's pairs.
    assert (LevelReadout("calibrated", 0.3, kept.flip(0))(logits) > 0).double().mean(0)[0] > 0.9


def test_a_calibrated_readout_without_a_calibration_is_refused():
    with pytest.raises(ValueError, match="calibrated"):
        LevelReadout("calibrated")


def test_readouts_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"'median'.*argmax, .*sample"):
        LevelReadout("median")
    for q in (0.0, 1.0, -0.1, 2.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            LevelReadout("quantile", q)


# --- what a network predicts, and steps of second order ---------------------------------------------------------------


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_exact_prediction_gives_back_the_noise(prediction):
    schedule, level = NoiseSchedule.cosine(20), torch.tensor([1, 7, 19, 20])
    x, noise = torch.randn(2, 4, 1, 3, 3, generator=generator("prediction"), dtype=torch.float64)
    noised = schedule.add_noise(x, level, noise)
    output = schedule.target(prediction, x, noise, level)
    assert torch.allclose(schedule.noise_from(prediction, output, noised, level), noise, atol=1e-9)


def test_velocity_is_the_noise_at_level_0_and_minus_the_frame_at_pure_noise():
    schedule = NoiseSchedule(torch.tensor([1.0, 0.5, 1e-12], dtype=torch.float64))
    x, noise = torch.randn(2, 2, 1, 3, 3, generator=generator("velocity"), dtype=torch.float64)
    target = schedule.target("velocity", x, noise, torch.tensor([0, 2]))
    assert torch.equal(target[0], noise[0]) and torch.allclose(target[1], -x[1], atol=1e-5)


def test_a_clean_frame_holds_no_noise_for_a_network_that_predicts_it():
    schedule, level = NoiseSchedule.cosine(4), torch.zeros(2, dtype=torch.int64)
    x = torch.randn(2, 1, 3, 3, generator=generator("clean"))
    assert not schedule.noise_from("clean", x + 1, x, level).any()


def test_unknown_predictions_are_refused():
    schedule, x = NoiseSchedule.cosine(4), torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="unknown prediction 'score'; known: noise, velocity, clean"):
        schedule.target("score", x, x, torch.zeros(1, dtype=torch.int64))


AMPLITUDE, CORRELATION = [[0.0, 3.0, 2.0, 1.0, 0.5, 0.25, 0.1]], [[0.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.6]]


def residual_prediction(levels: int = 20, colour: float = 0.25) -> ResidualPrediction:
    statistics = {"shell_amplitude": AMPLITUDE}
    colour = NoiseColour(colour, AMPLITUDE, 8)
    return build_prediction("residual", schedule_of(levels), colour, statistics, CORRELATION)


def test_where_nothing_but_a_linear_estimate_is_known_the_residual_is_the_exact_oracle():
    """White fields of unit variance: every pixel is a Gaussian pair by itself, and a network that gives zero is exact."""
    schedule, oracle = schedule_of(20), oracle_1d(20, 0.9)
    white = NoiseColour(0.0, [[1.0] * 7], 8)
    prediction = build_prediction("residual", schedule, white, {"shell_amplitude": [[1.0] * 7]}, [[0.9] * 7])
    levels = torch.tensor([[0, 20], [3, 20], [20, 3], [7, 11], [1, 1], [20, 20]])
    pair = torch.randn(6, 2, 1, 8, 8, generator=generator("pair"))
    predicted = prediction.noise(torch.zeros_like(pair), pair, levels)
    flat = [x.double().reshape(-1, 1, 1, 1) for x in pair.unbind(1)]
    exact = oracle(*flat, *(s.repeat_interleave(64) for s in levels.unbind(1)), None)
    for side in (0, 1):
        noised = levels[:, side] > 0
        assert torch.allclose(predicted[noised, side], exact[side].float().view(6, 1, 8, 8)[noised], atol=2e-4)
        assert not predicted[~noised, side].any()  # a clean frame holds no noise


def test_the_residual_has_unit_variance_in_every_shell_and_nothing_in_common_with_what_is_seen():
    prediction, members = residual_prediction(), 4000
    draw = torch.randn(2, members, 1, 8, 8, generator=generator("gaussian"))
    spectrum = torch.fft.rfft2(draw) * prediction.power[:, prediction.shells].sqrt().float()
    rho = prediction.correlation[:, prediction.shells].float()
    clean = torch.fft.irfft2(torch.stack([spectrum[0], rho * spectrum[0] + (1 - rho**2).sqrt() * spectrum[1]], 1))
    noise = torch.randn(clean.shape, generator=generator("noise"))
    for pair in ((0, 20), (2, 15), (9, 9), (20, 1)):
        levels = torch.tensor(pair).expand(members, 2)
        noised = prediction.schedule.add_noise(clean.flatten(0, 1), levels.flatten(), noise.flatten(0, 1)).view_as(
            clean
        )
        target = prediction.target(clean, noised, noise, levels)
        given, seen = torch.fft.rfft2(target, norm="ortho"), torch.fft.rfft2(noised, norm="ortho")
        rows = [side for side in (0, 1) if pair[side]]
        assert (given[:, rows].abs().square().mean((0, 2))[:, 1:].sub(1).abs() < 0.15).all()
        common = (given[:, rows, None].conj() * seen[:, None]).mean(0).abs() / seen.abs().square().mean(0).sqrt()
        assert float(common.max()) < 0.08
        assert torch.allclose(prediction.noise(target, noised, levels)[:, rows], noise[:, rows], atol=2e-3)


def test_the_residual_of_one_frame_knows_nothing_of_another():
    prediction, level = residual_prediction(), torch.tensor([[1], [9], [20]])
    x, noise = torch.randn(2, 3, 1, 1, 8, 8, generator=generator("alone"))
    noised = prediction.schedule.add_noise(x[:, 0], level[:, 0], noise[:, 0])[:, None]
    target = prediction.target(x, noised, noise, level)
    assert target.shape == x.shape
    assert torch.allclose(prediction.noise(target, noised, level), noise, atol=2e-3)


def test_unknown_kinds_of_prediction_are_refused():
    with pytest.raises(ValueError, match="unknown prediction 'score'; known: noise, velocity, clean, residual"):
        Prediction("score", schedule_of(4))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("path", ["left_then_down", "down_then_left", "diagonal"])
def test_a_deterministic_walk_is_the_linear_map_that_is_propagated(path, order):
    schedule = NoiseSchedule.cosine(20)
    oracle = GaussianOracle(torch.tensor([[0.8, 0.1], [0.0, 0.7]]), 0.3 * torch.eye(2), schedule)
    chosen, sampler = getattr(Path, path)(9, 14, 3), Sampler(eta=0.0, order=order)
    x_prev, x_next = torch.randn(2, 1, 1, 1, 2, generator=generator("heun"), dtype=torch.float64)
    walked = walk(oracle, chosen, x_prev, x_next, schedule=schedule, generator=generator("w"), sampler=sampler)
    pair = torch.cat([x_prev.flatten(), x_next.flatten()])
    mean, _ = oracle.propagate(chosen, pair, torch.zeros(4, 4, dtype=torch.float64), sampler)
    assert torch.allclose(torch.cat([x.flatten() for x in walked]), mean, atol=1e-12)


@pytest.mark.parametrize("path", ["left_then_down", "down_then_left", "diagonal"])
def test_second_order_steps_come_closer_with_fewer_calls(path):
    def error_and_calls(levels, order):
        schedule, sampler = NoiseSchedule.cosine(levels), Sampler(eta=0.0, order=order)
        oracle = GaussianOracle(torch.tensor([[0.9]]), torch.tensor([[0.19]]), schedule)
        chosen = getattr(Path, path)(round(0.45 * levels), round(0.6 * levels))
        start = oracle.noised_covariance(*chosen.start.unbind(1))[0]
        _, covariance = oracle.propagate(chosen, torch.zeros(2, dtype=torch.float64), start, sampler)
        return float((covariance - oracle.covariance).abs().max()), int(sampler.calls(chosen)[0])

    euler, heun = error_and_calls(80, 1), error_and_calls(20, 2)
    assert heun[0] < euler[0] and heun[1] < 0.5 * euler[1]


def test_order_2_is_refused_where_it_means_nothing():
    with pytest.raises(ValueError, match="needs eta 0"):
        Sampler(order=2)
    with pytest.raises(ValueError, match="order 3"):
        Sampler(eta=0.0, order=3)
    schedule = NoiseSchedule.cosine(4)
    oracle, x = GaussianOracle(torch.tensor([[0.5]]), torch.tensor([[0.75]]), schedule), torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="no second order"):
        walk(oracle, Path.acdm(4, 4), x, x, schedule=schedule, generator=generator("w"), sampler=Sampler(0.0, order=2))
