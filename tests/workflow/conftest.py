"""The smoke run. The first worker makes it once for all tests of the workflow."""

import shutil
from pathlib import Path

import pytest
from helpers import build_once
from snakemake_calls import snakemake


@pytest.fixture(scope="session")
def finished(root, tmp_path_factory) -> Path:
    """A folder with the complete smoke run. Each worker has a copy, because tests call snakemake in it."""

    def build(folder: Path) -> None:
        result = snakemake(root, folder, "all")
        assert result.returncode == 0, result.stdout[-4000:]

    original = build_once(tmp_path_factory, "smoke", build)
    return Path(shutil.copytree(original, tmp_path_factory.mktemp("copy") / "smoke"))
