"""Read the code blocks of the pages under docs/."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n# (\S+)\n(.*?)^```$", re.M | re.S)


def blocks(name: str) -> dict[str, str]:
    """Return file name -> content for each code block of a page whose first line is a comment with the file name."""
    return {file: content for _, file, content in BLOCK.findall((ROOT / "docs" / f"{name}.md").read_text())}
