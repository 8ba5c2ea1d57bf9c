"""Distillation: one and two calls give the law of a Gaussian process, exactly; the teacher is part of what is checked."""

import copy

import pytest
import torch
from tiny_models import SPECS, train

from sns_core.data.emulation import Emulation
from sns_core.diffusion import GaussianOracle, NoiseColour, NoiseSchedule, Path, Prediction, Sampler, walk
from sns_core.diffusion.increments import time_features
from sns_core.errors import UserError
from sns_core.files import read_tensors
from sns_core.methods import (
    DistilledFlowMatching,
    DistilledGeneration,
    EstimatedLevels,
    FlowMatching,
    Hardware,
    build_method,
)
from sns_core.methods.distilled import LongMoves
from sns_core.streams import MemberStreams, generator, normal
from sns_core.training.distillation import FlowDistillationObjective, GenerationDistillationObjective

F64 = torch.float64
STD = torch.full((1, 1, 1), 0.5, dtype=F64)
SIZE = 3


@pytest.fixture(scope="module")
def oracle():
    transition = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.8, 0.2], [-0.1, 0.0, 0.6]], dtype=F64)
    innovation = torch.tensor([[0.02, 0.01, 0.0], [0.01, 0.1, 0.0], [0.0, 0.0, 0.4]], dtype=F64)
    return GaussianOracle(transition, innovation, NoiseSchedule.cosine(10))


def apply(matrix, fields):
    """Apply a matrix (d, d) to the rows of fields (B, 1, 1, d)."""
    return fields @ matrix.mT


def exact_velocity(oracle):
    """Return the velocity E[y - noise | y(tau), x_{t-1}] of the increments y of the oracle's process, in units of STD."""
    identity, unit = torch.eye(SIZE, dtype=F64), float(STD)
    drift, law = (oracle.transition - identity) / unit, oracle.innovation / unit**2

    def velocity(previous, y, time):
        gain = (time * law - (1 - time) * identity) @ torch.linalg.inv(time**2 * law + (1 - time) ** 2 * identity)
        mean = apply(drift, previous)
        return mean + apply(gain, y - time * mean)

    return velocity


class LinearStudent:
    """The velocity as a linear function of the previous frame and y, by matrices (moves, 3, 6) of its own for each move."""

    def __init__(self, times):
        self.starts = time_features(torch.tensor(times[:-1], dtype=F64))
        self.weights = torch.zeros(len(self.starts), SIZE, 2 * SIZE, dtype=F64, requires_grad=True)

    def __call__(self, stack, condition):
        move = int((self.starts - condition[:1]).abs().sum(1).argmin())
        pair = torch.cat(stack.unbind(1), -1)
        return apply(self.weights[move], pair)[:, None], None

    def velocity(self, previous, y, time):
        return self(torch.stack([previous, y], 1), time_features(torch.tensor([time], dtype=F64)))[0][:, 0].detach()


def minimise(objective, student, batch):
    """Give a linear student the weights that minimise the objective on a batch, and return its last loss.

    By Newton's method: the loss is quadratic in the weights, up to the rounding of a network's output to float32.
    """
    draws = 4 * len(student.weights)
    for _ in range(3):
        loss = sum(objective(student, batch, generator("x", draw))["loss"] for draw in range(draws))
        (slope,) = torch.autograd.grad(loss, student.weights, create_graph=True)
        rows = [torch.autograd.grad(part, student.weights, retain_graph=True)[0].flatten() for part in slope.flatten()]
        change = torch.linalg.solve(torch.stack(rows), slope.detach().flatten()).view_as(slope)
        student.weights = (student.weights - change).detach().requires_grad_()
    return loss.item()


def distil(oracle, moves, teacher_moves, bend=2.0):
    """Return a linear student that has minimised the objective on draws of the oracle, and its last loss."""
    objective = FlowDistillationObjective(
        STD, exact_velocity(oracle), moves=moves, teacher_moves=teacher_moves, bend=bend
    )
    student = LinearStudent(objective.times[::teacher_moves])
    batch = torch.stack(oracle.sample(64, torch.Generator().manual_seed(0), (1, 1, SIZE)), 1)
    return student, minimise(objective, student, batch)


def law(method):
    """Return the matrices A and M of a method that is linear, x_t = A x_{t-1} + M noise: no draw is needed to compare laws."""
    streams = [torch.Generator().manual_seed(member) for member in range(SIZE)]
    noise = normal(streams, (1, 1, SIZE), torch.empty(0, dtype=F64))[:, 0, 0]

    def step(states):
        for stream, member in zip(streams, range(SIZE), strict=True):
            stream.manual_seed(member)
        return method.step(method.start(states[:, None, None]), streams)[0]["frame"][:, 0, 0]

    rest = step(torch.zeros(SIZE, SIZE, dtype=F64))
    return (step(torch.eye(SIZE, dtype=F64)) - rest).mT, torch.linalg.solve(noise, rest).mT


