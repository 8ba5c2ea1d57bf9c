"""A SLURM for the tests of this folder, and the local run to which the tests compare their results."""

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import cluster as slurm
import pytest
from snakemake_calls import SYSTEM, snakemake
from submitted import OVERLAY, Submitter, without_surrogate


@contextlib.contextmanager
def running(nodes: int):
    """Run a cluster inside the block, or skip the test. SNS_INSTALL_SLURM=1, which `make test-slurm` sets, allows the
    installation of its packages."""
    if os.environ.get("SNS_INSTALL_SLURM") == "1":
        slurm.install()
    reason = slurm.hindrance()
    if reason:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # pytest's own folders may be too deep for a socket's path
    cluster = slurm.Cluster(folder, nodes)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster():
    with running(nodes=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(cluster, root, tmp_path_factory) -> Path:
    """A folder with the same run, made on this machine without SLURM."""
    folder = tmp_path_factory.mktemp("local")
    result = snakemake(root, folder, str(SYSTEM / "metrics/sns_windows.csv"), overlay=OVERLAY)
    assert result.returncode == 0, result.stdout[-4000:]
    return folder


@pytest.fixture
def over_nodes(root, tmp_path):
    """Calls on a SLURM of two nodes with the profile, edited as its comments advise for a training over two nodes."""
    profile = (root / "profiles" / "slurm" / "config.yaml").read_text()
    words = re.search(r"#   train_model: (\{.*nodes: 2.*?\})", profile)[1]
    assert "gpu:4" in words
    adapted = profile.replace("train_model: {gpu: threads}", f"train_model: {words.replace('gpu:4', 'gpu:1')}")
    with running(nodes=2) as cluster:
        submitter = Submitter(cluster, root)
        submitter.profile = tmp_path / "profile"
        submitter.profile.mkdir()
        (submitter.profile / "config.yaml").write_text(adapted)
        yield submitter


@pytest.fixture
def untrained(undisturbed, tmp_path) -> Path:
    """A copy of the undisturbed run without the surrogate."""
    return without_surrogate(undisturbed, tmp_path / "run")


@pytest.fixture(scope="module")
def submitter(cluster, root) -> Submitter:
    return Submitter(cluster, root)
