"""The walk down the plane: the law of its end, its exact bits, and its calls of the denoiser."""

import math

import pytest
import torch
from oracles import (
    F64,
    TO_CLEAN,
    Recorder,
    levels_of,
    oracle_1d,
    oracle_3d,
    same_bits,
    schedule_of,
    streams_of,
    visited,
)

from sns_core.diffusion import PATHS, GaussianOracle, NoiseSchedule, Path, Sampler, walk
from sns_core.streams import generator


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
    """An oracle of frames with 16 values, because torch draws 16 or more normal numbers in another way."""
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
def test_a_members_walk_does_not_depend_on_the_other_members(name, sampler):
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
    # Member 1 draws at every level from 4 down. The two members at s1 = 0 draw nothing for x_t.
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
    # Members must not share the numbers of one stream, so equal members at equal levels end at different frames.
    twins = walk(
        oracle, Path.diagonal(4, 4), x_prev[:1].expand(2, -1, -1, -1), x_next[:1].expand(2, -1, -1, -1),
        schedule=oracle.schedule, generator=generator("test", "single"),
    )  # fmt: skip
    assert not torch.allclose(twins[1][0], twins[1][1], atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", TO_CLEAN)
def test_frames_at_level_zero_are_returned_with_the_same_bits(name, dtype):
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
def test_the_walk_does_not_modify_its_arguments(name):
    oracle = field_oracle()
    frames = field_frames(oracle)
    path = path_of(name, S_PREV, S_NEXT)
    levels, copies = path.levels.clone(), [x.clone() for x in frames]
    ends = walk(oracle, path, *frames, schedule=oracle.schedule, generator=streams_of(range(MEMBERS)), anchor=frames[0])
    assert all(same_bits(x, y) for x, y in zip(frames, copies, strict=True))
    assert torch.equal(path.levels, levels)
    assert all(end.data_ptr() != x.data_ptr() for end in ends for x in frames)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("name", PATHS)
def test_the_denoiser_is_called_only_for_moving_members_at_their_levels(name, stride):
    oracle = field_oracle()
    x_prev, x_next = field_frames(oracle)
    recorder, anchor = Recorder(oracle), torch.arange(MEMBERS, dtype=F64).reshape(-1, 1, 1, 1).expand_as(x_prev)
    path = path_of(name, S_PREV, S_NEXT, stride)
    walk(
        recorder, path, x_prev, x_next, schedule=oracle.schedule, generator=streams_of(range(MEMBERS)), anchor=anchor,
    )  # fmt: skip
    levels_of_member = [[] for _ in range(MEMBERS)]
    for _, _, s_prev, s_next, rows in recorder.calls:
        for member, level_prev, level_next in zip(rows[:, 0, 0, 0].int().tolist(), s_prev, s_next, strict=True):
            levels_of_member[member].append((int(level_prev), int(level_next)))
    for member in range(MEMBERS):
        calls = int(path.calls[member])
        assert levels_of_member[member] == visited(path, member)[:calls]
    assert sum(map(len, levels_of_member)) > 0


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
        # Both noises come from the pair before the move, so on the diagonal no frame sees the step of the other frame.
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
    assert same_bits(prev, x_prev) and len(recorder.calls) == 8
    noises = []
    for level, (noised, _, s_prev, s_next, _) in zip(range(8, 0, -1), recorder.calls, strict=True):
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
    """A jump to the right is outside theorem 3.1: ACDM averages over the noised condition, and loses information.

    Even with the exact denoiser and many levels, the conditional mean of ACDM stays below A x_{t-1}.
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
    shared, many = (
        walk(oracle, path, x_prev, x_next, schedule=oracle.schedule, generator=streams_of(range(MEMBERS)))
        for path in (Path.diagonal(3, 5), Path.diagonal(torch.full((MEMBERS,), 3), torch.full((MEMBERS,), 5)))
    )
    assert all(same_bits(x, y) for x, y in zip(shared, many, strict=True))


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
    # A step that does not reach the bound has the result of a step without a clip, also in its noise.
    free, bounded = (
        Sampler(clip=clip).step(
            schedule, x, noise, start[3:7].repeat(2), start[3:7].repeat(2) - 1, streams_of(range(8))
        )
        for clip in (None, 1e6)
    )
    torch.testing.assert_close(bounded, free, rtol=1e-9, atol=1e-9)
