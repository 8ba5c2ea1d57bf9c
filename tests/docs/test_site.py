"""The site of the pages: every page is in its menu, and nothing on it comes from a network.

The second test makes the site, with the packages of docs/site/requirements.txt, and is skipped without them.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pages import ROOT

LOADED = re.compile(r"""<(?:script|img|link rel="(?:stylesheet|icon)")[^>]*?(?:src|href)="(https?:[^"]+)""")
PYTHON = os.environ.get("SNS_DOCS_PYTHON", sys.executable)


def test_every_page_is_in_the_menu_once():
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = re.findall(r"[\w-]+\.md", yaml.safe_dump(menu))
    made = {"index.md", "notebook.md"}
    assert sorted(set(listed) - made) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    assert len(listed) == len(set(listed)) + 1  # index.md is the first page, and that of the reference


@pytest.mark.slow
def test_the_site_is_made_without_a_broken_link_and_loads_nothing(tmp_path):
    if subprocess.run([PYTHON, "-c", "import material, mkdocstrings, latex2mathml"], capture_output=True).returncode:
        pytest.skip("pip install -r docs/site/requirements.txt, and name its interpreter in SNS_DOCS_PYTHON")
    words = [PYTHON, "-m", "mkdocs", "build", "--quiet", "--config-file", str(ROOT / "mkdocs.yml"), "-d", str(tmp_path)]
    call = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert call.returncode == 0, call.stderr
    pages = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.html")}
    assert [(path, address) for path, text in pages.items() for address in LOADED.findall(text)] == []
    assert (
        "<math" in pages[Path("mathematics.html")]
        and "sns_core.metrics.spectra" in pages[Path("reference/sns_core.metrics.html")]
    )
    assert (tmp_path / "search/search_index.js").exists()
