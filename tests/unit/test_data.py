"""Trajectory files, shards and pairs: their content, the resumption of killed calls, and the report of damage."""

import hashlib
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import torch
import xarray as xr

from sns_core.data import (
    Dataset,
    PairSampler,
    load_dataset,
    open_frames,
    open_members,
    shard_dataset,
    simulate_trajectories,
)
from sns_core.data import shards as shards_module
from sns_core.data import trajectories as trajectories_module
from sns_core.data.emulation import Emulation
from sns_core.data.frames import FrameWriter, steps_per_frame
from sns_core.data.shards import check_statistics
from sns_core.errors import DamagedFile, UserError
from sns_core.files import code_state, read_tensors, write_tensors
from sns_core.streams import generator
from sns_core.systems import InstabilityError, KolmogorovFlow, build_system

SYSTEM = {"name": "KolmogorovFlow", "parameters": {"resolution": 32, "viscosity": 1e-2, "dt": 0.01}}
EMULATOR = {"resolution": 16, "step": 0.03}
MEMBERS, FRAMES, CHUNK, SEED = 3, 8, 3, 11
SETTLING = 3  # emulator steps in the spin-up


def simulate(output, **changes):
    settings = {
        "system": SYSTEM, "emulator": EMULATOR, "split": output.stem, "members": MEMBERS, "frames": FRAMES,
        "spin_up": 0.1, "seed": SEED, "output": output, "device": "cpu", "chunk": CHUNK,
    }  # fmt: skip
    simulate_trajectories(**{**settings, **changes})
    return output


def values(path, name="vorticity"):
    with xr.open_dataset(path) as dataset:
        return dataset[name].values


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trajectories")
    return {split: simulate(folder / f"{split}.nc") for split in ("train", "validation")}


@pytest.fixture(scope="module")
def frames(originals):
    return {split: values(path) for split, path in originals.items()}


@pytest.fixture
def copies(originals, tmp_path):
    """Trajectory files that a test may damage. No other test holds them open."""
    return {split: Path(shutil.copy(path, tmp_path)) for split, path in originals.items()}


@pytest.fixture
def manifest(copies, tmp_path):
    output = tmp_path / "shards" / "manifest.json"
    shard(copies.values(), output)
    return output


def shard(paths, output, shard_members=2):
    with warnings.catch_warnings():
        # Members this few share one stored chunk of the final state. Real files have more chunks.
        warnings.filterwarnings("ignore", message="The specified chunks separate")
        shard_dataset(trajectories=list(paths), output=output, shard_members=shard_members)


def assert_names(caught, *paths):
    message = str(caught.value)
    assert "\n" not in message
    for path in paths:
        assert str(path) in message


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 0b100
    path.write_bytes(content)


# --- trajectories ---


def test_trajectories_have_the_dimensions_and_coordinates_of_the_configuration(originals):
    with xr.open_dataset(originals["train"]) as dataset:
        field = dataset["vorticity"]
        assert field.dims == ("member", "time", "layer", "y", "x")
        assert field.shape == (MEMBERS, FRAMES, 1, 16, 16)
        assert field.dtype == np.float32
        assert np.isfinite(field).all()
        assert dataset["member"].values.tolist() == [0, 1, 2]
        assert dataset["time"].values == pytest.approx(0.03 * np.arange(FRAMES), rel=1e-14)
        assert dataset["layer"].values.tolist() == ["flow"]
        for name in ("x", "y"):
            assert dataset[name].values == pytest.approx(np.arange(16) * 2 * np.pi / 16, rel=1e-14)
        for name in ("member", "time", "x", "y", "vorticity", "final_state"):
            assert dataset[name].attrs["units"] == "1"


def test_trajectories_hold_their_provenance(originals):
    with xr.open_dataset(originals["train"]) as dataset:
        assert dataset.attrs["format"] == "sns-frames-1"
        assert dataset.attrs["dt"] == 0.03
        record = json.loads(dataset.attrs["provenance"])
    assert record["configuration"] == {
        "system": SYSTEM, "emulator": EMULATOR, "split": "train", "members": MEMBERS, "first_member": 0,
        "frames": FRAMES, "spin_up": 0.1,
    }  # fmt: skip
    assert record["seed"] == SEED
    assert record["device"] == "cpu"
    assert record["versions"]["torch"] == torch.__version__
    assert record["versions"]["numpy"] == np.__version__
    assert record["code"]["commit"] == code_state()["commit"]


