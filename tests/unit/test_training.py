"""Training resumes to the same bits, and a model file is refused where it does not fit."""

import copy
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from tiny_models import SPECS, train

from sns_core.data import load_dataset
from sns_core.device import can_compile
from sns_core.diffusion import NoiseColour, NoiseSchedule, Prediction
from sns_core.errors import DamagedFile, UserError
from sns_core.files import read_json, read_tensors, write_tensors
from sns_core.processes import ProcessGroup
from sns_core.record import recorded
from sns_core.streams import generator
from sns_core.systems import System
from sns_core.training import load_model, train_model
from sns_core.training.checkpoint import load_checkpoint, save_checkpoint
from sns_core.training.history import History
from sns_core.training.objectives import DenoiserObjective, PointwiseObjective, shell_weights
from sns_core.training.trainer import Trainer, learning_rate


def weights(path):
    return read_tensors(path)[0]


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("name", ["pointwise", "denoiser"])
def test_interrupted_training_ends_in_the_same_bits(tiny, tmp_path, monkeypatch, name):
    done = Trainer.train_step

    def dies_at_17(trainer, stop=False):
        if trainer.step == 17:
            raise KeyboardInterrupt
        return done(trainer, stop)

    monkeypatch.setattr(Trainer, "train_step", dies_at_17)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tiny.manifest, name, SPECS[name])
    monkeypatch.undo()
    checkpoint = next((tmp_path / ".work").glob("*/checkpoint.safetensors"))
    tensors, left = read_tensors(checkpoint)
    assert left["step"] == 10
    write_tensors(checkpoint, tensors, {**left, "seconds": 1000 + left["seconds"]})
    resumed = train(tmp_path, tiny.manifest, name, SPECS[name])
    whole = tiny.folder / f"{name}.safetensors"
    assert same(weights(resumed), weights(whole))
    assert resumed.with_suffix(".csv").read_text() == whole.with_suffix(".csv").read_text()
    assert read_json(resumed.with_suffix(".json"))["provenance"]["wall_seconds"] > 1000, "of both calls"
    assert not list((tmp_path / ".work").glob("*")), "a finished training leaves no checkpoint"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_training_that_is_asked_to_end_leaves_a_checkpoint(tiny, tmp_path, specs, number, status):
    spec = specs["pointwise"]
    spec["training"] |= {"steps": 2000, "log_every": 500, "checkpoint_every": 2000}
    words = [
        sys.executable, "-m", "sns_core", "train_model", "--name", "pointwise", "--spec", json.dumps(spec), "--manifest",
        str(tiny.manifest), "--seed", "3", "--device", "cpu", "--precision", "float32", "--output",
        str(tmp_path / "m.safetensors"), "--history", str(tmp_path / "m.csv"),
    ]  # fmt: skip
    process = subprocess.Popen(words, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    work = tmp_path / ".work"
    # The process catches these signals from the beginning of the training on.
    handled = Path(f"/proc/{process.pid}/status")
    deadline = time.monotonic() + 60
    while not int(re.search(r"SigCgt:\s*(\w+)", handled.read_text())[1], 16) >> (signal.SIGTERM - 1) & 1:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(number)
    process.wait(60)
    assert process.returncode == status, process.stderr.read()
    note = read_tensors(next(work.glob("*/checkpoint.safetensors")))[1]
    assert 0 < note["step"] < 2000
    assert not (tmp_path / "m.safetensors").exists()


def test_a_checkpoint_of_other_code_or_data_is_not_taken_up(tiny, tmp_path, monkeypatch):
    done = Trainer.train_step

    def dies(trainer, stop=False):
        if trainer.step == 15:
            raise KeyboardInterrupt
        return done(trainer, stop)

    monkeypatch.setattr(Trainer, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tiny.manifest, "pointwise", SPECS["pointwise"], code="old")
    started = []

    def counted(trainer, stop=False):
        started.append(trainer.step)
        return done(trainer, stop)

    monkeypatch.setattr(Trainer, "train_step", counted)
    train(tmp_path, tiny.manifest, "pointwise", SPECS["pointwise"], code="new")
    assert started[0] == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda note, _: note["of"].update(seed=4), "a checkpoint of another seed"),
        (lambda note, _: note["of"].update({"data manifest": "x"}), "a checkpoint of another data manifest"),
        (lambda note, _: note["of"].update(code="older"), "a checkpoint of another code"),
        (
            lambda note, _: note["of"]["specification"]["training"].update(batch=5),
            "a checkpoint of another specification",
        ),
        (
            lambda _, tensors: tensors.update({next(n for n in tensors if "weights." in n): torch.zeros(2)}),
            "of another shape",
        ),
    ],
)
def test_a_checkpoint_under_the_wrong_name_is_refused_with_the_reason(
    tiny, tmp_path, monkeypatch, capsys, change, reason
):
    done = Trainer.train_step

    def dies(trainer, stop=False):
        if trainer.step == 15:
            raise KeyboardInterrupt
        return done(trainer, stop)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", dies)
        train(tmp_path, tiny.manifest, "pointwise", SPECS["pointwise"])
    checkpoint = next((tmp_path / ".work").glob("*/checkpoint.safetensors"))
    tensors, note = read_tensors(checkpoint)
    change(note, tensors)
    write_tensors(checkpoint, tensors, note)
    model = train(tmp_path, tiny.manifest, "pointwise", SPECS["pointwise"])
    assert reason in capsys.readouterr().err
    assert same(weights(model), weights(tiny.folder / "pointwise.safetensors"))


