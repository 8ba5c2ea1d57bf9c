"""Rollouts: segments give the bits of one run, members are independent, and statistics follow their definitions."""

import copy
import functools

import numpy as np
import pytest
import torch
import xarray as xr

from sns_core.data import load_dataset, open_frames
from sns_core.data.emulation import Emulation
from sns_core.data.pairs import true_frames
from sns_core.data.segments import open_segments
from sns_core.device import bfloat16_is_fast
from sns_core.diffusion import Sampler
from sns_core.diffusion.schedule import per_member
from sns_core.errors import UserError
from sns_core.evaluation.denoiser_diagnosis import diagnose_denoiser, first_alarm, relative_energy
from sns_core.evaluation.lyapunov import step_map
from sns_core.files import read_tensors, write_tensors
from sns_core.methods import BlindLevels, EstimatedLevels, Hardware, ResampledAnchor, StepRecord, WalkBack, build_method
from sns_core.methods.program import OneStep
from sns_core.metrics import kinetic_energy_spectrum, temporal_correlation
from sns_core.metrics.distances import BINS, REACH
from sns_core.rollout import observers, rollout_segment, segment
from sns_core.rollout.ensemble import disturbed, rollout_ensemble
from sns_core.rollout.statistics import SERIES
from sns_core.shells import shell_index
from sns_core.streams import MemberStreams
from sns_core.systems import build_system

# The bound of the level keeps walks short: an untrained network finds every pair far out.
WALK = {"path": "left_then_down", "readout": {"kind": "argmax"}, "sampler": {}, "stride": 1}
BOUNDED = {**WALK, "max_level": 6}
STEADY = {"readout": {"kind": "calibrated", "refine_share": 0.5}, "sampler": {}, "stride": 1}
METHODS = {
    "solver": {"kind": "solver"},
    "pointwise": {"kind": "pointwise"},
    "published": {"kind": "refinement", **BOUNDED},
    "joint": {
        "kind": "refinement", **WALK, "path": "diagonal", "readout": {"kind": "calibrated", "refine_share": 0.7},
        "stride": 4, "shared_level": True, "max_level": 4,
    },
    "sampled": {"kind": "refinement", **BOUNDED, "path": "down_then_left", "readout": {"kind": "sample"}},
    "held condition": {"kind": "refinement", **BOUNDED, "path": "fixed_condition", "condition_level": 3},
    "in place": {
        "kind": "refinement", **WALK, "path": "diagonal", "readout": {"kind": "calibrated", "refine_share": 0.7},
        "stride": 4, "shared_level": True, "max_level": 4, "renoise": False,
    },
    "in place, several moves": {
        "kind": "refinement", **BOUNDED, "path": "diagonal", "readout": {"kind": "quantile", "quantile": 0.5},
        "stride": 3, "shared_level": True, "renoise": False,
    },
    "periodic": {"kind": "refinement", **WALK, "blind": {"level": 2, "every": 3, "random": False}},
    "random": {"kind": "refinement", **WALK, "blind": {"level": 2, "every": 3, "random": True}},
    "every third": {"kind": "refinement", **BOUNDED, "refine_every": 3},
    "heun": {"kind": "refinement", **BOUNDED, "path": "diagonal", "sampler": {"eta": 0.0, "order": 2}, "stride": 2},
    "calibrated": {"kind": "calibrated_refinement", "denoiser": "residual"},
    "crps": {"kind": "stochastic_surrogate", "surrogate": "crps"},
    "pushforward": {"kind": "pointwise", "surrogate": "pushforward"},
    "flow matching": {"kind": "flow_matching", "moves": 3},
    "distilled": {"kind": "distilled_flow_matching", "velocity": "distilled"},
    "distilled generation": {"kind": "distilled_generation", "denoiser": "distilled_generation"},
    "distilled refinement": {"kind": "distilled_refinement", "denoiser": "distilled_refinement"},
    "rolling window": {"kind": "rolling_window"},
    "pde refiner": {"kind": "pde_refiner"},
    "calibrated around crps": {"kind": "calibrated_refinement", "denoiser": "residual", "surrogate": "crps"},
    "generation": {"kind": "generation", **WALK, "stride": 5},
    "clean": {"kind": "generation", **WALK, "path": "clean", "stride": 5, "condition_level": 0},
    "generation of residuals": {"kind": "generation", **WALK, "stride": 5, "denoiser": "residual"},
    "resampled anchor": {"kind": "refinement", **BOUNDED, "anchor_frame": "resampled"},
    "thermalizer": {"kind": "thermalizer", **STEADY, "denoiser": "unconditional", "min_level": 2},
    "thermalizer of pairs": {"kind": "thermalizer", **STEADY},
    "acdm": {"kind": "acdm", "sampler": {}, "stride": 5, "denoiser": "acdm"},
    "acdm of pairs": {"kind": "acdm", "sampler": {}, "stride": 5, "start_from": "previous"},
}  # fmt: skip


# Role -> the tiny model that takes it, unless the method names another one.
ROLES = {
    "surrogate": "surrogate", "denoiser": "denoiser", "velocity": "flow_matching", "velocities": "rolling_window",
    "refiner": "pde_refiner",
}  # fmt: skip