def test_frames_are_the_solvers_states_an_emulator_step_apart(originals, frames):
    flow = KolmogorovFlow(**SYSTEM["parameters"], dtype=torch.float32)
    final, last = torch.from_numpy(values(originals["train"], "final_state")), frames["train"][:, -1]
    assert final.shape == (MEMBERS, 1, 32, 32)
    assert np.array_equal(flow.observe(final, 16).numpy(), last)
    # Compute the last frame from the initial state in double precision: 10 + 8 * 3 steps.
    wide = KolmogorovFlow(**SYSTEM["parameters"])
    streams = [trajectories_module.generator(SEED, "initial state", "train", m) for m in range(MEMBERS)]
    expected = wide.observe(wide.advance(wide.initial_state(MEMBERS, streams), 34), 16)
    assert np.abs(last - expected.numpy()).max() < 1e-4 * float(expected.std())


def test_splits_share_no_initial_state(frames):
    for left in frames["train"][:, 0]:
        for right in frames["validation"][:, 0]:
            assert np.corrcoef(left.ravel(), right.ravel())[0, 1] < 0.9


QG = {"name": "TwoLayerQG", "parameters": {"resolution": 32, "dt": 7200.0}}


def grouped(folder, size, **settings):
    """Simulate all members, and return the files, with `size` members per file."""
    count = settings.pop("members", MEMBERS)
    starts = range(0, count, size)
    return [
        simulate(
            folder / f"{first}.nc", split="train", first_member=first, members=min(size, count - first), **settings
        )
        for first in starts
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "settings", [{}, {"system": QG, "emulator": {"resolution": 16, "step": 14400.0}, "spin_up": 5e4}]
)
def test_members_have_the_same_bits_however_they_are_grouped(tmp_path, size, settings):
    whole = open_frames(simulate(tmp_path / "train.nc", members=9, **settings))
    parts = open_members(grouped(tmp_path, size, members=9, **settings)[::-1])
    assert set(whole.variables) == set(parts.variables)
    for name in whole.variables:
        assert np.array_equal(whole[name].values, parts[name].values), name
    assert parts["member"].values.tolist() == list(range(9))


def test_a_member_that_is_alone_is_kept_once(tmp_path):
    (path,) = grouped(tmp_path, 1, members=1)
    with xr.open_dataset(path) as dataset:
        assert dataset.sizes["member"] == 1 and dataset["kinetic_energy"].sizes["member"] == 1