def counted_steps(monkeypatch) -> list[int]:
    """Return a list that gets the number of each step that is trained from now on."""
    steps, train_step = [], Trainer.train_step

    def counted(trainer, stop=False):
        steps.append(trainer.step)
        return train_step(trainer, stop)

    monkeypatch.setattr(Trainer, "train_step", counted)
    return steps


def test_a_finished_training_at_a_constant_rate_goes_on_for_more_steps_to_the_same_bits(
    tiny, tmp_path, specs, monkeypatch
):
    spec = specs["denoiser"]
    spec["training"] |= {"decay": "constant", "steps": 20}
    train(tmp_path, tiny.manifest, "denoiser", copy.deepcopy(spec))
    steps = counted_steps(monkeypatch)
    spec["training"]["steps"] = 30
    longer = train(tmp_path, tiny.manifest, "denoiser", spec)
    assert steps == list(range(20, 30))
    (tmp_path / "fresh").mkdir()
    whole = train(tmp_path / "fresh", tiny.manifest, "denoiser", spec)
    assert steps[10:] == list(range(30))
    assert same(weights(longer), weights(whole))
    assert longer.with_suffix(".csv").read_text() == whole.with_suffix(".csv").read_text()
    assert read_tensors(longer)[1] == read_tensors(whole)[1]


@pytest.mark.parametrize(
    ("decay", "steps", "reason"),
    [
        ("cosine", 40, "30 steps are done with the learning rates of a training of 30 steps, and its decay 'cosine'"),
        ("step", 40, "and its decay 'step' gives other rates to one of 40 steps; only 'constant' can be continued"),
        ("constant", 20, "30 steps are done, and 20 are asked for"),
    ],
)
def test_a_training_of_another_number_of_steps_that_cannot_go_on_starts_anew_and_says_why(
    tiny, tmp_path, specs, monkeypatch, capsys, decay, steps, reason
):
    spec, output = specs["pointwise"], tmp_path / "pointwise.safetensors"
    spec["training"]["decay"] = decay
    arguments = {"spec": copy.deepcopy(spec), "output": output, "device": "cpu"}
    with recorded(train_model, arguments, "", None, time.monotonic):
        train(tmp_path, tiny.manifest, "pointwise", arguments["spec"])
    started = counted_steps(monkeypatch)
    spec["training"]["steps"] = steps
    train(tmp_path, tiny.manifest, "pointwise", spec)
    assert started == list(range(steps))
    message = capsys.readouterr().err
    assert reason in message and message.count("; training from the start") == 1