def roll(tiny, folder, name, first, steps, members=(0, 1, 2), previous=None, method=None, **more):
    """Run one segment, and return its (netCDF, restart) paths."""
    tag = f"{name.replace(' ', '_')}_{first}_{steps}_{len(members)}"
    output, restart = folder / f"{tag}.nc", folder / f"{tag}.safetensors"
    method = dict(method or METHODS[name])
    models = {**tiny.models, **{role: tiny.models[method.pop(role, default)] for role, default in ROLES.items()}}
    settings = {"seed": 5, "frame_stride": 2, "block": 5, "lags": 4, "device": "cpu", "precision": "float32"}
    rollout_segment(
        name=name, method=method, models=models, manifest=tiny.manifest, initial=[tiny.test],
        first_step=first, steps=steps, members=list(members), output=output, restart=restart, previous=previous,
        **{**settings, **more},
    )  # fmt: skip
    return output, restart


def read(path):
    with xr.open_dataset(path) as dataset:
        return dataset.load()


@pytest.mark.parametrize("name", METHODS)
def test_segments_give_the_bits_of_one_run(tiny, tmp_path, name):
    whole, end = roll(tiny, tmp_path, name, 0, 10)
    first, restart = roll(tiny, tmp_path, name, 0, 5)
    second, final = roll(tiny, tmp_path, name, 5, 5, previous=restart)
    unbroken, parts = read(whole), [read(first), read(second)]
    for variable in (*SERIES, "vorticity"):
        axis = next(a for a in ("time", "step", "block") if a in unbroken[variable].dims)
        joined = np.concatenate([p[variable].values for p in parts], unbroken[variable].dims.index(axis))
        np.testing.assert_array_equal(joined, unbroken[variable].values, err_msg=variable)
    np.testing.assert_array_equal(np.concatenate([p["time"].values for p in parts]), unbroken["time"].values)
    tensors, others = read_tensors(end)[0], read_tensors(final)[0]
    assert all(torch.equal(tensors[key].nan_to_num(7.0), others[key].nan_to_num(7.0)) for key in tensors)


def test_members_come_in_their_order_whichever_group_is_read_first(tiny, tmp_path):
    """The folder of members 12-15 comes before that of 4-7 in the order of texts."""
    (tmp_path / "last").mkdir()
    groups = [
        roll(tiny, tmp_path / "last", "pointwise", 0, 5, members=(2,)),
        roll(tiny, tmp_path, "pointwise", 0, 5, (0, 1)),
    ]
    frames, statistics = open_segments([path for path, _ in groups])
    assert frames["member"].values.tolist() == statistics["member"].values.tolist() == [0, 1, 2]
    with xr.open_dataset(groups[0][0]) as alone:
        np.testing.assert_array_equal(frames["vorticity"].sel(member=2), alone["vorticity"][0])


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["solver", "pointwise", "in place", "calibrated", "generation"])
def test_segments_on_a_gpu_give_what_one_run_gives(tiny, tmp_path, name):
    whole, _ = roll(tiny, tmp_path, name, 0, 15, device="cuda")
    first, restart = roll(tiny, tmp_path, name, 0, 5, device="cuda")
    second, _ = roll(tiny, tmp_path, name, 5, 10, previous=restart, device="cuda")
    joined = np.concatenate([read(p)["vorticity"].values for p in (first, second)], 1)
    # cuDNN may choose another kernel in another process: equal to rounding over fifteen steps, mostly to the bit.
    np.testing.assert_allclose(joined, read(whole)["vorticity"].values, atol=1e-3 * abs(joined).max())


@pytest.mark.parametrize("name", ["published", "joint", "in place, several moves", "calibrated", "generation"])
def test_a_member_does_not_depend_on_its_company(tiny, tmp_path, name):
    together = read(roll(tiny, tmp_path, name, 0, 5)[0])
    alone = read(roll(tiny, tmp_path, name, 0, 5, members=(1,))[0])
    # Convolutions sum in another order for another batch: equal to rounding over five steps, not to the bit.
    scale = float(abs(together["vorticity"]).max())
    difference = abs(together["vorticity"].sel(member=1) - alone["vorticity"].sel(member=1)).max()
    assert float(difference) < 2e-4 * scale
    np.testing.assert_array_equal(together["levels"].sel(member=1), alone["levels"].sel(member=1))


@pytest.mark.skipif(not bfloat16_is_fast(torch.device("cpu")), reason="this processor emulates bfloat16")
@pytest.mark.parametrize("name", ["published", "in place", "calibrated", "generation", "thermalizer", "acdm"])
def test_members_split_over_jobs_give_the_same_bits_in_bfloat16(tiny, tmp_path, name):
    together = read(roll(tiny, tmp_path, name, 0, 10, precision="bfloat16")[0])
    for group in ((0,), (1, 2)):
        apart = read(roll(tiny, tmp_path, name, 0, 10, members=group, precision="bfloat16")[0])
        for variable in ("vorticity", "levels", "calls", "kinetic_energy", "lost_step"):
            np.testing.assert_array_equal(apart[variable], together[variable].sel(member=list(group)), err_msg=variable)


