"""A SLURM for the tests of this folder, and the local run to which the tests compare their results."""

import os
import shutil
import tempfile
from pathlib import Path

import cluster as slurm
import pytest
from snakemake_calls import SYSTEM, snakemake
from submitted import OVERLAY, Submitter, without_surrogate


@pytest.fixture(scope="module")
def cluster():
    """The running cluster. SNS_INSTALL_SLURM=1, which `make test-slurm` sets, allows the installation of its packages."""
    if os.environ.get("SNS_INSTALL_SLURM") == "1":
        slurm.install()
    reason = slurm.hindrance()
    if reason:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # pytest's own folders may be too deep for a socket's path
    running = slurm.Cluster(folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def undisturbed(cluster, root, tmp_path_factory) -> Path:
    """A folder with the same run, made on this machine without SLURM."""
    folder = tmp_path_factory.mktemp("local")
    result = snakemake(root, folder, str(SYSTEM / "metrics/sns_windows.csv"), overlay=OVERLAY)
    assert result.returncode == 0, result.stdout[-4000:]
    return folder


@pytest.fixture
def untrained(undisturbed, tmp_path) -> Path:
    """A copy of the undisturbed run without the surrogate."""
    return without_surrogate(undisturbed, tmp_path / "run")


@pytest.fixture(scope="module")
def submitter(cluster, root) -> Submitter:
    return Submitter(cluster, root)
