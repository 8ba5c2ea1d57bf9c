"""Make again the parts of the pages that show the code: the graph of rules in docs/code-tour.md, and docs/plane.png.

    make graph        (or python docs/refresh.py)

A test compares both with the code. The pictures of docs/library.ipynb are not made here but by Jupyter, which is not among
the locked packages: jupyter nbconvert --to notebook --execute --inplace docs/library.ipynb
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "code-tour.md"
FENCE = re.compile(r"(?<=^```mermaid\n).*?(?=^```$)", re.M | re.S)


def rule_graph() -> str:
    """Return Snakemake's graph of the rules behind the report of the default run, as Mermaid text with sorted edges."""
    words = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--cores", "1"]
    with tempfile.TemporaryDirectory() as folder:
        line = [*words, "--directory", folder, "--rulegraph", "mermaid-js", "--", "all"]
        output = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r"^\s*(id\d+)\[(\w+)\]", output, re.M))
    arrows = re.findall(r"^\s*(id\d+) --> (id\d+)", output, re.M)
    edges = sorted((names[source], names[target]) for source, target in arrows)
    return "flowchart TB\n" + "".join(f"\t{source} --> {target}\n" for source, target in edges)


def plane(folder: Path) -> Path:
    """Draw the plane of noise levels into `folder`, as the workflow draws it, and return the path of the picture."""
    sys.path.insert(0, str(ROOT))
    from sns_core.figures.phase_space import plot_phase_space

    plot_phase_space(dpi=110, output=folder / "plane.png")
    return folder / "plane.png"


def main() -> None:
    PAGE.write_text(FENCE.sub(rule_graph(), PAGE.read_text()))
    with tempfile.TemporaryDirectory() as folder:
        (ROOT / "docs" / "plane.png").write_bytes(plane(Path(folder)).read_bytes())


if __name__ == "__main__":
    main()
