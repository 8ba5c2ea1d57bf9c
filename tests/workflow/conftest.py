"""The smoke run, made once for all tests of the workflow."""

from pathlib import Path

import pytest
from snakemake_calls import snakemake


@pytest.fixture(scope="session")
def finished(root, tmp_path_factory) -> Path:
    """A folder in which the smoke run is complete."""
    folder = tmp_path_factory.mktemp("smoke")
    result = snakemake(root, folder, "all")
    assert result.returncode == 0, result.stdout[-4000:]
    return folder
