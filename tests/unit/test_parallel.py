"""Several processes training one model: what one process learns, to rounding, resumed by any number of them."""

import json
import signal
import socket
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
import torch
import warm_python
from tiny_models import SPECS, train

from sns_core.errors import UserError
from sns_core.files import read_json, read_tensors
from sns_core.processes import ProcessGroup


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def together(tiny, folder, name, torchrun=(), **training):
    """Start torchrun with two processes, or with those that the words in `torchrun` say."""
    spec = {**SPECS[name], "training": {**SPECS[name]["training"], **training}}
    torchrun = torchrun or ("--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={free_port()}")
    words = [
        warm_python.executable(), "-m", "torch.distributed.run", *torchrun, "-m", "--", "sns_core", "train_model", "--threads", "1",
        "--log", str(folder / "log"), "--name", name, "--spec", json.dumps(spec), "--manifest", str(tiny.manifest), "--seed", "3",
        "--device", "cpu", "--precision", "float32",
        "--output", str(folder / f"{name}.safetensors"), "--history", str(folder / f"{name}.csv"),
    ]  # fmt: skip
    environment = {**warm_python.environment(), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)


def assert_close(left, right, tolerance):
    first, second = (pd.read_csv(path.with_suffix(".csv")) for path in (left, right))
    np.testing.assert_allclose(first, second, rtol=tolerance)
    weights, right_weights = read_tensors(left)[0], read_tensors(right)[0]
    for name in weights:
        assert torch.allclose(weights[name], right_weights[name], rtol=0, atol=tolerance), name


@pytest.mark.parametrize("name", ["denoiser", "pointwise"])
def test_two_processes_learn_the_weights_of_one(tiny, tmp_path, name):
    process = together(tiny, tmp_path, name)
    assert process.wait(200) == 0, (tmp_path / "log").read_text()
    # The first steps of AdamW are the sign of a gradient, so rounding grows to a few times 1e-4 in thirty steps.
    assert_close(tmp_path / f"{name}.safetensors", tiny.folder / f"{name}.safetensors", 1e-3)
    note = read_json(tmp_path / f"{name}.json")
    assert note["provenance"]["processes"] == 2
    records = sorted(path.name for path in (tmp_path / "provenance").iterdir())
    results = (f"{name}.csv", f"{name}.json", f"{name}.safetensors")
    assert records == [f"{result}.json" for result in results], "one process keeps the records"


def test_two_nodes_that_meet_by_torchruns_rendezvous_learn_the_weights_of_one_process(tiny, tmp_path):
    """Each node runs a torchrun of its own, as `srun` starts them. The rendezvous gives the processes their ranks."""
    meeting = ("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{free_port()}")
    nodes = [together(tiny, tmp_path, "pointwise", torchrun=meeting) for _ in range(2)]
    assert [node.wait(200) for node in nodes] == [0, 0], (tmp_path / "log").read_text()
    assert_close(tmp_path / "pointwise.safetensors", tiny.folder / "pointwise.safetensors", 1e-3)
    assert read_json(tmp_path / "pointwise.json")["provenance"]["processes"] == 2


def test_one_process_finishes_the_training_of_two(tiny, tmp_path):
    process = together(tiny, tmp_path, "pointwise", steps=400, log_every=100, checkpoint_every=50)
    work = tmp_path / ".work"
    deadline = time.monotonic() + 100
    while not list(work.glob("*/checkpoint.safetensors")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    left = read_tensors(next(work.glob("*/checkpoint.safetensors")))[1]["step"]
    assert 50 <= left < 400
    longer = {**SPECS["pointwise"]["training"], "steps": 400, "log_every": 100, "checkpoint_every": 50}
    spec = {**SPECS["pointwise"], "training": longer}
    result = train(tmp_path, tiny.manifest, "pointwise", spec)
    alone = tmp_path / "alone"
    alone.mkdir()
    assert_close(result, train(alone, tiny.manifest, "pointwise", spec), 5e-2)


def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    team = ProcessGroup(torch.device("cpu"))
    assert team.rows(9) == slice(3, 6)
    with pytest.raises(UserError, match="16 does not divide among 3 devices"):
        team.rows(16)