def test_an_interrupted_training_in_its_warm_up_goes_on_for_another_number_of_steps(tiny, tmp_path, specs, monkeypatch):
    """Up to the end of the warm-up, the rates of all numbers of steps are equal."""
    spec = specs["pointwise"]
    spec["training"]["warmup"] = 15
    done = Trainer.train_step
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            Trainer, "train_step", lambda trainer, stop=False: done(trainer, stop) if trainer.step < 12 else stop_now()
        )
        train(tmp_path, tiny.manifest, "pointwise", copy.deepcopy(spec))
    spec["training"]["steps"] = 40
    steps = counted_steps(monkeypatch)
    resumed = train(tmp_path, tiny.manifest, "pointwise", spec)
    (tmp_path / "fresh").mkdir()
    whole = train(tmp_path / "fresh", tiny.manifest, "pointwise", spec)
    assert steps[0] == 10 and same(weights(resumed), weights(whole))


def stop_now():
    raise KeyboardInterrupt


def test_checkpoints_are_written_by_the_clock_as_well_as_by_steps(tiny, tmp_path, specs, monkeypatch):
    spec, saved = specs["pointwise"], []
    spec["training"]["checkpoint_every"] = 1000
    monkeypatch.setattr(
        "sns_core.training.train.save_checkpoint", lambda path, trainer, identity: saved.append(trainer.step)
    )
    now = iter(range(0, 10**6, 25))  # a second call of the clock is 25 seconds later
    monkeypatch.setattr("sns_core.training.train.time", SimpleNamespace(monotonic=lambda: next(now)))
    train(tmp_path, tiny.manifest, "pointwise", spec, checkpoint_minutes=2)
    # After each checkpoint the clock is read once more.
    assert saved[:3] == [5, 10, 15] and 30 not in saved
    saved.clear()
    train(tmp_path, tiny.manifest, "pointwise", spec, checkpoint_minutes=1000)
    assert saved == []


def test_training_learns(tiny):
    history = pd.read_csv(tiny.folder / "denoiser.csv")
    assert history["step"].tolist() == [10, 20, 30]
    assert history["noise"].iloc[-1] < history["noise"].iloc[0]


@pytest.mark.parametrize("name", ["pushforward", "distilled_refinement"])
def test_weights_that_were_cast_without_gradients_are_not_those_that_learn(tiny, specs, monkeypatch, name):
    """Older torch would use the cast weights of a call without gradients in the call that learns, and train nothing."""
    spec, dataset = specs[name], load_dataset(tiny.manifest, "train")
    roles = {"surrogate": tiny.models["surrogate"], "denoiser": tiny.models["residual"]} if "models" in spec else {}
    objectives = {"surrogate": "pointwise", "denoiser": "denoiser"}
    teachers = {role: load_model(path, objectives[role]) for role, path in roles.items()}
    calibration = tiny.models["calibration"]
    trainer = Trainer(
        name, spec, dataset, 3, ProcessGroup(torch.device("cpu")), "bfloat16", models=teachers, calibration=calibration
    )
    events = []
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: events.append("cleared"))
    trainer.network.register_forward_pre_hook(lambda *_: events.append("learns" if torch.is_grad_enabled() else "runs"))
    for _ in range(4):
        trainer.train_step()
    assert "runs" in events and "learns" in events
    assert ("runs", "learns") not in list(itertools.pairwise(events))


def test_a_loss_that_is_not_finite_names_the_model(tiny, tmp_path, specs):
    specs["pointwise"]["training"] |= {"learning_rate": 1e30, "warmup": 0, "clip": 1e30}
    with pytest.raises(UserError, match=r"models\.pointwise: the loss became .*learning_rate"):
        train(tmp_path, tiny.manifest, "pointwise", specs["pointwise"])


