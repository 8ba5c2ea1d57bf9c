"""The pages agree with the code: messages, links, floors of the package, the graph of rules, the plane."""

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

import sns_core
from sns_workflow.configuration import merge, validate

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDER_PAGES = [ROOT / "envs/README.md", ROOT / "results/README.md", *sorted(ROOT.glob("gallery/*/README.md"))]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")
BY_SNAKEMAKE = {
    "Directory cannot be locked",
    "MissingInputException",
    "BUG: Out of jobs ready to be started",
    "Config file must be given as JSON or YAML with keys at top level.",
    "file is not valid JSON or YAML.",
    "Config entry must start with a valid identifier.",
    "Config entries have to be defined as name=value pairs.",
}


def strings_of(folder: Path) -> str:
    """Join all strings of the Python code under a folder. Of an f-string, take the text without the values."""
    nodes = [node for path in folder.glob("**/*.py") for node in ast.walk(ast.parse(path.read_text()))]
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def messages() -> list[str]:
    """List the messages between accents in the first column of the page's tables."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row) if not message.startswith("verify")]


@pytest.fixture(scope="module")
def words() -> str:
    rules = [path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk")]
    packages = [strings_of(ROOT / name) for name in ("sns_core", "workflow", "sns_workflow")]
    return "\n".join([*packages, *rules])


@pytest.mark.parametrize("message", messages())
def test_the_code_holds_every_message_of_the_page_of_troubleshooting(words, message):
    if message in BY_SNAKEMAKE:
        folder = Path(snakemake.__file__).parent
        assert any(
            message in (folder / name).read_text()
            for name in (
                "exceptions.py",
                "cli.py",
                "workflow.py",
                "dag.py",
                "common/configfile.py",
                "scheduling/job_scheduler.py",
            )
        )
        return
    parts = [part.strip() for part in message.split("…") if len(part.strip()) > 3]
    assert parts and all(part in words for part in parts), [part for part in parts if part not in words]


def test_the_page_of_troubleshooting_has_messages():
    assert len(messages()) > 20


@pytest.mark.parametrize("page", [*PAGES, *FOLDER_PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(page):
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


def test_the_tour_lists_every_room_once_from_the_top_floor_down():
    page = (ROOT / "docs" / "code-tour.md").read_text()
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ", page, re.M)
    rows = [re.findall(r"\w+", row) for row in rows]
    package = ROOT / "sns_core"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    rooms |= {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert sorted(room for row in rows for room in row) == sorted(rooms)
    listed = re.findall(r"^ +(\d+)  (\w.*)$", sns_core.__doc__, re.M)
    floors = {room.strip(): int(floor) for floor, names in listed for room in names.split(",")}
    highest = [max(floors.get(room, 0) for room in row) for row in rows]
    assert highest == sorted(highest, reverse=True)


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("add-a-method", "held.yaml"),
        ("external-rollouts", "mine.yaml"),
        ("your-own-flow", "surrogate.yaml"),
    ],
)
def test_configurations_of_the_pages_are_valid(config, page, file):
    validate(merge(config, yaml.safe_load(blocks(page)[file])))


def test_the_surrogate_of_a_users_flow_is_the_one_that_was_measured(config):
    """The page leaves out what repeats a default of the objective."""
    shown = yaml.safe_load(blocks("your-own-flow")["surrogate.yaml"])["models"]["dissipative"]
    measured = merge(config, yaml.safe_load((ROOT / "config" / "rivals.yaml").read_text()))["models"]["dissipative"]
    assert {key: measured[key] for key in shown} == shown


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_name_files_of_the_repository(page):
    """Configurations, modules and make targets in the code blocks exist. A name without a folder is a reader's own file."""
    code = "\n".join(re.findall(r"^```\n(.*?)^```$", page.read_text(), re.M | re.S))
    for path in re.findall(r"(?:--configfile|-s|--workflow-profile) (\w+/[\w./-]+)", code):
        assert (ROOT / path).exists(), path
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"^make ([\w-]+)", code, re.M)) <= set(targets)


@pytest.fixture(scope="module")
def refresh():
    spec = importlib.util.spec_from_file_location("refresh", ROOT / "docs" / "refresh.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_graph_of_rules_is_current(refresh):
    shown = refresh.FENCE.findall(refresh.PAGE.read_text())
    assert shown == [refresh.rule_graph()], "the rules have changed: run `make graph`"


def test_the_plane_is_current(refresh, tmp_path):
    drawn, shown = (matplotlib.image.imread(path) for path in (refresh.plane(tmp_path), ROOT / "docs" / "plane.png"))
    assert drawn.shape == shown.shape and np.abs(drawn - shown).mean() < 1e-3, "run `make graph`"
