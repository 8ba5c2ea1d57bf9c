"""The engine with a method that counts: no file, no system, no network."""

import torch

from sns_core.methods import Method, StepRecord, Surrogate
from sns_core.rollout import Observer, iterate, roll
from sns_core.rollout.engine import Clock
from sns_core.streams import MemberStreams


class Counter(Method):
    """A method that adds a random number of each member's stream to its frame."""

    def start(self, states):
        return {"frame": states.clone()}

    def step(self, carry, streams):
        noise = torch.stack([torch.randn(1, generator=g) for g in streams])
        return {"frame": carry["frame"] + noise}, StepRecord.nothing(len(noise))


class Notes(Observer):
    """An observer that notes the order of its calls."""

    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def before(self, step):
        self.notes.append((self.name, "before", step))

    def after(self, step, frame, record):
        self.notes.append((self.name, "after", step))
        self.frame, self.record = frame, record


def rolled(first, last, carry=None, members=(0, 1, 2), observers=()):
    method, streams = Counter(), MemberStreams(0, "engine", members=members)
    carry = method.start(torch.zeros(len(members), 1)) if carry is None else carry
    return roll(method, carry, streams, range(first, last + 1), observers)


def test_every_observer_sees_every_step_in_order():
    notes = []
    first, second = Notes("first", notes), Notes("second", notes)
    carry = rolled(1, 2, observers=[first, second])
    moments = [(name, when, step) for step in (1, 2) for when in ("before", "after") for name in ("first", "second")]
    assert notes == moments
    assert torch.equal(second.frame, carry["frame"]) and second.record.calls.tolist() == [0, 0, 0]


def test_two_stretches_give_the_bits_of_one():
    whole, half = rolled(1, 10), rolled(1, 4)
    assert torch.equal(rolled(5, 10, half)["frame"], whole["frame"])


def test_a_member_does_not_depend_on_the_other_members():
    assert torch.equal(rolled(1, 5, members=(1,))["frame"][0], rolled(1, 5)["frame"][1])


def test_no_steps_leave_the_carry_as_it_is():
    assert rolled(1, 0)["frame"].tolist() == [[0.0]] * 3


def test_an_endless_rollout_is_consumed_step_by_step():
    method, streams = Counter(), MemberStreams(0, "engine", members=[0])
    steps = iterate(method, method.start(torch.zeros(1, 1)), streams, iter(range(1, 10**12)))
    frames = [frame.item() for (_, frame, _), _ in zip(steps, range(3), strict=False)]
    assert frames == [rolled(1, count, members=(0,))["frame"].item() for count in (1, 2, 3)]


def test_the_clock_leaves_out_the_other_observers(monkeypatch):
    time = iter(range(1000))
    monkeypatch.setattr("sns_core.rollout.engine.time.perf_counter", lambda: next(time))

    class Slow(Observer):
        def after(self, step, frame, record):
            for _ in range(100):
                next(time)

    clock = Clock(10, 6, 3, torch.device("cpu"))
    rolled(11, 16, observers=[clock, Slow()])
    assert clock.seconds.tolist() == [3, 3]


def test_a_surrogate_with_parameters_keeps_no_graph():
    method = Surrogate(torch.nn.Linear(3, 3))
    carry = roll(method, method.start(torch.ones(2, 3)), MemberStreams(0, "engine", members=[0, 1]), range(1, 4))
    assert not carry["frame"].requires_grad
