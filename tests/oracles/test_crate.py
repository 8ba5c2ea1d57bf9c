"""The package of a run against the validator of RO-Crates.

    python -m venv crate && crate/bin/pip install -r tests/oracles/requirements-crate.txt
    SNS_CRATE_PYTHON=crate/bin/python python -m pytest tests/oracles/test_crate.py

The validator pins libraries that this project uses in other versions, so it has an environment of its own. Without one
the test is skipped.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import make_run

from sns_workflow.publish import main

PYTHON = os.environ.get("SNS_CRATE_PYTHON", sys.executable)


def test_a_package_is_a_valid_provenance_run_crate(tmp_path):
    look = "from importlib.util import find_spec; assert find_spec('rocrate') and find_spec('rocrate_validator')"
    if subprocess.run([PYTHON, "-c", look], capture_output=True).returncode:
        pytest.skip("roc-validator is not installed (see the first lines of this file)")
    assert main([str(make_run(tmp_path / "a")), "--creators", "Doe, Jane"]) == 0
    words = [PYTHON, str(Path(__file__).with_name("crate_validation.py")), str(tmp_path / "a.zip")]
    call = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    assert call.returncode == 0, call.stdout + call.stderr
    assert "RECOMMENDED" in call.stdout  # the validator has looked: it misses the authors' affiliations