def test_a_killed_group_continues_and_the_finished_groups_stay(frames, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at_call(patch, trajectories_module, "write_tensors", 2 * 4 + 3)
        with pytest.raises(Killed):
            grouped(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.glob("*.nc")) == ["0.nc"]
    calls = kill_at_call(monkeypatch, trajectories_module, "write_tensors", 0)
    rest = [simulate(tmp_path / f"{m}.nc", split="train", members=1, first_member=m) for m in (1, 2)]
    assert len(calls) == 2 * (3 + 4), "the first chunk of the killed group is not computed again"
    assert np.array_equal(np.concatenate([values(path) for path in (tmp_path / "0.nc", *rest)]), frames["train"])


def test_files_of_different_settings_are_no_split(tmp_path):
    paths = [simulate(tmp_path / f"{n}.nc", split="train", first_member=n, seed=SEED + n) for n in (0, 3)]
    with pytest.raises(UserError) as caught:
        open_members(paths)
    assert_names(caught, *paths)


def test_an_unstable_member_of_a_group_is_named_by_its_number(tmp_path):
    coarse = {**SYSTEM, "parameters": {**SYSTEM["parameters"], "dt": 0.06}}
    with pytest.raises(InstabilityError, match=r"member 7 broke the CFL bound"):
        simulate(tmp_path / "train.nc", first_member=7, members=1, system=coarse, emulator={**EMULATOR, "step": 0.06})


def test_an_instability_is_told_with_its_step_since_the_initial_state_and_a_time_step_that_divides_a_frame(tmp_path):
    forced = {**SYSTEM, "parameters": {**SYSTEM["parameters"], "forcing_scale": 100.0}}
    solver = build_system(forced["name"], forced["parameters"], dtype=torch.float32)
    streams = [generator(SEED, "initial state", "train", member) for member in range(MEMBERS)]
    with pytest.raises(InstabilityError) as expected:
        solver.advance(solver.initial_state(MEMBERS, streams), 1000)
    with pytest.raises(InstabilityError, match=r"would do \(solver\.dt\)") as caught:
        simulate(tmp_path / "train.nc", system=forced, frames=300)
    assert caught.value.step == expected.value.step > 3, "solver steps, not those of the call that failed"
    ratio = EMULATOR["step"] / caught.value.suggested_dt
    assert abs(ratio - round(ratio)) < 1e-9 and caught.value.suggested_dt <= expected.value.suggested_dt


@pytest.mark.parametrize(
    ("suggested", "frame_step", "expected"),
    [(0.02, 0.05, 0.0125), (5000.0, 432000.0, 4800.0), (0.02, 0.1, 0.02), (0.02, 0.3, 0.02)],
)
def test_a_suggested_time_step_divides_the_time_between_frames(suggested, frame_step, expected):
    error = InstabilityError("became NaN", 0, 1, 3.0, suggested).of_member(4, 10, frame_step)
    assert (error.member, error.step) == (4, 11) and error.suggested_dt == pytest.approx(expected)
    steps_per_frame(frame_step, float(f"{error.suggested_dt:g}"))


def test_more_members_leave_the_others_as_they_were(frames, tmp_path):
    more = values(simulate(tmp_path / "train.nc", members=MEMBERS + 2))
    assert np.array_equal(more[:MEMBERS], frames["train"])


def test_another_seed_gives_other_frames(frames, tmp_path):
    reseeded = values(simulate(tmp_path / "train.nc", seed=SEED + 1))
    assert np.abs(reseeded - frames["train"]).mean() > 0.1 * reseeded.std()


class Killed(BaseException):
    """An exception that no handler of ordinary errors may swallow."""


def kill_at_call(monkeypatch, owner, name, call):
    original, calls = getattr(owner, name), []

    def limited(*arguments, **options):
        calls.append(name)
        if len(calls) == call:
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, limited)
    return calls


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        pytest.param(KolmogorovFlow, "run", 2, id="in the spin-up"),
        pytest.param(KolmogorovFlow, "run", 4 + 5, id="within the second chunk"),
        pytest.param(trajectories_module, "write_tensors", 5, id="before a chunk is written"),
        pytest.param(trajectories_module, "write_tensors", 6, id="between a chunk and its carry"),
        pytest.param(Path, "unlink", 7, id="before an older carry is removed"),
        pytest.param(FrameWriter, "append", 2, id="while writing the file"),
    ],
)
def test_a_killed_call_goes_on_and_gives_bitwise_the_same(originals, tmp_path, monkeypatch, owner, name, call):
    output = tmp_path / "train.nc"
    with monkeypatch.context() as patch:
        kill_at_call(patch, owner, name, call)
        with pytest.raises(Killed):
            simulate(output)
    assert [path.name for path in tmp_path.iterdir()] == [".work"]  # the folder holds neither the file nor a part of it
    simulate(output)
    for variable in ("vorticity", "final_state", "time", "kinetic_energy", "clock"):
        assert np.array_equal(values(output, variable), values(originals["train"], variable))
    assert not list((tmp_path / ".work").iterdir())


def test_a_resumed_call_does_not_repeat_finished_chunks(tmp_path, monkeypatch):
    output = tmp_path / "train.nc"
    with monkeypatch.context() as patch:
        kill_at_call(patch, trajectories_module, "write_tensors", 5)
        with pytest.raises(Killed):
            simulate(output)
    carry = max((tmp_path / ".work").glob("*/carry_*"))
    write_tensors(carry, read_tensors(carry)[0], {"seconds": 1000.0})
    calls = kill_at_call(monkeypatch, KolmogorovFlow, "run", 0)
    simulate(output)
    assert len(calls) == SETTLING + FRAMES - 2 * CHUNK
    assert json.loads(open_frames(output).attrs["provenance"])["wall_seconds"] > 1000, "of both calls"


def test_a_checkpoint_of_another_seed_is_not_taken_up(frames, tmp_path, monkeypatch):
    output = tmp_path / "train.nc"
    with monkeypatch.context() as patch:
        kill_at_call(patch, trajectories_module, "write_tensors", 5)
        with pytest.raises(Killed):
            simulate(output, seed=SEED + 1)
    assert np.array_equal(values(simulate(output)), frames["train"])


def test_a_call_resumed_with_another_chunk_length_gives_the_same(frames, tmp_path, monkeypatch):
    output = tmp_path / "train.nc"
    with monkeypatch.context() as patch:
        kill_at_call(patch, trajectories_module, "write_tensors", 5)
        with pytest.raises(Killed):
            simulate(output)
    simulate(output, chunk=2)
    assert np.array_equal(values(output), frames["train"])


def test_only_the_last_carries_are_kept(tmp_path, monkeypatch):
    listings, write = [], trajectories_module.write_tensors

    def watched(path, *arguments):
        write(path, *arguments)
        listings.append(sorted(p.name[:11] for p in path.parent.glob("c*.safetensors")))

    monkeypatch.setattr(trajectories_module, "write_tensors", watched)
    simulate(tmp_path / "train.nc")
    assert listings[6] == ["carry_00001", "carry_00002", *(f"chunk_0000{n}" for n in range(4))]
    assert max(sum(name.startswith("carry") for name in names) for names in listings) == 3


