"""The page about other software names tests and scripts that exist; rules, captions and networks keep what it says."""

import ast
import re

import pytest
import yaml
from pages import ROOT

PAGE = (ROOT / "docs" / "other-software.md").read_text()
ROWS = [
    re.split(r"(?<!\\)\|", line)[1:-1] for line in PAGE.splitlines() if line.startswith("| ") and "held by" not in line
]
CALLS_OF_FFT = re.compile(r"\bfft|rfft|ifft")


def calls(folder: str):
    """Yield each call in the code of a folder."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path, node


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip()[:40])
def test_a_row_names_a_version_and_a_test_that_exists(row):
    software, behaviour, _, holder = (cell.strip() for cell in row)
    assert re.search(r"\d+\.\d+|bfloat16", software), software
    assert behaviour and holder
    if holder == "reader":
        return
    file, _, name = holder.strip("`").partition("::")
    code = (ROOT / file).read_text()
    assert not name or f"def {name}(" in code, holder


def test_every_script_of_the_findings_has_a_row():
    scripts = {path.name for path in (ROOT / "findings").glob("*.sh")}
    assert scripts == set(re.findall(r"\.\./findings/([\w-]+\.sh)", PAGE))


def test_every_netcdf_file_is_written_by_netcdf4():
    writers = [call for _, call in calls("sns_core") if getattr(call.func, "attr", "") == "to_netcdf"]
    assert writers
    for call in writers:
        engines = [ast.unparse(word.value) for word in call.keywords if word.arg == "engine"]
        assert engines == ["'netcdf4'"], ast.unparse(call)


@pytest.mark.parametrize("path", sorted((ROOT / "workflow" / "report").glob("*.rst")), ids=lambda path: path.name)
def test_captions_are_understood_by_docutils(path):
    core = pytest.importorskip("docutils.core")
    text = re.sub(r"\{[{%].*?[}%]\}", "", path.read_text())
    settings = {"report_level": 1, "halt_level": 1, "input_encoding": "unicode", "file_insertion_enabled": False}
    core.publish_doctree(text, settings_overrides=settings)


def test_local_rules_say_so_themselves():
    rules = "\n".join(path.read_text() for path in [ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk")])
    assert "localrules:" not in rules and rules.count("localrule: True") > 8


def test_no_rule_has_a_resource_that_is_text():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    assert set(map(str, schema["$defs"]["taken"]["properties"].values())) == {"{'$ref': '#/$defs/count'}"}
    rules = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    blocks = [block for _, block in re.findall(r"^( +)resources:\n((?:\1    .*\n)+)", rules, re.M)]
    names = {name for block in blocks for name in re.findall(r"^ +(\w+)=", block, re.M)}
    assert len(blocks) > 10 and names <= {"mem_mb", "runtime", "gpu"}, names


def test_the_profile_says_how_to_quote():
    assert "\"'2024-10'\"" in (ROOT / "profiles/slurm/config.yaml").read_text()


def test_no_network_has_an_fft_inside():
    assert not [
        ast.unparse(call) for _, call in calls("sns_core/networks") if CALLS_OF_FFT.search(ast.unparse(call.func))
    ]


def test_networks_use_the_erf_form_of_gelu():
    activations = [call for _, call in calls("sns_core/networks") if getattr(call.func, "attr", "") == "gelu"]
    assert activations and not any(call.keywords for call in activations)