@pytest.mark.parametrize(("moves", "teacher_moves"), [(1, 32), (2, 16)])
def test_a_student_gives_the_law_of_the_process_in_one_call_and_in_two(oracle, moves, teacher_moves):
    student, loss = distil(oracle, moves, teacher_moves)
    assert loss < 1e-9, "the teacher draws nothing on the way, so a student can be exact"
    method = DistilledFlowMatching(student.velocity, STD, moves=moves, bend=2.0)
    transition, noise = law(method)
    previous = oracle.stationary
    torch.testing.assert_close(transition @ previous, oracle.transition @ previous, rtol=0.01, atol=2e-3)
    variance = transition @ previous @ transition.mT + noise @ noise.mT
    torch.testing.assert_close(variance, previous, rtol=0.01, atol=2e-3)
    record = method.step(
        method.start(torch.zeros(2, 1, 1, SIZE, dtype=F64)), MemberStreams("x", members=range(2)).at(1)
    )[1]
    assert record.calls.tolist() == [moves] * 2


def test_a_student_is_worth_the_calls_of_its_teacher(oracle):
    """One call gives the law of the teacher's own five, and where the teacher made more moves, a better one."""
    teacher = FlowMatching(exact_velocity(oracle), STD, moves=3, order=2, bend=2.0)
    noise_of_teacher = law(teacher)[1]
    share = {}
    for teacher_moves in (3, 64):
        student, _ = distil(oracle, 1, teacher_moves)
        noise = law(DistilledFlowMatching(student.velocity, STD, moves=1, bend=2.0))[1]
        share[teacher_moves] = torch.linalg.eigvalsh(noise @ noise.mT)[0] / torch.linalg.eigvalsh(oracle.innovation)[0]
        if teacher_moves == 3:
            torch.testing.assert_close(noise, noise_of_teacher, rtol=1e-4, atol=1e-5)
    assert share[64] == pytest.approx(1, abs=0.02) and abs(share[3] - 1) > 0.2


class LinearDenoiser:
    """A denoiser whose clean pair is a linear function of the noised one, by matrices (moves, 6, 6) of its own for each move.

    It is the network of an objective, which shows it no levels, and the denoiser of a method, which does.
    """

    def __init__(self, schedule, starts):
        self.starts, self.prediction, self.move = starts, Prediction("clean", schedule), 0
        self.weights = torch.zeros(len(starts), 2 * SIZE, 2 * SIZE, dtype=F64, requires_grad=True)

    def __call__(self, stack, levels=None):
        clean = apply(self.weights[self.move], torch.cat(stack.unbind(1), -1))
        return torch.stack(clean.split(SIZE, -1), 1), None

    def noise(self, x_prev, x_next, s_prev, s_next, anchor=None):
        self.move = self.starts.index(int(s_next[0]))
        noised, levels = torch.stack([x_prev, x_next], 1), torch.stack([s_prev, s_next], 1)
        return self.prediction.noise(self(noised)[0].detach(), noised, levels).unbind(1)


class ToldMoves(GenerationDistillationObjective):
    """Tells a linear student, which has matrices of its own for each of its moves, which move has been drawn."""

    student: LinearDenoiser

    def parts_of(self, noised, clean, noise, levels, context):
        self.student.move = self.student.starts.index(int(levels[0, 1]))
        return super().parts_of(noised, clean, noise, levels, context)


@pytest.mark.parametrize(("moves", "condition_level"), [(1, 0), (2, 0), (1, 2400)])
def test_a_student_of_generation_gives_the_law_of_the_process_given_what_it_sees(oracle, moves, condition_level):
    schedule, teacher_moves = NoiseSchedule.cosine(8000), 80 // moves
    teacher = GaussianOracle(oracle.transition, oracle.innovation, schedule)
    objective = ToldMoves(
        teacher, moves=moves, teacher_moves=teacher_moves, condition_level=condition_level, schedule=schedule,
        colour=NoiseColour(0.0, [[1.0, 1.0]], (1, SIZE)), anchored=False, prediction=Prediction("clean", schedule),
    )  # fmt: skip
    student = objective.student = LinearDenoiser(schedule, objective.path[:-1:teacher_moves, 0, 1].tolist())
    batch = torch.stack(teacher.sample(64, torch.Generator().manual_seed(0), (1, 1, SIZE)), 1)
    loss = minimise(objective, student, batch)
    method = DistilledGeneration(
        student.noise, schedule, levels=EstimatedLevels(condition_level=condition_level), walk=LongMoves(moves)
    )
    transition, noise = law(method)
    previous, signal = oracle.stationary, schedule.alpha_bar[condition_level]
    gain = signal * torch.linalg.solve(signal * previous + (1 - signal) * torch.eye(SIZE, dtype=F64), previous).mT
    torch.testing.assert_close(transition @ previous, oracle.transition @ gain @ previous, rtol=0.03, atol=2e-3)
    if condition_level == 0:
        assert loss < 1e-6, "nothing is drawn on the way, and the previous frame is seen as it is"
        variance = transition @ previous @ transition.mT + noise @ noise.mT
        torch.testing.assert_close(variance, previous, rtol=0.03, atol=2e-3)  # of Euler's 80 moves


