"""What the pages under docs/ show as code."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n# (\S+)\n(.*?)^```$", re.M | re.S)


def blocks(name: str) -> dict[str, str]:
    """File name -> content of each code block of a page that names its file in a first comment."""
    return {file: content for _, file, content in BLOCK.findall((ROOT / "docs" / f"{name}.md").read_text())}
