"""Make again what the pages show of the code: the graph of rules in README.md, and docs/plane.png.

    make graph        (or python docs/refresh.py)

A test compares both with what the code gives.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"(?<=^```mermaid\n).*?(?=^```$)", re.M | re.S)


def rule_graph() -> str:
    """Snakemake's graph of the rules that lead to the report of the default run, in an order that does not change."""
    words = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--cores", "1"]
    with tempfile.TemporaryDirectory() as folder:
        line = [*words, "--directory", folder, "--rulegraph", "mermaid-js", "--", "all"]
        told = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r"^\s*(id\d+)\[(\w+)\]", told, re.M))
    edges = sorted((names[one], names[other]) for one, other in re.findall(r"^\s*(id\d+) --> (id\d+)", told, re.M))
    return "flowchart TB\n" + "".join(f"\t{one} --> {other}\n" for one, other in edges)


def plane(folder: Path) -> Path:
    """The figure of the plane of noise levels, as the workflow draws it."""
    sys.path.insert(0, str(ROOT))
    from sns_core.figures.phase_space import plot_phase_space

    plot_phase_space(dpi=110, output=folder / "plane.png")
    return folder / "plane.png"


def main() -> None:
    page = ROOT / "README.md"
    page.write_text(FENCE.sub(rule_graph(), page.read_text()))
    with tempfile.TemporaryDirectory() as folder:
        (ROOT / "docs" / "plane.png").write_bytes(plane(Path(folder)).read_bytes())


if __name__ == "__main__":
    main()
