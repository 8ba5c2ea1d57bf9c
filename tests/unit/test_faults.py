"""Real faults: a kill at every file that is moved into place, a full disk, a quota, flipped bits, foreign files.

Stages run in separate processes, with the words that the workflow uses. After each fault one line names the fault, and
the same call, repeated, makes the files of an undisturbed run, bit for bit.
"""

import contextlib
import gc
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from helpers import equal
from tiny_models import EMULATOR, SPECS, SYSTEM

from sns_core.files import read_json

MODELS = {"surrogate": "pointwise.safetensors", "denoiser": "denoiser.safetensors"}
WALK = {
    "kind": "refinement", "path": "diagonal", "readout": {"kind": "calibrated", "refine_share": 0.7}, "sampler": {}, "stride": 4,
    "shared_level": True, "max_level": 4, "renoise": False,
}  # fmt: skip
# Three checkpoints, as in the training of the tiny models, in a third of their steps.
SHORT = {"steps": 9, "log_every": 3, "checkpoint_every": 3, "warmup": 2}
SPEC = {**SPECS["denoiser"], "training": {**SPECS["denoiser"]["training"], **SHORT}}
COMMON = {"seed": 3, "device": "cpu"}
ROLLOUT = {
    "manifest": "shards/manifest.json", "initial": ["test.nc"], "members": [0, 1, 2], "frame_stride": 2, "block": 5, "lags": 4,
    "precision": "float32", **COMMON,
}  # fmt: skip


def segment(name, index, method, models):
    first = {"first_step": 10 * index, "steps": 10}
    previous = {"previous": f"{name}_{index - 1}.safetensors"} if index else {}
    written = {"output": f"{name}_{index}.nc", "restart": f"{name}_{index}.safetensors"}
    return {"name": name, "method": method, "models": models, **ROLLOUT, **first, **previous, **written}


# Stage by stage as the workflow chains them: (stage, its arguments, the files that it leaves).
CALLS = {
    "simulate": (
        "simulate_trajectories",
        {"system": SYSTEM, "emulator": EMULATOR, "split": "train", "members": 3, "frames": 30, "spin_up": 1.0, "chunk": 12,
         **COMMON, "output": "train.nc"},
    ),
    "shard": (
        "shard_dataset",
        {"trajectories": ["train.nc", "validation.nc", "test.nc"], "shard_members": 2, "output": "shards/manifest.json"},
    ),
    "train": (
        "train_model",
        {"name": "denoiser", "spec": SPEC, "manifest": "shards/manifest.json", "precision": "float32", **COMMON,
         "output": "denoiser.safetensors", "history": "denoiser.csv"},
    ),
    "solver": ("rollout_segment", segment("solver", 0, {"kind": "solver"}, {})),
    "rollout": ("rollout_segment", segment("sns", 0, WALK, MODELS)),
    "rollout on": ("rollout_segment", segment("sns", 1, WALK, MODELS)),
    "reference": (
        "compute_reference",
        {"trajectories": ["test.nc"], "manifest": "shards/manifest.json", "lags": 4, "frame_stride": 2, "map_lags": 3,
         "output": "reference.nc"},
    ),
    "metrics": (
        "compute_metrics",
        {"segments": ["sns_0.nc", "sns_1.nc"], "solver": ["solver_0.nc"], "reference": "reference.nc",
         "manifest": "shards/manifest.json", "window": 10, "shells": [1, 6], "map_lags": 3, "output": "metrics.nc",
         "output_windows": "windows.csv"},
    ),
}  # fmt: skip
DISTURBED = ("simulate", "shard", "train", "rollout on", "metrics")


def words(call: str) -> list[str]:
    stage, arguments = CALLS[call]
    words_of_call = [stage, "--threads", "1", "--log", f"{call}.log"]
    for name, value in arguments.items():
        word = value if isinstance(value, str) else json.dumps(value)
        paths = isinstance(value, list) and isinstance(value[0], str)
        words_of_call += [f"--{name.replace('_', '-')}", *(value if paths else [word])]
    return words_of_call


