"""Every configuration of the repository plans its run: a dry run from the repository's folder succeeds."""

import subprocess
from pathlib import Path

import pytest
import warm_python

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = sorted([*ROOT.glob("config/*.yaml"), *ROOT.glob("gallery/*/config.json")])
OF_MANY_RUNS = {"sweep.yaml": "workflow/sweep.smk"}


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_configuration_plans_its_run(path):
    snakefile = OF_MANY_RUNS.get(path.name, "Snakefile")
    line = [warm_python.executable(), "-m", "snakemake", "-s", snakefile, "--dry-run", "--quiet", "--configfile", path]
    done = subprocess.run(
        line, cwd=ROOT, env=warm_python.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
