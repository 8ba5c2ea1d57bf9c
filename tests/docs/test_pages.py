"""What the pages say is what the code says: messages, links, the graph of rules, the plane."""

import ast
import importlib.util
import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import snakemake
import yaml
from pages import ROOT, blocks

from sns_workflow.configuration import merge, validate

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")
BY_SNAKEMAKE = {"Directory cannot be locked", "MissingInputException"}


def told(folder: Path, pattern: str = "**/*.py") -> str:
    """Every string of the code under a folder, f-strings without their values, one after the other."""
    found = []
    for path in folder.glob(pattern):
        tree = ast.parse(path.read_text())
        found += [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    return "\n".join(found)


def messages() -> list[str]:
    """The messages in the first column of the tables of the page, as they stand between the accents."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row) if not message.startswith("verify")]


@pytest.fixture(scope="module")
def words() -> str:
    return told(ROOT / "sns_core") + told(ROOT / "workflow") + (ROOT / "workflow/rules/common.smk").read_text()


@pytest.mark.parametrize("message", messages())
def test_every_message_of_troubleshooting_is_one_of_the_codes(words, message):
    if message in BY_SNAKEMAKE:
        folder = Path(snakemake.__file__).parent
        assert any(
            message in (folder / name).read_text() for name in ("exceptions.py", "cli.py", "workflow.py", "dag.py")
        )
        return
    parts = [part.strip() for part in message.split("…") if len(part.strip()) > 3]
    assert parts and all(part in words for part in parts), [part for part in parts if part not in words]


def test_the_page_of_troubleshooting_has_messages():
    assert len(messages()) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target, _ in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_anchors_are_headings(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*\.md|)#([^)]+)\)", page.read_text()):
        text = ((page.parent / target) if target else page).read_text()
        headings = [re.sub(r"[^\w\- ]", "", line.lstrip("# ")).strip() for line in re.findall(r"^#+ .*", text, re.M)]
        assert anchor in [heading.lower().replace(" ", "-") for heading in headings], f"{page.name}: #{anchor}"


def test_every_page_is_listed_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in readme] == []


def test_the_first_method_of_the_page_is_a_valid_configuration(config):
    validate(merge(config, yaml.safe_load(blocks("add-a-method")["held.yaml"])))


@pytest.fixture(scope="module")
def refresh():
    spec = importlib.util.spec_from_file_location("refresh", ROOT / "docs" / "refresh.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_graph_of_rules_is_current(refresh):
    shown = refresh.FENCE.findall((ROOT / "README.md").read_text())
    assert shown == [refresh.rule_graph()], "the rules have changed: run `make graph`"


def test_the_plane_is_current(refresh, tmp_path):
    drawn, shown = (matplotlib.image.imread(path) for path in (refresh.plane(tmp_path), ROOT / "docs" / "plane.png"))
    assert drawn.shape == shown.shape and np.abs(drawn - shown).mean() < 1e-3, "run `make graph`"