def test_statistics_are_those_of_the_frames(tiny, tmp_path):
    data = read(roll(tiny, tmp_path, "pointwise", 0, 10, frame_stride=1)[0])
    frames = torch.from_numpy(data["vorticity"].values)
    system = build_system("KolmogorovFlow", {"resolution": 32})
    u, v = system.frame_velocity(frames[:, 1:].flatten(0, 1))
    energy = (0.5 * (u**2 + v**2)).mean((1, 2, 3)).reshape(3, 10)
    np.testing.assert_allclose(data["kinetic_energy"][:, :, 0], energy, rtol=1e-5)
    spectrum = kinetic_energy_spectrum(u, v)[1].reshape(3, 2, 5, -1).mean(2)
    np.testing.assert_allclose(data["energy_spectrum"][:, :, 0], spectrum, rtol=1e-4, atol=1e-10)
    change = (frames[:, 1:] - frames[:, :-1]).square().mean((2, 3, 4)) / frames[:, :-1].square().mean((2, 3, 4))
    np.testing.assert_allclose(data["relative_change"], change.sqrt(), rtol=1e-4)
    # The streaming C(tau) of the last block looks back over frames that belong to the block before.
    unit = (frames - frames.mean((-2, -1), keepdim=True)).flatten(2)
    unit = unit / unit.norm(dim=-1, keepdim=True)
    expected = torch.stack([(unit[:, 6:11] * unit[:, 6 - lag : 11 - lag]).sum(-1).mean(1) for lag in range(5)], -1)
    np.testing.assert_allclose(data["correlation"][:, 1], expected, atol=1e-5)
    assert temporal_correlation(frames, 4)[0] == pytest.approx(1.0, abs=1e-5)
    assert data["wavenumber"].size == shell_index(16).max() + 1
    np.testing.assert_allclose(
        data["zonal_profile"][:, :, 0], u.mean((1, 3)).reshape(3, 2, 5, 16).mean(2), rtol=1e-3, atol=1e-5
    )
    # Compute the gradient from differences of neighbours, in the units that the file holds.
    scale = data["gradient_scale"].item() * 2 * np.pi / 16
    steps = torch.stack([frames.roll(-1, axis) - frames for axis in (-1, -2)], 2)[:, 1:] / scale
    counts = np.stack(
        [np.histogram(steps[:, part].numpy(), BINS, (-REACH, REACH))[0] for part in (slice(5), slice(5, 10))]
    )
    assert data["gradient_counts"].sum() == counts.sum() == steps.numel()
    assert abs(data["gradient_counts"].sum(("member", "layer")) - counts).sum() < 1e-3 * counts.sum()


def test_the_time_of_the_steps_is_an_attribute_of_the_results(tiny, tmp_path):
    with xr.open_dataset(roll(tiny, tmp_path, "pointwise", 0, 10)[0]) as data:
        assert len(data.attrs["seconds_of_blocks"]) == 2 and (data.attrs["seconds_of_blocks"] > 0).all()
        assert not [name for name in data.variables if "second" in name]


def test_the_frames_written_do_not_depend_on_how_many_are_held(tiny, tmp_path, monkeypatch):
    default = read(roll(tiny, tmp_path, "pointwise", 0, 10)[0])
    monkeypatch.setattr(observers, "FRAME_BATCH", 2)
    in_pairs = read(roll(tiny, tmp_path, "pointwise", 0, 10)[0])
    xr.testing.assert_equal(default["vorticity"], in_pairs["vorticity"])


def build(tiny, name, models=None, **changes):
    """Build a method of METHODS from the tiny models, with changed options."""
    options = {**copy.deepcopy(METHODS[name]), **changes}
    models = models or {**tiny.models, "denoiser": tiny.models[options.pop("denoiser", "denoiser")]}
    return build_method(options, models, Emulation.read(tiny.manifest), hardware=Hardware(precision="float32"))


@pytest.fixture
def method(tiny):
    return functools.partial(build, tiny)


@pytest.fixture
def states(tiny):
    return torch.from_numpy(open_frames(tiny.test)["final_state"].values)


class ChosenLevels(EstimatedLevels):
    """A rule with levels that the test chooses. The rest is the rule of the method."""

    def of_pair(self, logits, streams, step):
        return torch.tensor(self.chosen)


def with_levels(refinement, levels):
    """Return the method with the same rule of starts, for pairs at `levels` (B, 2)."""
    rule = ChosenLevels(
        **{name: getattr(refinement.level_rule, name) for name in ("shared", "max_level", "condition_level")}
    )
    object.__setattr__(rule, "chosen", levels)
    refinement.level_rule = rule
    return refinement


def test_members_read_as_clean_keep_the_surrogates_bits(method, states):
    refinement = with_levels(method("published"), [[5, 0], [3, 4], [0, 0]])
    carry = refinement.start(states)
    after, record = refinement.step(carry, MemberStreams("t", members=range(3)).at(1))
    surrogate = refinement.surrogate(carry["frame"])
    assert torch.equal(after["frame"][[0, 2]], surrogate[[0, 2]]), "path A does not touch x_t where s1 = 0"
    assert not torch.allclose(after["frame"][1], surrogate[1])
    assert record.calls.tolist() == [0, 7, 0] and record.levels.tolist() == [[5, 0], [3, 4], [0, 0]]


def test_between_looks_the_surrogate_goes_on_by_itself(method, states):
    refinement = with_levels(method("every third"), [[3, 4]] * 3)
    carry, streams = refinement.start(states), MemberStreams("t", members=range(3))
    for step in range(1, 7):
        alone = refinement.frames.admissible(refinement.surrogate(carry["frame"]))
        carry, record = refinement.step(carry, streams.at(step))
        looked = step % 3 == 0
        assert torch.equal(carry["frame"], alone) is not looked
        assert record.calls.tolist() == [7 * looked] * 3 and bool((record.levels >= 0).all()) is looked