def test_after_a_damaged_carry_the_one_before_is_taken_up(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at_call(patch, trajectories_module, "write_tensors", 5)
        with pytest.raises(Killed):
            simulate(tmp_path / "train.nc")
    halve(max((tmp_path / ".work").rglob("carry_*.safetensors")))
    calls = kill_at_call(monkeypatch, KolmogorovFlow, "run", 0)
    simulate(tmp_path / "train.nc")
    assert len(calls) == SETTLING + FRAMES - CHUNK


@pytest.mark.parametrize("which", range(4))
def test_a_truncated_checkpoint_is_reported_and_computed_again(originals, tmp_path, monkeypatch, capsys, which):
    with monkeypatch.context() as patch:
        kill_at_call(patch, trajectories_module, "write_tensors", 5)
        with pytest.raises(Killed):
            simulate(tmp_path / "train.nc")
    spoiled = sorted((tmp_path / ".work").rglob("*.safetensors"))[which]
    halve(spoiled)
    simulate(tmp_path / "train.nc")
    # The call reads only the latest carry, so damage of an older carry gives no message.
    assert (f"{spoiled}: truncated" in capsys.readouterr().err) == (which > 0)
    whole, resumed = (xr.open_dataset(path) for path in (originals["train"], tmp_path / "train.nc"))
    xr.testing.assert_equal(whole, resumed)


@pytest.mark.parametrize(("step", "dt", "count"), [(0.03, 0.01, 3), (0.3, 0.1, 3), (0.2, 0.0125, 16), (1e-3, 1e-3, 1)])
def test_steps_in_a_frame_are_counted_in_spite_of_rounding(step, dt, count):
    assert steps_per_frame(step, dt) == count


@pytest.mark.parametrize(("step", "dt", "nearest"), [(0.025, 0.01, 0.02), (0.001, 0.01, 0.01), (0.2, 0.011, 0.198)])
def test_a_broken_number_of_steps_in_a_frame_is_refused(step, dt, nearest):
    with pytest.raises(UserError) as caught:
        steps_per_frame(step, dt)
    for words in (f"{step:g}", f"{dt:g}", f"nearest: {nearest:g}"):
        assert words in str(caught.value)


# --- damaged and foreign trajectory files ---


def lose(path):
    path.unlink()


def become_text(path):
    path.write_text("vorticity\n")


def become_foreign(path):
    path.unlink()
    xr.Dataset({"vorticity": (("member", "time"), np.zeros((2, 3)))}).to_netcdf(path)


damage = pytest.mark.parametrize("spoil", [lose, halve, become_text, become_foreign])


OPEN_AND_CLOSE = """
import random, sys, netCDF4
random.seed(1)
def touch():
    file = netCDF4.Dataset(sys.argv[1])
    file["layer"][:]
    return file
kept, others = touch(), []
for _ in range(300):
    if others and random.random() < 0.5:
        others.pop(random.randrange(len(others))).close()
    else:
        others.append(touch())
"""


def test_a_file_may_be_open_more_than_once(originals):
    # A separate process, because a failure of this test is a segmentation fault.
    ended = subprocess.run([sys.executable, "-c", OPEN_AND_CLOSE, originals["train"]], check=False, timeout=60)
    assert ended.returncode == 0


@damage
def test_a_damaged_file_cannot_be_opened_and_is_named(copies, spoil):
    spoil(copies["validation"])
    with pytest.raises(UserError) as caught:
        open_frames(copies["validation"])
    assert_names(caught, copies["validation"])


@damage
def test_a_damaged_file_is_not_sharded_and_is_named(copies, spoil, tmp_path):
    spoil(copies["validation"])
    with pytest.raises(UserError) as caught:
        shard(copies.values(), tmp_path / "shards" / "manifest.json")
    assert_names(caught, copies["validation"])
    assert not (tmp_path / "shards" / "manifest.json").exists()


def test_a_missing_variable_is_named(copies):
    open_frames(copies["train"], "final_state").close()
    with pytest.raises(UserError) as caught:
        open_frames(copies["train"], "pressure")
    assert_names(caught, copies["train"], "pressure")


def flip_a_bit_of_frame(path, frame):
    wanted = frame.tobytes()
    offset = path.read_bytes().find(wanted)
    assert offset > 0
    flip_a_bit(path, offset + len(wanted) // 2)


def test_a_flipped_bit_in_a_trajectory_is_found(copies, frames, tmp_path):
    flip_a_bit_of_frame(copies["validation"], frames["validation"][1, 4])
    with pytest.raises(UserError) as caught:
        shard(copies.values(), tmp_path / "shards" / "manifest.json")
    assert_names(caught, copies["validation"])
    assert not (tmp_path / "shards" / "manifest.json").exists()


def test_only_the_trajectory_with_a_flipped_bit_is_named(copies, frames, tmp_path):
    flip_a_bit_of_frame(copies["validation"], frames["validation"][1, 4])
    with pytest.raises(UserError) as caught:
        shard(copies.values(), tmp_path / "shards" / "manifest.json")
    assert str(copies["train"]) not in str(caught.value)


def spoil_with_nan(path):
    with netCDF4.Dataset(path, "a") as file:
        file["vorticity"][1, 2, 0, 3, 4] = np.nan


def test_a_trajectory_with_nan_is_refused(copies, tmp_path):
    spoil_with_nan(copies["train"])
    with pytest.raises(UserError, match="NaN"):
        shard(copies.values(), tmp_path / "shards" / "manifest.json")
    assert not (tmp_path / "shards" / "manifest.json").exists()


def test_a_trajectory_with_nan_is_named(copies, tmp_path):
    spoil_with_nan(copies["train"])
    with pytest.raises(UserError) as caught:
        shard(copies.values(), tmp_path / "shards" / "manifest.json")
    assert_names(caught, copies["train"])


def test_a_trajectory_of_another_configuration_is_named(copies, tmp_path):
    changed = {**SYSTEM, "parameters": {**SYSTEM["parameters"], "viscosity": 2e-2}}
    odd = simulate(tmp_path / "test.nc", system=changed)
    with pytest.raises(UserError) as caught:
        shard([copies["train"], odd], tmp_path / "shards" / "manifest.json")
    assert_names(caught, odd, copies["train"])


def test_a_data_set_without_a_training_split_is_refused(copies, tmp_path):
    with pytest.raises(UserError) as caught:
        shard([copies["validation"]], tmp_path / "manifest.json")
    assert_names(caught, tmp_path / "manifest.json", "'train'")


def test_a_training_split_of_single_frames_is_refused(tmp_path):
    path = simulate(tmp_path / "train.nc", frames=1)
    with warnings.catch_warnings(), pytest.raises(UserError) as caught:
        warnings.simplefilter("ignore", RuntimeWarning)
        shard([path], tmp_path / "shards" / "manifest.json")
    assert_names(caught, path)


# --- shards and statistics ---


@pytest.mark.parametrize(
    "changes",
    [
        {"system": {"name": "KuramotoSivashinsky", "parameters": {"resolution": [1, 16], "dt": 0.5, "length": 2.0}},
         "emulator": {"resolution": [1, 8], "step": 1.0}, "spin_up": 300.0},
        {"system": {**SYSTEM, "parameters": {**SYSTEM["parameters"], "viscosity": 20.0}}, "spin_up": 3.0},
    ],
    ids=["at rest", "steady"],
)  # fmt: skip
def test_a_flow_that_stands_still_is_refused_before_training(tmp_path, changes):
    path = simulate(tmp_path / "train.nc", members=2, **changes)
    with pytest.raises(UserError, match=r"manifest.json: .* do not change in time.*drive the flow") as caught:
        shard_dataset(trajectories=[path], output=tmp_path / "manifest.json")
    assert "\n" not in str(caught.value) and not (tmp_path / "manifest.json").exists()


def test_a_mean_far_from_zero_is_refused():
    statistics = {"mean": [0.0, 1000.0], "std": [1.0, 3.0], "increment_std": [0.1, 0.1]}
    with pytest.raises(UserError, match=r"m.json: .*'depth' have a mean of 1e\+03 .*observe"):
        check_statistics(statistics, ["u", "depth"], Path("m.json"))
    check_statistics({**statistics, "mean": [0.0, 10.0]}, ["u", "depth"], Path("m.json"))


def test_shards_hold_the_frames_and_the_manifest_their_checksums(frames, manifest):
    content = json.loads(manifest.read_text())
    assert content["system"] == SYSTEM
    assert content["emulator"] == EMULATOR
    for split, expected in frames.items():
        entries = content["splits"][split]
        assert [entry["shape"] for entry in entries] == [[2, FRAMES, 1, 16, 16], [1, FRAMES, 1, 16, 16]]
        blocks = [np.load(manifest.parent / entry["file"], allow_pickle=False) for entry in entries]
        assert np.array_equal(np.concatenate(blocks), expected)
        for entry in entries:
            assert entry["sha256"] == sha256_of(manifest.parent / entry["file"])


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_sharding_again_gives_the_same_manifest(copies, manifest, tmp_path):
    shard(copies.values(), tmp_path / "again" / "manifest.json")
    assert (tmp_path / "again" / "manifest.json").read_text() == manifest.read_text()


@pytest.mark.parametrize("size", [1, 2])
def test_shards_are_the_same_however_members_are_grouped_in_files(copies, manifest, tmp_path, size):
    (tmp_path / "groups").mkdir()
    groups = grouped(tmp_path / "groups", size)
    shard([*groups[::-1], copies["validation"]], tmp_path / "again" / "manifest.json")
    assert (tmp_path / "again" / "manifest.json").read_text() == manifest.read_text()


@pytest.mark.parametrize("shard_members", [1, 2, 16])
def test_statistics_are_those_of_the_training_split(copies, frames, tmp_path, shard_members):
    shard(copies.values(), tmp_path / "manifest.json", shard_members)
    statistics = json.loads((tmp_path / "manifest.json").read_text())["statistics"]
    wide = frames["train"].astype(np.float64)[:, :, 0]
    std = wide.std()
    # Frames are float32 and sums are double, so only rounding of the sums remains.
    assert statistics["std"] == pytest.approx([std], rel=1e-12)
    assert statistics["mean"] == pytest.approx([wide.mean()], abs=1e-12 * std)
    increments = np.sqrt((np.diff(wide, axis=1) ** 2).mean())
    assert statistics["increment_std"] == pytest.approx([increments / std], rel=1e-12)
    power = (np.abs(np.fft.fft2(wide / std, norm="ortho")) ** 2).mean((0, 1))
    shells = np.rint(np.hypot(*np.meshgrid(np.fft.fftfreq(16, 1 / 16), np.fft.fftfreq(16, 1 / 16)))).astype(int)
    amplitude = [np.sqrt(power[shells == shell].mean()) for shell in range(shells.max() + 1)]
    # The mean, which is shell 0, is zero to rounding.
    assert statistics["shell_amplitude"][0] == pytest.approx(amplitude, rel=1e-10, abs=1e-12)


def test_a_large_shard_is_made_in_pieces(copies, manifest, tmp_path, monkeypatch):
    """Pieces of three frames give the shards to the bit, and the statistics to rounding, of shards that are read at once."""
    monkeypatch.setattr(shards_module, "LARGE_SHARD", 0)
    monkeypatch.setattr(shards_module, "PIECE", 3 * 4 * 2 * 16 * 16)
    shard(copies.values(), tmp_path / "pieces" / "manifest.json")
    whole, pieces = (json.loads(path.read_text()) for path in (manifest, tmp_path / "pieces" / "manifest.json"))
    assert whole["splits"] == pieces["splits"]
    for name, value in whole["statistics"].items():
        np.testing.assert_allclose(pieces["statistics"][name], value, rtol=1e-9, atol=1e-12)


def test_shell_amplitudes_obey_parseval(manifest):
    statistics = json.loads(manifest.read_text())["statistics"]
    amplitude = np.array(statistics["shell_amplitude"][0])
    shells = np.rint(np.hypot(*np.meshgrid(np.fft.fftfreq(16, 1 / 16), np.fft.fftfreq(16, 1 / 16)))).astype(int)
    modes = np.bincount(shells.ravel())
    # The orthonormal transform of a field of unit variance without a mean has one unit of power per grid point.
    assert (modes * amplitude**2).sum() == pytest.approx(16**2, rel=1e-10)


def test_a_data_set_gathers_normalised_frames_across_shards(frames, manifest):
    dataset = load_dataset(manifest, "train")
    assert (dataset.members, dataset.frames) == (MEMBERS, FRAMES)
    members, times = np.array([2, 0, 1, 2]), np.array([7, 3, 0, 1])
    expected = frames["train"][members, times] / np.float32(dataset.statistics["std"][0])
    assert np.array_equal(dataset.gather(members, times).numpy(), expected)


def test_every_split_is_normalised_by_the_training_split(frames, manifest):
    dataset = load_dataset(manifest, "validation")
    expected = frames["validation"][1, 4] / np.float32(frames["train"].astype(np.float64).std())
    assert dataset.gather(np.array([1]), np.array([4]))[0].numpy() == pytest.approx(expected, rel=1e-6)


def test_a_data_set_knows_its_system(manifest):
    system = load_dataset(manifest, "train").system
    assert isinstance(system, KolmogorovFlow)
    assert (system.resolution, system.viscosity, system.dt) == (32, 1e-2, 0.01)


@pytest.mark.parametrize(
    "spoil", [lose, halve, become_text, lambda path: flip_a_bit(path, path.stat().st_size // 2)],
    ids=["lost", "halved", "text", "bit flipped"],
)  # fmt: skip
def test_a_damaged_shard_is_named(manifest, spoil):
    broken = manifest.parent / json.loads(manifest.read_text())["splits"]["train"][1]["file"]
    spoil(broken)
    load_dataset(manifest, "validation")
    with pytest.raises(UserError) as caught:
        load_dataset(manifest, "train")
    assert_names(caught, broken)


@pytest.mark.parametrize(
    "content", [None, "shards", "[1, 2]", '{"format": "another"}', '{"splits": {}}', '{"format": "sns-shards-1"'],
    ids=["missing", "text", "list", "foreign", "no format", "cut off"],
)  # fmt: skip
def test_a_foreign_manifest_is_named(tmp_path, content):
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as caught:
        load_dataset(path, "train")
    assert_names(caught, path)


def without(key):
    return lambda content: content.pop(key)


def with_shard(**changes):
    return lambda content: content["splits"]["train"][0].update(changes)


@pytest.mark.parametrize(
    "spoil", [without("splits"), without("statistics"), without("identity"), lambda content: content.update(splits=[]),
              lambda content: content["splits"]["train"][0].pop("file"), lambda content: content["splits"].update(train=3),
              with_shard(file="../test.npy"), with_shard(file="/etc/hostname"), with_shard(file=["a"])],
)  # fmt: skip
def test_a_manifest_that_is_not_whole_or_points_elsewhere_is_refused(manifest, spoil):
    content = json.loads(manifest.read_text())
    spoil(content)
    manifest.write_text(json.dumps(content))
    with pytest.raises(DamagedFile) as caught:
        load_dataset(manifest, "train")
    assert_names(caught, manifest)
    with pytest.raises(DamagedFile):
        Emulation.read(manifest)


def as_float64(block):
    return block.astype(np.float64).tobytes(), {"descr": "<f8", "shape": block.shape}


@pytest.mark.parametrize(
    "lie", [as_float64, lambda block: (block.tobytes(), {"shape": (10**6, *block.shape[1:])}),
            lambda block: (block.tobytes(), {"shape": block.shape[::-1]}), lambda block: (b"", {"descr": "|O"})],
    ids=["float64", "longer than the file", "other axes", "objects"],
)  # fmt: skip
def test_a_shard_that_is_another_array_than_its_manifest_says_is_refused(manifest, lie):
    content = json.loads(manifest.read_text())
    entry = content["splits"]["train"][0]
    path = manifest.parent / entry["file"]
    block = np.load(path)
    data, header = lie(block)
    with path.open("wb") as handle:
        standard = {"descr": "<f4", "fortran_order": False, "shape": block.shape}
        np.lib.format.write_array_header_1_0(handle, {**standard, **header})
        handle.write(data)
    entry["sha256"] = sha256_of(path)
    manifest.write_text(json.dumps(content))
    with pytest.raises(DamagedFile) as caught:
        load_dataset(manifest, "train")
    assert_names(caught, path)


def test_a_missing_split_is_named_with_those_that_exist(manifest):
    with pytest.raises(UserError) as caught:
        load_dataset(manifest, "test")
    assert_names(caught, manifest, "'test'", "train", "validation")


# --- pairs ---

N = 16


def numbered(members=5, length=9, shard_sizes=(2, 3)):
    """A data set whose frames encode their member and time: every pixel is 100 member + time + 1."""
    numbers = 100.0 * np.arange(members)[:, None] + np.arange(length) + 1
    frames = np.broadcast_to(numbers[:, :, None, None, None], (members, length, 1, N, N)).astype(np.float32)
    shards = np.split(frames, np.cumsum(shard_sizes)[:-1])
    return Dataset(shards, {"statistics": {"std": [0.5]}, "system": SYSTEM})


def drawn(sampler, batch=400, seed=1):
    """Return members (B,) and times (B, F) of a batch of numbered frames."""
    sample = sampler.draw(batch, torch.Generator().manual_seed(seed))
    assert sample.shape[2:] == (1, N, N)
    numbers = (sample[:, :, 0, 0, 0] * 0.5).round().long() - 1
    assert ((numbers // 100) == (numbers // 100)[:, :1]).all()  # all frames of a sample are of one member
    return (numbers // 100)[:, 0].numpy(), (numbers % 100).numpy()


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_frames_of_a_sample_are_consecutive_and_every_pair_is_drawn(frames):
    members, times = drawn(PairSampler(numbered(), frames))
    assert (np.diff(times, axis=1) == 1).all()
    pairs = set(zip(members.tolist(), times[:, 0].tolist(), strict=True))
    assert pairs == {(member, time) for member in range(5) for time in range(9 - frames + 1)}


@pytest.mark.parametrize(("frames", "gap"), [(2, 2), (2, 1), (1, 3), (3, 2)])
def test_anchors_keep_their_distance_on_either_side(frames, gap):
    _, times = drawn(PairSampler(numbered(), frames, gap))
    anchor, first, last = times[:, 0], times[:, 1], times[:, -1]
    assert (np.diff(times[:, 1:], axis=1) == 1).all()
    assert ((anchor <= first - gap) | (anchor >= last + gap)).all()
    assert (anchor < first).any()
    assert (anchor > last).any()


def test_anchors_come_as_near_as_the_gap_allows():
    _, times = drawn(PairSampler(numbered(), 2, 3))
    assert (times[:, 1] - times[:, 0]).clip(0).max() >= 3
    assert 3 in times[:, 1] - times[:, 0]
    assert 3 in times[:, 0] - times[:, 2]


def test_the_shortest_admissible_trajectory_has_an_anchor_for_every_pair():
    _, times = drawn(PairSampler(numbered(length=8), 2, 3))
    assert set(times[:, 1]) == set(range(7))


def test_an_anchor_gap_that_no_trajectory_allows_is_refused():
    with pytest.raises(UserError, match=r"anchor_gap 4 .* 10 frames .* 9"):
        PairSampler(numbered(), 2, 4)


def test_more_frames_than_a_trajectory_has_are_refused():
    with pytest.raises(UserError, match="9"):
        PairSampler(numbered(), 10).draw(1, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("symmetries", ["none", "translations", "all"])
def test_a_batch_depends_on_the_generator_alone(manifest, symmetries):
    dataset = load_dataset(manifest, "train")
    used, fresh = (PairSampler(dataset, 2, 1, symmetries) for _ in range(2))
    used.draw(5, torch.Generator().manual_seed(1))
    batch = used.draw(8, torch.Generator().manual_seed(2))
    assert batch.shape == (8, 3, 1, N, N)
    assert torch.equal(batch, fresh.draw(8, torch.Generator().manual_seed(2)))
    assert not torch.equal(batch, fresh.draw(8, torch.Generator().manual_seed(3)))


def test_batches_without_augmentation_are_the_data_in_units_of_their_std(frames, manifest):
    dataset = load_dataset(manifest, "train")
    scaled = frames["train"] / np.float32(dataset.statistics["std"][0])
    for sample in PairSampler(dataset, 2).draw(8, torch.Generator().manual_seed(4)).numpy():
        assert any(
            np.array_equal(sample, scaled[member, time : time + 2])
            for member in range(MEMBERS)
            for time in range(FRAMES - 1)
        )


@pytest.mark.parametrize("symmetries", ["translations", "all"])
def test_all_frames_of_a_sample_are_moved_alike(symmetries):
    field = np.random.default_rng(5).standard_normal((4, 1, 1, N, N)).astype(np.float32)
    scales = 2.0 ** np.arange(9, dtype=np.float32)[None, :, None, None, None]
    dataset = Dataset([field * scales], {"statistics": {"std": [1.0]}, "system": SYSTEM})
    moved, plain = (
        PairSampler(dataset, 3, symmetries=name).draw(16, torch.Generator().manual_seed(6))
        for name in (symmetries, "none")
    )
    assert torch.equal(moved[:, 1:], 2 * moved[:, :-1])
    assert not torch.equal(moved, plain)
    # Translations only move pixels. The reflection also changes the sign of a whole sample.
    turned = (moved.sum((1, 2, 3, 4)) * plain.sum((1, 2, 3, 4))).sign()
    unturned = moved * turned.view(-1, 1, 1, 1, 1)
    assert torch.equal(unturned.flatten(1).sort().values, plain.flatten(1).sort().values)
    assert (turned < 0).any() == (symmetries == "all")


def test_unknown_symmetries_are_refused():
    with pytest.raises(UserError, match="'mirrors'"):
        PairSampler(numbered(), symmetries="mirrors")


def test_only_the_shards_of_the_requested_frames_are_read(manifest):
    mapped = [block.base for block in load_dataset(manifest, "train").shards]
    assert all(isinstance(block, np.memmap) and Path(block.filename).parent == manifest.parent for block in mapped)


def test_a_model_may_learn_from_the_first_frames_of_the_first_trajectories():
    shards = [np.arange(2 * 5).reshape(2, 5, 1, 1, 1), 100 + np.arange(3 * 5).reshape(3, 5, 1, 1, 1)]
    dataset = Dataset(shards, {"statistics": {}})
    cut = dataset.first(3, 2)
    assert [shard[:, :, 0, 0, 0].tolist() for shard in cut.shards] == [[[0, 1], [5, 6]], [[100, 101]]]
    assert (cut.members, cut.frames) == (3, 2)
    single = dataset.first(1)
    assert (single.members, single.frames) == (1, 5) and len(single.shards) == 1
    assert (dataset.first().members, dataset.first(frames=4).frames) == (5, 4)
