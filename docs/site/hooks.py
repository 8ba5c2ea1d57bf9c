"""Hooks that turn the pages of docs/ into the pages of the site (mkdocs.yml).

The pages are written for a reader of the repository. On the site, the README is the first page, links to modules lead to
the reference, links to other files of the repository are plain text, formulas become MathML, and the graph of rules is a
list. Each room of `sns_core` has a page of its docstrings, and the notebook a page with its pictures.
"""

import json
import re
import shutil
from html import escape
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
SHIM, WORKER = "https://unpkg.com/iframe-worker/shim", "assets/worker.js"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#|data:)([^)#\s]+)(#[^)]*)?\)")
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?! )([^$\n]+?(?:\n[^$\n]+?)?)(?<! )\$(?![\w$])", re.S)
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.M | re.S)
MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.M | re.S)


def rooms() -> list[str]:
    """Return the dotted names of the modules of `sns_core`, in the order of their names."""
    paths = [path for path in sorted((ROOT / "sns_core").rglob("*.py")) if path.name != "__main__.py"]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names]


def page_of(module: str) -> str:
    """Return the page of the reference that shows a module: that of its room."""
    return f"reference/{'.'.join(module.split('.')[:2])}.md"


def on_files(files: Files, config) -> Files:
    """Add the first page, the reference and the notebook's page to the pages of docs/."""
    readme = (ROOT / "README.md").read_text().replace("](docs/", "](")
    pages = {"index.md": readme, "notebook.md": notebook_page(ROOT / "docs/library.ipynb")}
    by_page: dict[str, list[str]] = {}
    for name in rooms():
        by_page.setdefault(page_of(name), []).append(name)
    for page, names in by_page.items():
        title = page.removeprefix("reference/").removesuffix(".md")
        pages[page] = f"# {title}\n\n" + "\n\n".join(f"::: {name}" for name in names) + "\n"
    listed = "\n".join(f"- [{page[10:-3]}]({page[10:]})" for page in by_page)
    pages["reference/index.md"] = f"# Reference\n\nEvery module of the package, from its docstrings.\n\n{listed}\n"
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Return the text of a page with the links, formulas and graphs of the site."""
    markdown = MERMAID.sub(lambda match: as_list(match.group(1)), markdown)
    parts = CODE.split(markdown)
    parts[::2] = [FORMULA.sub(as_mathml, part) for part in parts[::2]]
    text = "".join(parts)
    return LINK.sub(lambda match: as_link(match, page.file.src_uri, files), text)


def on_post_page(output: str, page, config) -> str:
    """Return a page that takes the search's worker from the site, and nothing from a network."""
    return output.replace(SHIM, "../" * page.url.count("/") + WORKER)


def on_post_template(output: str, template_name: str, config) -> str:
    """Return a page without a source of its own, such as that of a missing page, in the same way."""
    return output.replace(SHIM, WORKER)


def on_post_build(config) -> None:
    """Add the search's worker to the site."""
    shutil.copyfile(Path(__file__).with_name("worker.js"), Path(config.site_dir) / WORKER)


def as_link(match: re.Match, source: str, files: Files) -> str:
    """Return a link as the site has it: to a page, to the reference, or its words alone."""
    picture, words, target, anchor = match.groups()
    if source.startswith("reference/") or (source == "notebook.md" and picture):
        return match.group()
    folder = ROOT if source == "index.md" and not (ROOT / "docs" / target).exists() else ROOT / "docs"
    path = (folder / target).resolve()
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else target
    if name == "README.md":
        name = "docs/index.md"
    if name == "docs/library.ipynb":
        name = "docs/notebook.md"
    if name.startswith("sns_core"):
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if module in rooms():
            return f"[{words}]({page_of(module)}#{module})"
    inside = name.removeprefix("docs/") if name.startswith("docs/") else ""
    if inside and files.get_file_from_path(inside):
        return f"{picture}[{words}]({inside}{anchor or ''})"
    return words


def as_mathml(match: re.Match) -> str:
    """Return a formula of TeX as MathML, which browsers show without a script."""
    block, inline = match.groups()
    formula = convert(" ".join((block or inline).split()), display="block" if block else "inline")
    # Markdown takes a line that begins with <math> for a block of its own, and one with <span> for text.
    return formula if block else f"<span>{formula}</span>"


def as_list(graph: str) -> str:
    """Return a graph of Mermaid's text as a list, one line per node with those that it leads to."""
    arrows: dict[str, list[str]] = {}
    for start, end in re.findall(r"^\s*(\w+) --> (\w+)$", graph, re.M):
        arrows.setdefault(start, []).append(end)
    return "\n".join(f"- `{start}` leads to {', '.join(f'`{end}`' for end in ends)}" for start, ends in arrows.items())


def notebook_page(path: Path) -> str:
    """Return a notebook as a page: its texts, its code, and the outputs that are stored in it."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                content = "".join("".join(data["image/png"]).split())
                parts.append(f'<img alt="output of the cell above" src="data:image/png;base64,{content}">')
            elif "text" in output:
                parts.append(f"<pre>{escape(''.join(output['text']))}</pre>")
    return "\n\n".join(parts) + "\n"
