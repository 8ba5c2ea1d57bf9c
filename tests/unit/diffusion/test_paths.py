"""Paths down the plane of noise levels against levels written out by hand."""

import pytest
import torch
from oracles import TO_CLEAN, levels_of, visited

from sns_core.diffusion import PATHS, Path


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