def test_weights_that_the_last_step_has_spoilt_make_no_model(tiny, tmp_path, specs, monkeypatch):
    done, clip = Trainer.train_step, torch.nn.utils.clip_grad_norm_

    def explode(parameters, most):
        parameters[0].grad.fill_(torch.inf)
        return clip(parameters, most)

    def spoils(trainer, stop=False):
        if trainer.step == 29:
            monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", explode)
        return done(trainer, stop)

    monkeypatch.setattr(Trainer, "train_step", spoils)
    with pytest.raises(
        UserError, match=r"models\.pointwise: the weights are no finite numbers after 30 steps; lower its"
    ):
        train(tmp_path, tiny.manifest, "pointwise", specs["pointwise"])
    assert not (tmp_path / "pointwise.safetensors").exists()


def test_training_stops_early_if_a_spike_has_destroyed_the_network(tiny, tmp_path, specs, monkeypatch):
    spec = specs["pointwise"]
    spec["training"] |= {"steps": 200, "log_every": 5, "checkpoint_every": 200, "learning_rate": 0.0}
    began = Trainer.train_step

    def spiked(trainer, stop=False):
        if trainer.step == 5:  # the network loses what it has learnt, and learns nothing from this step on
            trainer.network.leave.weight.data.fill_(1.0)
        return began(trainer, stop)

    monkeypatch.setattr(Trainer, "train_step", spiked)
    with pytest.raises(
        UserError, match=r"models\.pointwise: its loss is .* after 55 steps, .* stopped learning; lower its"
    ):
        train(tmp_path, tiny.manifest, "pointwise", spec)


def losses(history, values, length):
    """Give a history the losses `values` of its rows of `length` steps each."""
    for row, loss in enumerate(values, 1):
        history.add({"loss": length * loss})
        history.add_row(step=row * length, **history.means(row * length))


