"""Every configuration of the repository plans its run: a dry run succeeds."""

import subprocess
from pathlib import Path

import pytest
import warm_python
from helpers import write_shallow_water

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = sorted([*ROOT.glob("config/*.yaml"), *ROOT.glob("gallery/*/config.json")])
OF_MANY_RUNS = {"sweep.yaml": "workflow/sweep.smk"}


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_configuration_plans_its_run(path, tmp_path):
    folder = ROOT
    if path.name == "shallow-water.yaml":  # its files are made first
        folder = tmp_path
        write_shallow_water(folder)
    snakefile = ROOT / OF_MANY_RUNS.get(path.name, "Snakefile")
    line = [warm_python.executable(), "-m", "snakemake", "-s", snakefile, "-d", folder, "--dry-run", "--quiet"]
    done = subprocess.run(
        [*line, "--configfile", path], cwd=ROOT, env=warm_python.environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