def test_single_steps_of_a_method_that_looks_now_and_then_keep_the_number_of_the_step(method, states):
    refinement, looks = with_levels(method("every third"), [[3, 4]] * 2), []
    refinement.refine = lambda old, new, anchor, streams, step: (looks.append(int(step[0])), (new, None))[1]
    advance, frames = step_map(refinement, states[:1], 0, "every third"), refinement.frames.observe(states[:2])
    for _ in range(7):
        frames = advance(frames)
    assert looks == [3, 6], "Lyapunov exponents are those of the rollout, refined at the same steps"
    for name in ("every third", "periodic"):
        with pytest.raises(UserError, match="carries the number of the step"):
            OneStep(method(name), torch.ones(1, 1, 1), torch.zeros(1, 1, 1), states)


def test_a_step_whose_members_draw_apart_is_no_program(method, states):
    refinement = with_levels(method("published"), [[3, 4]] * 3)
    with pytest.raises(TypeError, match="it draws numbers for single members"):
        OneStep(refinement, torch.ones(1, 1, 1), torch.zeros(1, 1, 1), states)


PROGRAMS = {"pointwise": "surrogate", "flow matching": "velocity", "distilled": "velocity", "pde refiner": "refiner"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_holds_the_weights_of_its_network(tiny, name):
    """torch.export refuses weights that do not belong to the module."""
    role = PROGRAMS[name]
    model = METHODS[name].get(role, ROLES[role])
    method = build(tiny, name, {role: tiny.models[model]})
    step = OneStep(method, torch.ones(1, 1, 1), torch.zeros(1, 1, 1), torch.zeros(2, 1, 16, 16))
    assert {f"networks.0.{key}" for key in read_tensors(tiny.models[model])[0]} == step.state_dict().keys()


@pytest.mark.parametrize("held", ["in a function", "as an attribute"])
def test_a_program_finds_the_network_of_a_users_own_method(tiny, held):
    method = build(tiny, "pointwise", {"surrogate": tiny.models["surrogate"]})
    network = getattr(method.predict, "__self__", method.predict).network
    if held == "in a function":
        method.predict = lambda frames: network(frames[:, None])[0][:, 0]
    else:
        method.network = network
        method.predict = lambda frames: method.network(frames[:, None])[0][:, 0]
    unit, frames = torch.ones(1, 1, 1), torch.randn(3, 1, 16, 16)
    step = OneStep(method, unit, 0 * unit, frames)
    members = {0: torch.export.Dim("members")}
    arguments = (frames, frames.clone(), torch.zeros(3, step.noise_numbers))
    with torch.no_grad():
        program = torch.export.export(step, arguments, dynamic_shapes=(members,) * 3, strict=True)
        torch.testing.assert_close(program.module()(*arguments), step(*arguments))
    assert step.state_dict().keys() == {f"networks.0.{key}" for key in network.state_dict()}


def test_a_resampled_anchor_is_a_true_frame_and_another_at_each_step(tiny):
    anchors, streams = ResampledAnchor(true_frames(tiny.manifest, 5)), MemberStreams("t", members=range(3))
    first, second = (anchors.of_step({}, streams.at(step)) for step in (1, 2))
    everything = load_dataset(tiny.manifest, "train")
    truth = torch.cat([torch.from_numpy(shard.copy()).flatten(0, 1) for shard in everything.shards])
    truth = truth / everything.statistics["std"][0]
    for frame in (*first, *second):
        assert ((frame - truth).abs().amax((1, 2, 3)) < 1e-6).any()
    assert not torch.equal(first, second) and len({float(frame.sum()) for frame in first}) == 3
    assert torch.equal(first, anchors.of_step({}, streams.at(1)))


def test_a_diagnosis_shows_the_denoiser_the_anchors_of_the_method(tiny, tmp_path):
    """Resampled anchors change what the denoiser says, on pairs and along the rollout; the pairs are the same."""
    segment, _ = roll(tiny, tmp_path, "pointwise", 0, 10)
    models = {role: tiny.models[role] for role in ("surrogate", "denoiser")}
    for name in ("initial", "resampled"):
        diagnose_denoiser(
            name=name, method={**METHODS["published"], "anchor_frame": name}, models=models, manifest=tiny.manifest,
            segments=[segment], seed=3, pairs=4, levels=3, output=tmp_path / f"{name}.nc", device="cpu", precision="float32",
        )  # fmt: skip
    initial, resampled = (read(tmp_path / f"{name}.nc") for name in ("initial", "resampled"))
    np.testing.assert_array_equal(initial["example_truth"], resampled["example_truth"])
    for variable in ("condition_error", "one_step_error", "rollout_amplitude"):
        assert not np.allclose(initial[variable], resampled[variable]), variable


def test_a_gain_scales_the_change_of_each_wavenumber(method, states):
    plain, stronger = method("in place"), method("in place", gain=[0.5, 1.0])
    frames = []
    for refinement in (plain, stronger):
        with_levels(refinement, [[5, 4], [3, 4], [0, 0]])
        carry = refinement.start(states)
        frames.append(refinement.step(carry, MemberStreams("t", members=range(3)).at(1))[0]["frame"])
    surrogate = plain.surrogate(carry["frame"])
    change, scaled = (torch.fft.rfft2(frame - surrogate) for frame in frames)
    shells = torch.from_numpy(shell_index(16))
    for shell in (1, 2, 5):
        ratio = (scaled / change)[:2, :, shells == shell]
        assert torch.allclose(ratio, torch.full_like(ratio, 0.5 + 1 / shell), rtol=1e-2)
    assert torch.equal(frames[1][2], surrogate[2])


def test_joint_levels_bound_and_stride_give_one_call(method, states):
    refinement = with_levels(method("joint"), [[9, 0], [0, 2], [0, 0]])
    carry = refinement.start(states)
    _, record = refinement.step(carry, MemberStreams("t", members=range(3)).at(1))
    assert record.calls.tolist() == [1, 1, 0]
    assert record.levels.tolist() == [[9, 0], [0, 2], [0, 0]], (
        "the record holds the levels of the heads, not the bounded levels"
    )


def test_a_member_turned_nan_is_recorded_and_the_others_go_on(tiny, tmp_path, monkeypatch):
    good = read(roll(tiny, tmp_path, "published", 0, 10)[0])

    class Breaks:
        def __init__(self, inner):
            self.inner, self.count = inner, 0

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def step(self, carry, streams):
            carry, record = self.inner.step(carry, streams)
            self.count += 1
            if self.count == 4:
                carry["frame"] = carry["frame"].clone()
                carry["frame"][1] = float("nan")
            assert isinstance(record, StepRecord)
            return carry, record

    monkeypatch.setattr(segment, "build_method", lambda *arguments, **parts: Breaks(build_method(*arguments, **parts)))
    bad = read(roll(tiny, tmp_path, "published", 0, 10)[0])
    assert bad["lost_step"].values.tolist() == [-1, 4, -1]
    others = [0, 2]
    np.testing.assert_array_equal(bad["vorticity"][others], good["vorticity"][others])
    assert bad["calls"].sel(member=1).values[4:].sum() == 0, "a lost member costs no walk"


def test_generation_starts_from_the_noisiest_level(method, states):
    generation = method("generation")
    _, record = generation.step(generation.start(states), MemberStreams("t", members=range(3)).at(1))
    assert record.levels[:, 1].tolist() == [20, 20, 20] and (record.calls >= 4).all()


def test_mistakes_are_one_line(tiny, tmp_path):
    with pytest.raises(UserError, match="needs the restart file"):
        roll(tiny, tmp_path, "pointwise", 5, 5)
    with pytest.raises(UserError, match="blocks of 5"):
        roll(tiny, tmp_path, "pointwise", 0, 7)
    with pytest.raises(UserError, match="unknown kind of method 'pointwize'"):
        roll(tiny, tmp_path, "pointwise", 0, 5, method={"kind": "pointwize"})
    _, restart = roll(tiny, tmp_path, "pointwise", 0, 5)
    with pytest.raises(UserError, match="not the restart file of this rollout at step 10"):
        roll(tiny, tmp_path, "pointwise", 10, 5, previous=restart)
    with pytest.raises(UserError, match="not the restart file"):
        roll(tiny, tmp_path, "pointwise", 5, 5, previous=restart, seed=6)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(restart.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cut\.safetensors: truncated"):
        roll(tiny, tmp_path, "pointwise", 5, 5, previous=cut)
    foreign = tmp_path / "foreign.safetensors"
    write_tensors(foreign, {"a": torch.zeros(1)}, {})
    with pytest.raises(UserError, match="not the restart file"):
        roll(tiny, tmp_path, "pointwise", 5, 5, previous=foreign)


def test_a_missing_model_is_named(tiny):
    only = {"surrogate": tiny.models["surrogate"]}
    with pytest.raises(UserError, match="'refinement' needs a denoiser"):
        build(tiny, "published", only)


# --- rollouts made elsewhere ---


@pytest.fixture
def external(tiny, tmp_path):
    """Every step of a surrogate's rollout in the format of another program: (external file, rollout file)."""
    rollout = roll(tiny, tmp_path, "pointwise", 0, 10, frame_stride=1)[0]
    field = read(rollout)["vorticity"].isel(layer=0, drop=True).astype("f8")

    def written(change=lambda field: field, name="vorticity"):
        path = tmp_path / "external.nc"
        change(field).rename(name).transpose("time", "member", ...).to_netcdf(path)
        return path, rollout

    return written


def score_external(tiny, folder, path, first=0, steps=10, **more):
    return roll(tiny, folder, "mine", first, steps, method={"kind": "external", "file": str(path)}, **more)


@pytest.mark.parametrize("first", [0, 1], ids=["with the initial frame", "without"])
def test_an_external_rollout_is_scored_like_a_rollout_of_the_workflow(tiny, tmp_path, external, first):
    path, rollout = external(lambda field: field.isel(time=slice(first, None)))
    first_part, restart = score_external(tiny, tmp_path, path, 0, 5)
    second_part, _ = score_external(tiny, tmp_path, path, 5, 5, previous=restart)
    expected, parts = read(rollout), [read(first_part), read(second_part)]
    for name in (
        "kinetic_energy",
        "rate_of_change",
        "energy_spectrum",
        "correlation",
        "gradient_counts",
        "zonal_profile",
    ):
        axis = next(a for a in ("step", "block") if a in expected[name].dims)
        joined = np.concatenate([part[name].values for part in parts], expected[name].dims.index(axis))
        np.testing.assert_allclose(
            joined, expected[name].values, rtol=2e-5, atol=1e-6 * abs(expected[name]).max().item()
        )
    assert np.isnan(parts[0].attrs["seconds_of_blocks"]), "an external rollout has no measured time"
    assert int(parts[1]["calls"].sum()) == 0


def test_members_of_an_external_rollout_are_known_by_their_number(tiny, tmp_path, external):
    path, rollout = external(lambda field: field.sel(member=[2, 0]))
    scored = read(score_external(tiny, tmp_path, path, members=(0, 2))[0])
    np.testing.assert_allclose(
        scored["vorticity"].values, read(rollout)["vorticity"].sel(member=[0, 2], time=scored["time"]), rtol=1e-5
    )
    with pytest.raises(UserError, match=r"external\.nc: holds no member 1, only 0, 2"):
        score_external(tiny, tmp_path, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.isel(y=slice(None, None, -1)),
        lambda f: f.assign_coords(x=f["x"] - np.pi).roll(x=8, roll_coords=False),
        lambda f: f.isel(time=[0, *range(11)]),
        lambda f: f.isel(time=[3, *range(3), *range(4, 11)]),
        lambda f: f.rename(y="latitude", x="lon").transpose("lon", "latitude", "time", "member"),
        lambda f: (100 * f).assign_attrs(units="%"),
    ],
    ids=["y down", "x from -pi", "a step twice", "steps out of order", "other names", "percent"],
)  # fmt: skip
def test_an_external_rollout_in_other_coordinates_is_the_same_rollout(tiny, tmp_path, external, change):
    path, rollout = external(change)
    scored, expected = read(score_external(tiny, tmp_path, path, frame_stride=1)[0]), read(rollout)
    np.testing.assert_allclose(scored["vorticity"].values, expected["vorticity"].sel(time=scored["time"]), atol=2e-5)


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (lambda f: f, "omega", "holds no 'vorticity', only 'omega'"),
        (lambda f: f.isel(time=slice(None, 8)), "vorticity", "ends with step 7, step 8 is asked for; set the method's steps"),
        (lambda f: f.isel(time=[]), "vorticity", "'vorticity' has no values, its dimension 'time' has the length 0"),
        (lambda f: f.isel(time=slice(0, None, 2)), "vorticity", "multiples of the emulator's step 0.1, .* not 0, 0.2, 0.4"),
        (lambda f: f.isel(x=slice(8)), "vorticity", r"frames \(layer, y, x\) of \(1, 16, 8\) where"),
        (lambda f: f.rename(x="q"), "vorticity", "the dimension 'q', which is neither time, y, x, member nor layer"),
        (lambda f: f.drop_vars("time"), "vorticity", "no coordinate 'time'"),
        (lambda f: f.roll(member=1, roll_coords=False), "vorticity", "first frame of member 0 .* nearer to the state of member 2"),
        (lambda f: f.roll(member=1, roll_coords=False).isel(time=slice(1, None)), "vorticity", "nearer to the state of member 2"),
        (lambda f: f.assign_coords(time=np.arange(11).astype("timedelta64[ms]")), "vorticity", "time is in 'milliseconds', the"),
        (lambda f: f + 3.0, "vorticity", r"first frame of member 0 is [\d.]+ standard deviations from the state"),
        (lambda f: f.assign_coords(x=f["x"] + 0.1), "vorticity", "points of 'x' begin at 0.1, between 0, 0.392699"),
        (lambda f: f.assign_coords(x=f["x"] * 57.3), "vorticity", "points of 'x' are 22.5"),
        (lambda f: f.assign_attrs(units="m"), "vorticity", "'vorticity' is in 'm', the system's unit is '1'"),
        (lambda f: f.assign_coords(time=f["time"].where(f["time"] < 0.5)), "vorticity", "'time' holds 0.0, 0.1.*finite numbers"),
        (lambda f: f.assign_coords(member=[1, 1, 2]), "vorticity", "holds the member 1 twice"),
    ],
)  # fmt: skip
def test_an_external_rollout_that_does_not_fit_is_one_line(tiny, tmp_path, external, change, name, words):
    path, _ = external(change, name)
    with pytest.raises(UserError, match=words):
        score_external(tiny, tmp_path, path)
    with pytest.raises(UserError, match=r"nowhere\.nc: missing"):
        score_external(tiny, tmp_path, tmp_path / "nowhere.nc")