@pytest.mark.parametrize(("length", "warmup", "steps"), [(1, 0, 50), (1, 60, 84), (5, 0, 50), (10, 200, 240)])
def test_a_low_first_row_is_no_sign_of_a_dead_network_before_enough_steps_after_the_warm_up(length, warmup, steps):
    """The first row is low by chance, and the rows after it are the best that an untrained network has."""
    losses(History("m", warmup), [0.9] + [1.0] * (steps // length - 1), length)
    with pytest.raises(
        UserError, match=rf"after {steps + length} steps, no better than the 0.9 of its first {length} "
    ):
        losses(History("m", warmup), [0.9] + [1.0] * (steps // length), length)


def test_learning_rates():
    spec = {"learning_rate": 1.0, "steps": 110, "warmup": 10, "decay": "cosine"}
    assert learning_rate(0, spec) == 0.1 and learning_rate(9, spec) == 1.0
    assert learning_rate(60, spec) == pytest.approx(0.5) and learning_rate(110, spec) == pytest.approx(0)
    steps = [learning_rate(s, {**spec, "decay": "step"}) for s in (59, 60, 85)]
    assert steps == pytest.approx([1.0, 0.1, 0.01])
    with pytest.raises(UserError, match=r"training\.decay"):
        learning_rate(50, {**spec, "decay": "cosin"})


def test_the_denoising_loss_of_the_true_noise_is_zero(tiny):
    """The objective noises the last two frames, leaves the anchor clean, and its target is exactly that noise."""
    statistics = load_dataset(tiny.manifest, "train").statistics
    colour = NoiseColour(0.25, statistics["shell_amplitude"], 16)
    schedule = NoiseSchedule.cosine(20)
    batch = torch.randn(6, 3, 1, 16, 16, generator=generator("batch"))
    recorded = {}

    def network(stack, level_input):
        stream = generator("objective")
        levels = torch.randint(21, (6, 2), generator=stream)
        noise = torch.randn(6, 2, 1, 16, 16, generator=stream)
        recorded["levels"], recorded["stack"], recorded["noise"] = levels, stack, noise
        return noise, 50.0 * torch.nn.functional.one_hot(levels, 21).float()

    parts = DenoiserObjective(schedule, colour, anchored=True, level_weight=0.1)(network, batch, generator("objective"))
    assert parts["noise"] == 0 and parts["level"] < 1e-6
    z = colour.whiten(batch)
    assert torch.equal(recorded["stack"][:, 0], z[:, 0])
    expected = schedule.add_noise(z[:, 1], recorded["levels"][:, 0], recorded["noise"][:, 0])
    assert torch.allclose(recorded["stack"][:, 1], expected)


@pytest.mark.parametrize("prediction", ["noise", "velocity", "clean"])
@pytest.mark.parametrize("kind", ["acdm", "unconditional"])
def test_inputs_of_the_networks_of_other_methods(tiny, kind, prediction):
    statistics = load_dataset(tiny.manifest, "train").statistics
    colour, schedule = NoiseColour(0.25, statistics["shell_amplitude"], 16), NoiseSchedule.cosine(20)
    frames = 1 if kind == "unconditional" else 2
    batch, recorded = torch.randn(6, frames, 1, 16, 16, generator=generator("batch")), {}
    stream = generator("objective")
    level = torch.randint(21, (6, 1), generator=stream).expand(-1, frames)
    noise = torch.randn(6, frames, 1, 16, 16, generator=stream)
    z = colour.whiten(batch)

    def network(stack, level_input):
        recorded["stack"], recorded["level_input"] = stack, level_input
        flat = schedule.target(prediction, z.flatten(0, 1), noise.flatten(0, 1), level.flatten())
        return flat.view_as(z), None

    objective = DenoiserObjective(schedule, colour, False, kind=kind, prediction=Prediction(prediction, schedule))
    parts = objective(network, batch, generator("objective"))
    assert parts.keys() == {"loss", "noise"} and parts["loss"] < 1e-12
    expected = schedule.add_noise(z.flatten(0, 1), level.flatten(), noise.flatten(0, 1)).view_as(z)
    assert torch.allclose(recorded["stack"], expected)
    assert torch.equal(recorded["level_input"], level) if kind == "acdm" else recorded["level_input"] is None


@pytest.mark.parametrize("resolution", [8, 16])
def test_shell_weights_keep_the_mean_and_fall_with_the_wavenumber(resolution):
    error = torch.randn(2, 1, resolution, resolution, generator=generator("error"), dtype=torch.float64)
    half = torch.fft.rfft2(error, norm="forward").abs().square()
    plain = (half * shell_weights(resolution, 0.0)).sum((-2, -1)).mean()
    assert float(plain) == pytest.approx(float(error.square().mean()), rel=1e-12)  # Parseval
    weight = shell_weights(resolution, 1.0)
    assert float(weight.sum()) == pytest.approx(resolution**2, rel=1e-12)
    assert float(weight[0, 1] / weight[0, 3]) == pytest.approx(3.0)
    assert float(weight[2, 0] / weight[0, 2]) == pytest.approx(0.5)  # that column counts both modes of a conjugate pair
    assert weight[0, 0] == weight[1, 0]  # the mean has the weight of shell 1


def test_weighted_errors_of_large_scales_count_more():
    statistics = {"shell_amplitude": [[1.0] * 12]}
    colour = NoiseColour(0.0, statistics["shell_amplitude"], 16)
    objective = DenoiserObjective(NoiseSchedule.cosine(4), colour, False, shell_weight=1.0)
    x = torch.arange(16) * 2 * torch.pi / 16
    large, small = (torch.cos(k * x).expand(1, 1, 16, 16) for k in (1, 6))
    assert float(objective.distance(large) / objective.distance(small)) == pytest.approx(6.0, rel=1e-5)


def test_a_share_of_the_conditions_is_drawn_nearly_clean():
    colour = NoiseColour(0.0, [[1.0] * 12], 16)
    with_share, without_share = (
        DenoiserObjective(NoiseSchedule.cosine(100), colour, False, low_condition_share=c) for c in (0.25, 0.0)
    )
    levels, plain = (
        with_share.draw_levels(4000, generator("levels")),
        without_share.draw_levels(4000, generator("levels")),
    )
    assert torch.equal(levels[1000:], plain[1000:]) and torch.equal(levels[:, 1], plain[:, 1])
    # S u^4 lies below level 6 with probability 0.06^(1/4).
    assert float((levels[:1000, 0] < 6).double().mean()) == pytest.approx(0.06**0.25, abs=0.05)
    with pytest.raises(ValueError, match="two frames with levels of their own"):
        DenoiserObjective(NoiseSchedule.cosine(4), colour, False, kind="acdm", low_condition_share=0.5)


def test_the_pointwise_loss_feeds_back_its_own_output():
    batch = torch.cumsum(torch.ones(2, 4, 1, 8, 8), 1)
    objective = PointwiseObjective(torch.full((1, 1, 1), 0.5), unroll=3)
    inputs = []

    def network(x, levels=None):
        inputs.append(x[0, 0, 0, 0, 0].item())
        return torch.full_like(x, 2.0), None  # a step of 2 * 0.5 = 1: exact

    assert objective(network, batch, generator("x"))["loss"] == 0
    assert inputs == [1.0, 2.0, 3.0]


def damaged(path, folder, change):
    tensors, note = read_tensors(path)
    change(tensors, note)
    copy = folder / "copy.safetensors"
    write_tensors(copy, tensors, note)
    return copy


def test_model_files_that_do_not_fit_are_refused_with_the_reason(tiny, tmp_path):
    path = tiny.models["surrogate"]
    with pytest.raises(UserError, match="objective 'pointwise' where 'denoiser'"):
        load_model(path, "denoiser")
    with pytest.raises(UserError, match=r"trained on other data.*--forcerun .* makes it anew") as caught:
        load_model(path, "pointwise", identity="0" * 64)
    assert not isinstance(caught.value, DamagedFile), "the file is whole"
    wider = damaged(path, tmp_path, lambda t, note: note["spec"]["network"].update(width=16))
    with pytest.raises(UserError, match=r"copy\.safetensors: a checkpoint of another shape"):
        load_model(wider, "pointwise")
    lacking = damaged(path, tmp_path, lambda t, note: t.pop("enter.weight"))
    with pytest.raises(UserError, match=r"enter\.weight is absent"):
        load_model(lacking, "pointwise")
    foreign = tmp_path / "foreign.safetensors"
    write_tensors(foreign, {"a": torch.zeros(1)}, {"format": "other"})
    with pytest.raises(UserError, match="not a model of this project"):
        load_model(foreign, "pointwise")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"cut\.safetensors: truncated"):
        load_model(cut, "pointwise")
    with pytest.raises(UserError, match=r"none\.safetensors: missing"):
        load_model(tmp_path / "none.safetensors", "pointwise")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda note: note.pop("spec"), "lacks spec"),
        (lambda note: note.pop("data"), "lacks data"),
        (lambda note: note.pop("statistics"), "lacks statistics"),
        (lambda note: note["spec"].pop("network"), r"lacks spec\.network"),
        (lambda note: note["spec"]["network"].update(blocks=10**6), "000 blocks in"),
        (lambda note: note["spec"]["network"].update(multipliers=[1] * 10**5), "100000 blocks in"),
        (lambda note: note["spec"]["network"].update(width=10**6), "a checkpoint of another shape"),
        (lambda note: note["spec"]["network"].update(width="wide"), "describes no network"),
        (lambda note: note["spec"]["network"].update(colour=3), "describes no network"),
    ],
)
def test_a_model_whose_note_is_not_whole_is_refused_before_anything_is_allocated(tiny, tmp_path, change, words):
    copy = damaged(tiny.models["surrogate"], tmp_path, lambda _, note: change(note))
    with pytest.raises(DamagedFile, match=words):
        load_model(copy, "pointwise")


