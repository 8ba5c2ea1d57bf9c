"""The bookkeeping "indices" of a refinement: the moves of the published loop, and the noise that they leave.

The published loop denoises a batch with the indices s of one frame by `for i in range(max(s) - 1, -1, -1)`, and a member
takes part where s >= i; the move of index i leads from level i + 1 to level i.
"""

import pytest
import torch

from sns_core.data.emulation import Emulation
from sns_core.diffusion import GaussianOracle, LevelReadout, NoiseSchedule, Path
from sns_core.methods import EstimatedLevels, Hardware, IndexedLevels, Refinement, WalkBack, build_method
from sns_core.streams import MemberStreams, generator

F64 = torch.float64
MEMBERS = 4000


def published_moves(indices: torch.Tensor, path: str) -> list[list[tuple[int, int]]]:
    """Return the points (s_prev, s_next) that each member of the published loop visits, one list per member.

    `indices` (B, 2). The loop denoises one frame after the other, or on the diagonal the noisier frame until it stands
    where the other one stands, and then both.
    """
    visits = []
    for pair in indices.tolist():
        if path == "diagonal":
            moves = [
                [side for side in (0, 1) if pair[side] == max(pair) or i <= min(pair)]
                for i in range(int(indices.max()) - 1, -1, -1)
                if max(pair) >= i
            ]
        else:
            order = (0, 1) if path == "left_then_down" else (1, 0)
            moves = [
                [side] for side in order for i in range(int(indices[:, side].max()) - 1, -1, -1) if pair[side] >= i
            ]
        point = [sum(side in move for move in moves) for side in (0, 1)]  # each frame arrives at level 0
        points = [tuple(point)]
        for move in moves:
            point = [level - (side in move) for side, level in enumerate(point)]
            points.append(tuple(point))
        visits.append(points)
    return visits


@pytest.mark.parametrize("path", IndexedLevels.PATHS)
def test_the_moves_are_those_of_the_published_loop(path):
    for seed in range(20):
        indices = torch.randint(5, (3, 2), generator=generator("test", path, seed))
        counted = IndexedLevels().counted_from(indices + 1, path)
        levels = getattr(Path, path)(*counted.unbind(1)).levels
        for member, expected in enumerate(published_moves(indices, path)):
            visited = [tuple(point) for point in levels[:, member].tolist()]
            assert list(dict.fromkeys(visited)) == expected, (indices, member)


class Reading(GaussianOracle):
    """The exact oracle of x_t = r x_{t-1} + xi with frames of variance `power`, whose heads read chosen `levels` (B, 2)."""

    def __init__(self, schedule: NoiseSchedule, power: float, correlation: float, levels):
        matrices = (torch.tensor([[value]], dtype=F64) for value in (correlation, power * (1 - correlation**2)))
        super().__init__(*matrices, schedule)
        self.levels = torch.as_tensor(levels)

    def level_logits(self, x_prev, x_next, anchor=None):
        return torch.nn.functional.one_hot(self.levels, self.schedule.levels + 1).double().expand(len(x_prev), -1, -1)


def refined(oracle: Reading, pairs, rule, path="left_then_down"):
    """Return the refined next frames (B, 1) of true pairs and the record of the step."""
    method = Refinement(lambda x: pairs[1], oracle, oracle.schedule, levels=rule, walk=WalkBack(path))
    streams = [generator("test", "member", member) for member in range(len(pairs[0]))]
    carry, record = method.step(method.start(pairs[0]), streams)
    return carry["frame"], record


def law_after(oracle: Reading, placed: int, counted: int) -> float:
    """Return the variance of a next frame that is noised to the level `placed` and walked from `counted`, with its pair."""
    start = oracle.noised_covariance(*torch.tensor([[placed], [placed]]))[0]
    return float(oracle.propagate(Path.left_then_down(counted, counted), torch.zeros(2, dtype=F64), start)[1][1, 1])


def test_the_largest_index_keeps_the_noise_between_two_levels():
    """For independent frames of variance P, one move from level 1 is the factor g = a^(1/2) P / (a P + sigma^2)."""
    schedule, power = NoiseSchedule.cosine(10), 0.04
    oracle = Reading(schedule, power, 0.0, [[2, 2]])
    a1, a2 = (float(schedule.alpha_bar[level]) for level in (1, 2))
    factor = a1**0.5 * power / (a1 * power + 1 - a1)
    expected = factor**2 * (a2 * power + 1 - a2)
    assert law_after(oracle, placed=2, counted=1) == pytest.approx(expected, rel=1e-12)
    right = law_after(oracle, placed=1, counted=1)
    assert expected / right == pytest.approx((a2 * power + 1 - a2) / (a1 * power + 1 - a1), rel=1e-12)
    assert expected > 1.5 * right, "a small scale keeps more power than one that is walked from its level"
    pairs = oracle.sample(MEMBERS, generator("test", "pairs"))
    frame, record = refined(oracle, pairs, IndexedLevels())
    assert float(frame.var()) == pytest.approx(expected, rel=0.08)
    assert record.levels.unique().tolist() == [2] and record.calls.unique().tolist() == [2]