# --- ensembles ---


def ensembles(tiny, folder, name, **more):
    method = dict(METHODS[name])
    models = {**tiny.models, "denoiser": tiny.models[method.pop("denoiser", "denoiser")]}
    output = folder / "ensemble.nc"
    settings = {
        "starts": 2,
        "members": 3,
        "leads": [3, 1],
        "disturbance": 0.0,
        "seed": 5,
        "device": "cpu",
        "precision": "float32",
    }
    rollout_ensemble(
        name=name,
        method=method,
        models=models,
        manifest=tiny.manifest,
        initial=[tiny.test],
        output=output,
        **{**settings, **more},
    )
    return read(output)


def test_ensembles_start_at_one_state_and_part_by_their_own_noise(tiny, tmp_path):
    alone, noisy = ensembles(tiny, tmp_path, "pointwise"), ensembles(tiny, tmp_path, "generation")
    assert alone["forecast"].dims == ("start", "member", "lead", "layer", "y", "x") and "truth" not in alone
    assert alone["lead"].values.tolist() == [1, 3]
    spread = [d["forecast"].std("member").max(("layer", "y", "x")) for d in (alone, noisy)]
    scale = float(alone["forecast"].std())
    assert float(spread[0].max()) < 1e-4 * scale < 1e-2 * scale < float(spread[1].min())
    # The forecast from the end of the test split is the rollout from there.
    rollout = read(roll(tiny, tmp_path, "pointwise", 0, 5, frame_stride=1)[0])["vorticity"]
    ratio = rollout.isel(member=slice(2), time=[1, 3]).values / alone["forecast"].isel(member=0).values
    assert ratio == pytest.approx(np.median(ratio), rel=1e-2)