def test_a_model_may_get_the_position_of_the_forcing(tiny, tmp_path, specs, monkeypatch):
    for spec in (specs["pointwise"], specs["denoiser"]):
        spec["network"] = {**spec["network"], "landmarks": True}
        spec["training"] = {**spec["training"], "steps": 4, "warmup": 2}
    model = load_model(train(tmp_path, tiny.manifest, "with_landmarks", specs["denoiser"]), "denoiser")
    system = load_dataset(tiny.manifest, "train").system
    assert torch.equal(model.network.landmarks, system.landmarks(16)) and model.note["spec"]["network"]["landmarks"]
    assert pd.read_csv(tmp_path / "with_landmarks.csv")["step"].tolist() == [4], (
        "fewer steps than a row of the history has"
    )
    whole = load_model(tiny.models["denoiser"], "denoiser")
    assert whole.network.landmarks is None
    monkeypatch.setattr(type(system), "landmarks", System.landmarks)
    unmarked = load_model(train(tmp_path, tiny.manifest, "unmarked", specs["pointwise"]), "pointwise")
    assert unmarked.network.landmarks is None, "a system that has no landmarks shows none"


def test_the_note_of_a_model_names_its_origin(tiny):
    note = json.loads(tiny.models["denoiser"].with_suffix(".json").read_text())
    assert note["spec"] == SPECS["denoiser"] and note["provenance"]["seed"] == 3
    quantiles = torch.tensor(note["clean_probability"])
    assert quantiles.shape == (2, 101) and (quantiles.diff(dim=1) >= 0).all()