@pytest.mark.parametrize("condition_level", [0, 3])
def test_the_parts_of_a_students_target_are_those_of_its_start_and_lead_to_its_teachers_end(oracle, condition_level):
    schedule, moves, teacher_moves = oracle.schedule, 2, 3
    objective = GenerationDistillationObjective(
        oracle, moves=moves, teacher_moves=teacher_moves, condition_level=condition_level, schedule=schedule,
        colour=NoiseColour(0.0, [[1.0, 1.0]], (1, SIZE)), anchored=False,
    )  # fmt: skip
    clean = torch.stack(oracle.sample(5, torch.Generator().manual_seed(0), (1, 1, SIZE)), 1)
    noise = torch.randn(clean.shape, generator=generator("noise"), dtype=F64)
    for first in range(0, moves * teacher_moves, teacher_moves):
        route = Path(objective.path[first : first + teacher_moves + 1])
        start, stop = (route.levels[end, 0].expand(5, 2) for end in (0, -1))
        noised = schedule.add_noise(clean.flatten(0, 1), start.flatten(), noise.flatten(0, 1)).view_as(clean)
        parts = objective.parts_of(noised, clean, noise, start, clean[:, :0])
        assert torch.equal(parts[1], noised) and torch.equal(parts[0][:, 0], clean[:, 0])
        _, end = walk(
            oracle,
            route,
            *noised.unbind(1),
            schedule=schedule,
            generator=[None] * 5,
            sampler=Sampler(eta=0.0),
            anchor=None,
        )
        for levels, frame in ((start, noised[:, 1]), (stop, end)):
            torch.testing.assert_close(schedule.add_noise(parts[0][:, 1], levels[:, 1], parts[2][:, 1]), frame)


def test_a_bent_path_has_short_moves_at_its_end_and_each_covers_a_level():
    assert Path.bent(3, 100, 4, 2.0).levels[:, 0].tolist() == [[3, 100], [3, 56], [3, 25], [3, 6], [3, 0]]
    for moves in range(1, 101):
        for bend in (0.5, 1.0, 2.0, 7.0):
            down = Path.bent(0, 100, moves, bend).levels[:, 0, 1]
            assert down[0] == 100 and down[-1] == 0 and (down.diff() <= -1).all() and len(down) == moves + 1
    with pytest.raises(ValueError, match="101 moves are more than the 100 levels"):
        Path.bent(0, 100, 101, 2.0)


@pytest.mark.parametrize("levels", [20, 60, 100])
@pytest.mark.parametrize(("moves", "teacher_moves"), [(1, 5), (2, 3), (3, 5), (4, 3)])
def test_a_student_walks_over_the_levels_that_it_was_trained_for(levels, moves, teacher_moves):
    schedule = NoiseSchedule.cosine(levels)
    objective = GenerationDistillationObjective(
        None, moves=moves, teacher_moves=teacher_moves, condition_level=2, schedule=schedule,
        colour=NoiseColour(0.0, [[1.0, 1.0]], (1, SIZE)), anchored=False,
    )  # fmt: skip
    trained = {tuple(objective.draw_levels(1, generator("levels", draw))[0].tolist()) for draw in range(40)}
    route = LongMoves(moves, 2.0, teacher_moves).route(torch.tensor([2]), torch.tensor([levels])).levels[:, 0]
    assert {tuple(level) for level in route[:-1].tolist()} == trained and route[-1].tolist() == [2, 0]


def test_a_student_starts_as_its_teacher_and_needs_one(tiny, tmp_path):
    spec = copy.deepcopy(SPECS["distilled"])
    spec["training"] |= {"learning_rate": 1e-12, "weight_decay": 0.0, "ema": 0.0}
    tensors, _ = read_tensors(train(tmp_path, tiny.manifest, "still", spec))
    teacher, _ = read_tensors(tiny.models["flow_matching"])
    assert all(torch.allclose(tensors[name], teacher[name], atol=1e-6) for name in teacher)
    spec["network"] = {**spec["network"], "width": 4}
    narrow, _ = read_tensors(train(tmp_path, tiny.manifest, "narrow", spec))
    assert narrow.keys() == teacher.keys() and any(narrow[name].shape != teacher[name].shape for name in teacher)
    with pytest.raises(UserError, match="the model 'orphan' needs a teacher"):
        train(tmp_path, tiny.manifest, "orphan", spec, models={})
    with pytest.raises(UserError, match="'pointwise' where 'flow_matching' is needed"):
        train(tmp_path, tiny.manifest, "orphan", spec, models={"teacher": tiny.models["surrogate"]})


def test_a_student_is_built_from_its_file_and_says_how_many_calls_it_makes(tiny):
    emulation = Emulation.read(tiny.manifest)
    method = build_method(
        {"kind": "distilled_flow_matching"},
        {"velocity": tiny.models["distilled"]},
        emulation,
        hardware=Hardware(precision="float32"),
    )
    states = emulation.build_system().initial_state(2, [generator("test", member) for member in range(2)])
    carry, record = method.step(method.start(states), MemberStreams("test", members=range(2)).at(1))
    assert torch.isfinite(carry["frame"]).all() and record.calls.tolist() == [2, 2]