def test_the_truth_is_one_more_member_of_the_solver_s_ensemble(tiny, tmp_path):
    ensemble = ensembles(tiny, tmp_path, "solver", disturbance=0.01)
    apart = (ensemble["forecast"] - ensemble["truth"]).isel(lead=0).std(("layer", "y", "x"))
    scale = float(ensemble["truth"].std())
    assert float(apart.min()) > 1e-3 * scale and float(apart.max()) < 0.1 * scale
    assert float(abs(ensembles(tiny, tmp_path, "solver")["forecast"] - ensemble["truth"]).max()) > 0


def test_disturbances_are_a_share_of_the_difference_of_two_states(states):
    around = disturbed(states, 1, 4, 0.02, seed=7)
    pairs = torch.stack([(a - b) for a in states for b in states])
    for state in around:
        difference = (state - states[1]) * 2**0.5 / 0.02
        assert (pairs - difference).abs().amax((1, 2, 3)).min() < 1e-2 * states.abs().max()
    assert torch.equal(around[:2], disturbed(states, 1, 2, 0.02, seed=7))
    assert not torch.equal(around, disturbed(states, 1, 4, 0.02, seed=8))


# --- the strategies: the inputs that each gives to the denoiser ---


class Watched:
    """A method of the tiny models, with a record of every pair of frames and levels that its denoiser gets."""

    def __init__(self, tiny, name, **changes):
        self.method = build(tiny, name, **changes)
        self.states = torch.from_numpy(open_frames(tiny.test, "final_state")["final_state"].values)
        self.queries, denoiser = [], self.method.denoiser

        class Spy(type(denoiser)):
            queries = self.queries

            def __call__(self, x_prev, x_next, s_prev, s_next, anchor=None):
                self.queries.append((x_prev.clone(), x_next.clone(), s_prev.tolist(), s_next.tolist()))
                return super().__call__(x_prev, x_next, s_prev, s_next, anchor)

        denoiser.__class__ = Spy

    def run(self, steps=1):
        carry, records = self.method.start(self.states), []
        streams = MemberStreams(0, "watched", members=range(len(self.states)))
        for step in range(steps):
            carry, record = self.method.step(carry, streams.at(step))
            records.append(record)
        return carry, records

    def refine(self, levels, previous=None):
        """Refine a pair at `levels` (B, 2). Return candidate, refined frame and record."""
        refinement, carry = with_levels(self.method, levels), self.method.start(self.states)
        candidate = refinement.surrogate(carry["frame"])
        previous = carry["frame"] if previous is None else previous
        streams = MemberStreams(0, "watched", members=range(3)).at(0)
        return candidate, *refinement.refine(previous, candidate, carry["anchor"], streams)