def leaves(call: str) -> list[str]:
    """Return the files that a call makes."""
    arguments = CALLS[call][1]
    made = [arguments[name] for name in ("output", "restart", "history", "output_windows") if name in arguments]
    return made + (["shards/train_0000.npy", "shards/train_0001.npy"] if call == "shard" else [])


def child(folder: str, call: str, fault: tuple) -> None:
    """Run a call in this forked process, with a signal before the k-th file is moved into place, or under a quota."""
    from sns_core.__main__ import main

    gc.freeze()  # the garbage collector looks at what this call makes, and not at all modules
    os.chdir(folder)
    if fault[0] == "signal":
        _, number, moment = fault
        put, count = os.replace, [0]

        def replace(*paths):
            count[0] += 1
            if count[0] == moment:
                os.kill(os.getpid(), number)
            put(*paths)

        os.replace = replace
    if fault[0] == "quota":
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault[1], fault[1]))
    with open("terminal", "w") as terminal:
        os.dup2(terminal.fileno(), 1)
        os.dup2(terminal.fileno(), 2)
        code = main(words(call))
    os._exit(code)


@pytest.fixture(scope="module")
def server():
    context = multiprocessing.get_context("forkserver")
    # xarray imports the second four when it first makes a dataset, torch the third when it first makes an optimiser.
    context.set_forkserver_preload(
        [
            *("sns_core.rollout", "sns_core.training", "sns_core.metrics.rollout_metrics", "sns_core.record"),
            *("dask.array", "distributed", "netCDF4", "pandas"),
            *("torch._dynamo", "numpy.ctypeslib", "pandas.io.formats.csvs", "xarray.computation.rolling"),
        ]
    )

    def run(folder: Path, call: str, *fault) -> int:
        """Return the exit status, or minus the number of the signal that ended the process."""
        process = context.Process(target=child, args=(str(folder), call, fault or ("none",)))
        process.start()
        process.join(120)
        return process.exitcode

    return run


def printed_lines(folder: Path) -> list[str]:
    """Return the lines that the last call printed."""
    return (folder / "terminal").read_text().strip().splitlines()