def test_weights_held_in_bfloat16_give_the_bits_of_autocast(tiny):
    model = load_model(tiny.models["denoiser"], "denoiser")
    network, context = model.running("bfloat16")
    frames = torch.randn(5, 3, 1, 16, 16, generator=generator("test", "held"))
    with torch.no_grad(), context:
        assert all(map(torch.equal, network(frames), model.network(frames)))
    assert network.leave.weight.dtype == torch.bfloat16 and model.network.leave.weight.dtype == torch.float32
    assert model.running("float32")[0] is model.network


@pytest.mark.skipif(not can_compile(torch.device("cpu")), reason="torch.compile finds no C++ compiler")
def test_a_compiled_network_learns_the_same_to_rounding(tiny, tmp_path, specs):
    spec = specs["denoiser"]
    spec["network"] |= {"width": 4, "multipliers": [1]}
    data, team = load_dataset(tiny.manifest, "train"), ProcessGroup(torch.device("cpu"))
    plain, fast = (Trainer("denoiser", spec, data, 3, team, "float32", compile) for compile in (False, True))
    for trainer in (plain, fast):
        for _ in range(3):
            trainer.train_step()
    assert fast.training_network is not fast.network
    assert fast.history.sums == pytest.approx(plain.history.sums, rel=1e-4)
    # A warm-up step of AdamW moves each weight by the learning rate for any size of the gradient, so rounding may change
    # the sign of the step where the gradient is small.
    for expected, parameter in zip(plain.network.parameters(), fast.network.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-3, atol=2e-4)
    save_checkpoint(tmp_path / "checkpoint.safetensors", fast, {})
    resumed = Trainer("denoiser", spec, data, 3, team, "float32", True)
    load_checkpoint(tmp_path / "checkpoint.safetensors", resumed, {})
    held, restored = fast.optimiser.state_dict()["state"], resumed.optimiser.state_dict()["state"]
    for index, parameter in enumerate(resumed.network.parameters()):
        assert torch.equal(restored[index]["exp_avg"], held[index]["exp_avg"])
        assert restored[index]["exp_avg"].stride() == parameter.stride() == held[index]["exp_avg"].stride()