def test_clean_conditioning_shows_the_previous_frame_as_it_is(tiny):
    watched = Watched(tiny, "clean")
    shown = watched.method.whiten(watched.method.start(watched.states)["frame"])
    _, (record,) = watched.run()
    assert len(watched.queries) == 4 and record.levels.tolist() == [[0, 20]] * 3
    assert all(torch.equal(x_prev, shown) and s_prev == [0] * 3 for x_prev, _, s_prev, _ in watched.queries)


@pytest.mark.parametrize("name", ["acdm", "acdm of pairs"])
def test_acdm_shows_both_frames_at_one_level_with_fresh_noise(tiny, name):
    watched = Watched(tiny, name)
    watched.run()
    levels = [s_prev for _, _, s_prev, _ in watched.queries]
    assert levels == [s_next for *_, s_next in watched.queries] == [[s] * 3 for s in (20, 15, 10, 5)]
    noise = [x_prev - x_next for x_prev, x_next, *_ in watched.queries]
    assert all(float(a.std()) > 0.1 for a in noise)
    first, second = (x_prev for x_prev, *_ in watched.queries[:2])
    assert not torch.allclose(first, second, atol=0.05)


def test_acdm_may_begin_at_the_noised_previous_frame(tiny):
    watched = Watched(tiny, "acdm of pairs", stride=1)
    method, carry = watched.method, watched.method.start(watched.states)
    method.schedule = type(method.schedule)(torch.tensor([1.0, 0.9], dtype=torch.float64))  # one level, little noise
    method.step(carry, MemberStreams(0, "watched", members=range(3)).at(0))
    z = method.whiten(carry["frame"])
    assert float((watched.queries[0][1] - z).std()) < 0.5 * float(z.std())


@pytest.mark.parametrize("name", ["thermalizer", "thermalizer of pairs"])
def test_the_thermalizer_does_not_use_the_previous_frame(tiny, name):
    watched = Watched(tiny, name, min_level=1)
    levels = [[0, 3], [0, 1], [0, 2]]
    _, frame, record = watched.refine(levels)
    _, without, _ = watched.refine(levels, previous=torch.zeros_like(frame))
    assert torch.equal(frame, without)
    assert record.calls.tolist() == [3, 1, 2]
    assert {s for _, _, s_prev, _ in watched.queries for s in s_prev} == {20}
    assert float(watched.queries[0][0].std()) == pytest.approx(1.0, abs=0.1)