@pytest.mark.parametrize("levels", [4, 9])
def test_a_batch_at_one_index_has_the_law_of_a_walk_from_one_level_too_low(levels):
    oracle = Reading(NoiseSchedule.cosine(10), 0.1, 0.9, [[levels, levels]])
    pairs = oracle.sample(MEMBERS, generator("test", "pairs"))
    frame, _ = refined(oracle, pairs, IndexedLevels())
    counted_low, exact = law_after(oracle, levels, levels - 1), law_after(oracle, levels, levels)
    assert float(frame.var()) == pytest.approx(counted_low, rel=0.08)
    assert counted_low > exact


def test_the_noise_is_added_at_the_lowest_index_too_and_nothing_takes_it_away():
    oracle = Reading(NoiseSchedule.cosine(10), 0.04, 0.9, [[1, 0]])
    pairs = oracle.sample(MEMBERS, generator("test", "pairs"))
    frame, record = refined(oracle, pairs, IndexedLevels())
    a1 = float(oracle.schedule.alpha_bar[1])
    noise = frame - a1**0.5 * pairs[1]
    assert float(noise.var()) == pytest.approx(1 - a1, rel=0.08)
    assert abs(float((noise * pairs[1]).mean())) < 0.1 * (0.04 * (1 - a1)) ** 0.5
    assert record.calls.unique().tolist() == [0]
    assert record.levels.unique().tolist() == [1], "the class of the clean level is not read"
    untouched, record = refined(oracle, pairs, EstimatedLevels())
    assert torch.equal(untouched, pairs[1]) and record.calls.unique().tolist() == [0]


def test_a_member_below_the_largest_index_is_walked_from_its_own_level():
    indices = torch.tensor([[0, 0], [2, 1], [3, 3]])
    oracle = Reading(NoiseSchedule.cosine(10), 0.1, 0.9, indices + 1)
    pairs = oracle.sample(3, generator("test", "pairs"))
    frames = [refined(oracle, pairs, rule)[0] for rule in (IndexedLevels(), EstimatedLevels())]
    torch.testing.assert_close(frames[0][:2], frames[1][:2], rtol=1e-12, atol=1e-12)
    assert (frames[0][2] - frames[1][2]).abs() > 1e-3
    alone = Reading(oracle.schedule, 0.1, 0.9, indices[:1] + 1)
    frame, record = refined(alone, tuple(half[:1] for half in pairs), IndexedLevels())
    assert record.calls.tolist() == [0] and not torch.allclose(frame, frames[0][:1]), "the batch decides on the call"


def test_a_member_that_is_lost_does_not_count():
    logits = torch.zeros(2, 2, 11)
    logits[0, :, 3] = 1.0
    logits[1] = torch.nan
    assert IndexedLevels().of_pair(lambda: logits, [None] * 2, None).tolist() == [[3, 3], [1, 1]]


def test_options_that_need_a_clean_level_are_refused():
    for options in ({"condition_level": 0}, {"readout": LevelReadout("calibrated", 0.1, torch.ones(2, 3))}):
        with pytest.raises(ValueError, match="'indices' has no clean level"):
            IndexedLevels(**options)
    oracle = Reading(NoiseSchedule.cosine(10), 1.0, 0.5, [[1, 1]])
    with pytest.raises(ValueError, match="set renoise to true"):
        Refinement(lambda x: x, oracle, oracle.schedule, levels=IndexedLevels(), renoise=False)
    with pytest.raises(ValueError, match="'fixed_condition' does not; use left_then_down"):
        IndexedLevels().counted_from(torch.ones(1, 2, dtype=torch.int64), "fixed_condition")


def test_a_thousand_levels_and_heads_that_see_places_run_from_files(tiny, tmp_path):
    from tiny_models import SPECS, train

    spec = SPECS["denoiser"]
    network = {**spec["network"], "head_features": "bottleneck_grid", "head_kind": "categorical"}
    spec = {**spec, "network": network, "diffusion": {**spec["diffusion"], "levels": 1000}}
    spec = {**spec, "training": {**spec["training"], "steps": 4, "warmup": 1}}
    models = {**tiny.models, "denoiser": train(tmp_path, tiny.manifest, "thousand", spec)}
    options = {
        "kind": "refinement",
        "bookkeeping": "indices",
        "readout": {"kind": "quantile", "quantile": 1e-3},
        "stride": 50,
    }
    method = build_method(options, models, Emulation.read(tiny.manifest), hardware=Hardware(precision="float32"))
    system = Emulation.read(tiny.manifest).build_system()
    states = system.initial_state(2, [generator("test", member) for member in range(2)])
    carry, record = method.step(method.start(states), MemberStreams("test", members=range(2)).at(1))
    assert method.schedule.levels == 1000 and torch.isfinite(carry["frame"]).all()
    assert (record.levels >= 1).all()
