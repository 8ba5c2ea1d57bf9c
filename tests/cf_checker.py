"""The verdict of the checker of IOOS on netCDF files; tests that ask for it are skipped where it is not installed."""

import json
from pathlib import Path

import pytest

# The checker's version 6.1 asks every dimension called time for times since a date (ioos/compliance-checker issue 1245).
NO_DATE = "Coordinate variable 'time' should have standard_name='time', found: 'None'"


def cf_faults(path: Path, folder: Path) -> set[str]:
    """Return the messages of high and medium priority on a file, all but NO_DATE; the verdict is written into the folder."""
    runner = pytest.importorskip("compliance_checker.runner")
    runner.CheckSuite.load_all_available_checkers()
    output = folder / "verdict.json"
    runner.ComplianceChecker.run_checker(
        str(path), ["cf:1.10"], 0, "normal", output_filename=str(output), output_format="json"
    )
    verdict = json.loads(output.read_text())["cf:1.10"]
    groups = [group for kind in ("high", "medium") for group in verdict[f"{kind}_priorities"]]
    return {message for group in groups for message in _messages(group)} - {NO_DATE}


def _messages(group: dict) -> list[str]:
    """Return the messages of a group of checks and of those below it; a check that holds has none."""
    return [*group["msgs"], *(message for child in group["children"] for message in _messages(child))]