def test_the_thermalizer_keeps_frames_below_its_threshold(tiny):
    candidate, frame, record = Watched(tiny, "thermalizer").refine([[0, 1], [0, 5], [0, 0]])  # min_level is 2
    assert torch.equal(frame[0], candidate[0]) and torch.equal(frame[2], candidate[2])
    assert not torch.allclose(frame[1], candidate[1], atol=1e-3)
    assert record.calls.tolist() == [0, 5, 0]


def test_the_periodic_control_refines_at_every_third_step_from_its_level(tiny):
    _, records = Watched(tiny, "periodic").run(7)
    assert [record.levels[0].tolist() for record in records] == [[0, 0], [0, 0], [2, 2]] * 2 + [[0, 0]]
    assert [record.calls.tolist() for record in records] == [[0] * 3, [0] * 3, [4] * 3] * 2 + [[0] * 3]


def test_the_random_control_refines_a_third_of_the_steps_drawn_per_member(tiny):
    streams, blind = MemberStreams(0, "watched", members=range(3)), BlindLevels(level=2, every=3, random=True)
    levels = torch.stack([blind.of_pair(None, streams.at(step), None)[:, 1] for step in range(600)])
    assert set(levels.unique().tolist()) == {0, 2}
    assert float((levels > 0).double().mean()) == pytest.approx(1 / 3, abs=0.05)
    assert not torch.equal(levels[:, 0], levels[:, 1])


def test_heun_calls_twice_per_move_except_where_a_move_ends_at_a_clean_frame(tiny):
    watched = Watched(tiny, "heun")
    _, _, record = watched.refine([[6, 6]] * 3)
    assert [s_next[0] for *_, s_next in watched.queries] == [6, 4, 4, 2, 2]
    assert record.calls.tolist() == [5] * 3


def test_in_place_a_pair_is_encoded_once_and_moved_as_the_walk_would_move_it(tiny):
    watched = Watched(tiny, "in place")
    candidate, frame, record = watched.refine([[4, 4], [0, 0], [2, 2]])
    assert not watched.queries and record.calls.tolist() == [1, 0, 1]
    assert torch.equal(frame[1], candidate[1])
    # One deterministic step to level 0: x - sigma / sqrt(a) times the noise that the network sees in the pair.
    method, carry = watched.method, watched.method.start(watched.states)
    z = [method.whiten(x) for x in (carry["frame"], candidate)]
    level = torch.tensor([4, 0, 2])
    _, noise = method.denoiser(*z, level, level, carry["anchor"])
    ratio = (method.schedule.sigma(level) / method.schedule.signal(level)).float().view(3, 1, 1, 1)
    expected = method.unwhiten(z[1] - ratio * noise)
    assert torch.allclose(frame, expected, atol=1e-4)


def test_in_place_the_first_move_uses_the_encoded_pair_for_any_moves_of_other_members(tiny):
    watched = Watched(tiny, "in place, several moves")
    method, carry = watched.method, watched.method.start(watched.states)
    method.walk = WalkBack(method.walk.path, method.walk.stride, Sampler(eta=0.0))
    level = torch.tensor([6, 3, 6])
    candidate, frame, record = watched.refine(level[:, None].expand(-1, 2).tolist())
    assert record.calls.tolist() == [2, 1, 2] and len(watched.queries) == 1, (
        "only the second move encodes the pair again"
    )
    z = [method.whiten(x) for x in (carry["frame"], candidate)]
    noise = method.denoiser(*z, level, level, carry["anchor"])
    placed = [per_member(method.schedule.signal(level), x) * x for x in z]
    ends = [
        method.walk.sampler.step(method.schedule, *both, level, level - 3, [None] * 3)
        for both in zip(placed, noise, strict=True)
    ]
    for frames, end in zip(watched.queries[0][:2], ends, strict=True):
        assert torch.allclose(frames, end[[0, 2]], atol=1e-4)
    assert torch.allclose(frame[1], method.unwhiten(ends[1])[1], atol=1e-4)


def test_an_alarm_is_the_first_step_outside_the_usual_range():
    usual, step = np.tile(np.r_[np.zeros(20), np.ones(20)], (2, 1)).T, np.arange(0, 200, 4)
    quiet, high, low, broken = np.full((4, 50), 0.5)
    high[30:] = 3.0  # the mean over ten frames exceeds 1 if three of the frames are high
    low[20:], broken[40] = -2.0, np.nan
    series = np.stack([quiet, high, low, broken], 1)
    assert first_alarm(series, usual, step).tolist() == [-1, 32 * 4, 22 * 4, 160]
    assert (first_alarm(usual, usual, step[:40]) == -1).all()


def test_a_rollout_of_few_frames_is_held_to_means_over_as_many():
    """Means over 4 frames wander further than means over 10, so a part of the usual series must not give an alarm."""
    usual = np.random.default_rng(0).normal(size=(200, 4))
    for first in range(0, 200, 4):
        assert (first_alarm(usual[first : first + 4], usual, np.arange(4)) == -1).all()
    assert (first_alarm(usual[:4] + 5, usual, np.arange(4)) == 3).all()


def test_the_alarm_of_the_energy_hears_a_layer_with_small_units():
    usual = np.random.default_rng(0).uniform(0.9, 1.1, (40, 2, 2))
    energy = usual + np.array([0, 1.0]) * (np.arange(40) >= 20)[:, None, None]
    energies = [relative_energy(e * units, usual * units) for units in ([1, 1], [1e6, 1]) for e in (energy, usual)]
    np.testing.assert_allclose(energies[2:], energies[:2])
    assert (first_alarm(*energies[2:], np.arange(40)) > 19).all()
