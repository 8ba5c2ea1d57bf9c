"""A browser for the tests of this folder, and the page of synthetic results that it opens."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import chromium
from test_figures import LABELS, Synthetic

from sns_core.figures.explorer.write import write_explorer


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A running Chromium. SNS_INSTALL_BROWSER=1, which `make test` sets, allows the installation of Debian's package."""
    if os.environ.get("SNS_INSTALL_BROWSER") == "1":
        chromium.install()
    if reason := chromium.hindrance():
        pytest.skip(reason)
    with chromium.Browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Synthetic:
    """Results of two layers: `published` loses member 0 at step 21 and member 1 at step 30."""
    return Synthetic(tmp_path_factory.mktemp("results"), size=16, layers=("upper", "lower"))


@pytest.fixture(scope="session")
def explorer(source, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("page") / "explorer.html"
    write_explorer(
        segments=source.segments, metrics=source.metrics, reference=source.reference, labels=LABELS, members=3,
        methods=["solver", "pointwise", "published", "coloured"], megabytes=2.0, title="Synthetic", output=output,
    )  # fmt: skip
    return output