@pytest.fixture(scope="module")
def whole(tiny, server, tmp_path_factory) -> Path:
    """A folder with the results of every undisturbed call."""
    folder = tmp_path_factory.mktemp("whole")
    for path in tiny.folder.glob("*.nc"):
        shutil.copy(path, folder)
    (folder / "train.nc").unlink()
    for call in ("simulate", "shard"):
        assert server(folder, call) == 0, printed_lines(folder)
    shutil.copy(tiny.models["surrogate"], folder / MODELS["surrogate"])
    for call in list(CALLS)[2:]:
        assert server(folder, call) == 0, printed_lines(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A copy of the undisturbed results that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def assert_whole(folder: Path, whole: Path, call: str) -> None:
    for name in leaves(call):
        assert equal(folder / name, whole / name), name
    assert not list(folder.rglob("*.running")), "a finished call leaves no mark of a job at work"
    assert not list(folder.rglob("*.part")), "the unfinished file of a killed call remains"


def forget(folder: Path, call: str) -> None:
    for name in leaves(call):
        (folder / name).unlink()


@pytest.mark.parametrize("call", DISTURBED)
def test_a_call_killed_at_any_file_completes_when_repeated(server, whole, folder, call):
    for moment in range(1, 100):
        forget(folder, call)
        ended = server(folder, call, "signal", signal.SIGKILL, moment)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        assert server(folder, call) == 0, printed_lines(folder)
        assert_whole(folder, whole, call)
    assert moment > 3, "the call was never killed between two files"
    assert_whole(folder, whole, call)


@pytest.mark.parametrize("call", DISTURBED)
def test_a_call_that_gets_sigterm_continues_when_repeated(server, whole, folder, call):
    forget(folder, call)
    ended = server(folder, call, "signal", signal.SIGTERM, 3)
    assert ended in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert server(folder, call) == 0, printed_lines(folder)
    assert_whole(folder, whole, call)


@pytest.mark.parametrize("call", DISTURBED)
def test_a_quota_is_reported_in_one_line(server, whole, folder, call):
    forget(folder, call)
    size = max((whole / name).stat().st_size for name in leaves(call))
    assert server(folder, call, "quota", min(3000, size // 2)) == 1
    messages = printed_lines(folder)
    assert len(messages) == 1 and messages[0].startswith(f"{CALLS[call][0]}: ") and "space" in messages[0], messages
    assert server(folder, call) == 0, printed_lines(folder)
    assert_whole(folder, whole, call)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 12 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=False)


@pytest.mark.parametrize("call", DISTURBED)
def test_a_full_disk_is_reported_in_one_line(server, whole, small_disk, call):
    folder = Path(shutil.copytree(whole, small_disk / "run"))
    forget(folder, call)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as handle:
        while True:
            handle.write(bytes(4096))
    with ballast.open("r+b") as handle:  # room for the marker and the log
        handle.truncate(ballast.stat().st_size - 4 * 4096)
    assert server(folder, call) == 1
    messages = printed_lines(folder)
    assert len(messages) == 1 and messages[0].startswith(f"{CALLS[call][0]}: ") and "space" in messages[0], messages
    ballast.unlink()
    assert server(folder, call) == 0, printed_lines(folder)
    assert_whole(folder, whole, call)


def flip(path: Path) -> None:
    """Flip one bit in the middle of the data."""
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 5] ^= 16
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign(path: Path) -> None:
    path.write_text("this is not what you are looking for\n")


DAMAGE = [
    ("shards/train_0001.npy", "shard", "train"),
    ("shards/manifest.json", "shard", "train"),
    ("denoiser.safetensors", "train", "rollout on"),
    ("sns_0.safetensors", "rollout", "rollout on"),
    ("sns_1.nc", "rollout on", "metrics"),
    ("train.nc", "simulate", "shard"),
]


@pytest.mark.parametrize("spoil", [flip, cut, foreign])
@pytest.mark.parametrize(("name", "maker", "reader"), DAMAGE, ids=[name for name, *_ in DAMAGE])
def test_a_damaged_file_is_set_aside_and_made_anew(server, whole, folder, name, maker, reader, spoil):
    forget(folder, reader)
    spoil(folder / name)
    assert server(folder, reader) == 1
    messages = printed_lines(folder)
    assert len(messages) == 1 and Path(name).name in messages[0] and "set aside as" in messages[0], messages
    assert not (folder / name).exists() and (folder / f"{name}.damaged").exists()
    # Snakemake's next call finds no file, so it runs the stage that makes the file, then the stage that reads it.
    assert server(folder, maker) == 0, printed_lines(folder)
    assert server(folder, reader) == 0, printed_lines(folder)
    assert_whole(folder, whole, maker)
    assert_whole(folder, whole, reader)


@pytest.mark.parametrize("spoil", [flip, cut, foreign])
@pytest.mark.parametrize("call", ["simulate", "train"])
def test_a_damaged_checkpoint_is_reported_and_ignored(server, whole, folder, call, spoil):
    forget(folder, call)
    assert server(folder, call, "signal", signal.SIGKILL, 5) == -signal.SIGKILL
    left = max(folder.glob(".work/*/*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    spoil(left)
    assert server(folder, call) == 0, printed_lines(folder)
    assert str(left.relative_to(folder)) in (folder / f"{call}.log").read_text()
    assert_whole(folder, whole, call)


def test_every_result_has_a_record(whole):
    record = read_json(whole / "provenance" / "denoiser.safetensors.json")
    assert record["stage"] == "train_model" and record["seed"] == 3 and record["device"] == "cpu"
    assert record["configuration"]["spec"] == SPEC
    assert set(record["inputs"]) == {"shards/manifest.json"} and record["wall_seconds"] > 0
    assert {"commit", "dirty"} == set(record["code"]) and "torch" in record["versions"]
    record_of_rollout = read_json(whole / "provenance" / "sns_1.nc.json")
    assert {"denoiser.safetensors", "sns_0.safetensors"} <= {Path(name).name for name in record_of_rollout["inputs"]}
    for call in CALLS:
        for name in leaves(call):
            if not name.endswith(".npy"):
                assert (whole / name).parent.joinpath("provenance", f"{Path(name).name}.json").exists(), name
