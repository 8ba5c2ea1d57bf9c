"""Addressed random streams: the same bits for a member in any company, and a table that lists every purpose."""

import ast
import re

import pytest
import torch

import sns_core.streams
from sns_core.streams import MemberStreams, derive_seed, generator, normal, spawn


def draw(stream):
    return torch.randn(6, generator=stream)


def test_seeds_are_the_same_on_every_machine():
    # Fixed values: other seeds would change the data and results of every configuration.
    assert derive_seed(0, "noise", 3, 17) == 6813383524681908221


def test_seeds_differ_in_every_part_and_fit_63_bits():
    seeds = [derive_seed(a, b, c) for a in range(5) for b in ("train", "test") for c in range(50)]
    assert len(set(seeds)) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_a_generator_is_addressed_by_its_parts():
    assert torch.equal(draw(generator(1, "walk", 2)), draw(generator(1, "walk", 2)))
    assert not torch.equal(draw(generator(1, "walk", 2)), draw(generator(1, "walk", 3)))


def test_a_members_stream_does_not_depend_on_the_other_members_of_the_batch():
    together = MemberStreams(7, "rollout", members=[0, 1, 2, 5]).at(3)
    alone = MemberStreams(7, "rollout", members=[5]).at(3)
    assert torch.equal(draw(together[3]), draw(alone[0]))


def test_a_members_stream_does_not_depend_on_what_was_drawn_before():
    used, fresh = (MemberStreams(7, "rollout", members=[4]) for _ in range(2))
    for step in range(3):
        draw(used.at(step)[0])
    assert torch.equal(draw(used.at(3)[0]), draw(fresh.at(3)[0]))


def test_streams_differ_between_members_steps_and_runs():
    rows = [
        draw(stream)
        for run in (7, 8)
        for step in (0, 1)
        for stream in MemberStreams(run, "rollout", members=[0, 1]).at(step)
    ]
    assert len({tuple(row.tolist()) for row in rows}) == 8


def test_one_generator_spawns_one_stream_per_member():
    left, right = (spawn(generator(1), 3) for _ in range(2))
    rows = [draw(stream) for stream in left]
    assert all(torch.equal(row, draw(stream)) for row, stream in zip(rows, right, strict=True))
    assert len({tuple(row.tolist()) for row in rows}) == 3


def test_a_list_of_streams_is_passed_on():
    streams = [generator(member) for member in range(3)]
    assert spawn(streams, 3) == streams
    with pytest.raises(ValueError, match="3 random streams for 2 members"):
        spawn(streams, 2)


def test_normal_numbers_of_a_row_come_from_its_own_stream():
    like = torch.zeros(1, dtype=torch.float64)
    rows = normal([generator(0), generator(1)], (2, 3), like)
    assert rows.shape == (2, 2, 3)
    assert rows.dtype == torch.float64
    assert torch.equal(rows[1], normal([generator(1)], (2, 3), like)[0])
    assert not torch.equal(rows[0], rows[1])


def test_a_row_without_a_stream_is_zero_and_changes_no_other_row():
    like = torch.zeros(1)
    rows = normal([None, generator(1), None], (2, 3), like)
    assert torch.equal(rows[1], normal([generator(1)], (2, 3), like)[0])
    assert not rows[[0, 2]].any()


def purposes_in(path) -> set[str]:
    """Return the purposes of the streams that a module opens: the first text of each address."""
    purposes = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("generator", "derive_seed", "MemberStreams"):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            purposes |= set(texts[:1])
    return purposes


def test_the_table_of_purposes_lists_every_stream_of_the_package_and_no_other(root):
    table = sns_core.streams.__doc__.partition("drawn\n")[2].partition("\n\n")[0]
    listed = set(re.findall(r'^ +"([^"]+)"  ', table, re.M))
    used = set().union(*(purposes_in(path) for path in (root / "sns_core").rglob("*.py")))
    assert listed == used
