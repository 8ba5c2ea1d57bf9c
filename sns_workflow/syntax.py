"""Summaries of the syntax of source files: a hash of the code, its imports, and the keyword arguments of its functions.

To parse the hundred files behind a run takes a second, as long as the rest of a call that has nothing to do. So the
summaries of this project's own files are remembered beside the compiled code that Python remembers of this package.
They are looked up by the bytes of a file, belong to one version of Python, are not written if Python writes no compiled
code, and may be deleted at any time.
"""

import ast
import functools
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sns_core.errors import UserError
from sns_core.files import write_json
from sns_core.plugins import definitions

ROOT = Path(__file__).parents[1]
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
MEMORY = Path(importlib.util.cache_from_source(__file__)).with_suffix(".json")


@dataclass(frozen=True)
class Summary:
    """The syntax of one file.

    `content`: a hash of the syntax tree without docstrings, hexadecimal. `imports`: (module, name) of each import,
    wherever it stands; the module keeps the dots of a relative import, and the name is None in `import module`.
    `keywords`: function -> (name, annotation, whether it has no default) of each of its keyword-only arguments.
    """

    content: str
    imports: list[tuple[str, str | None]]
    keywords: dict[str, list[tuple[str, str, bool]]]


def summary(path: Path) -> Summary:
    """Return the summary of a file. Raises ValueError, which names the file, if the file is no Python in UTF-8."""
    ours = path.is_relative_to(ROOT)
    return definitions.parse(path, functools.partial(_recall, str(path.relative_to(ROOT))) if ours else summarise)


@functools.lru_cache(maxsize=1024)
def summarise(text: str) -> Summary:
    """Return the summary of the text of a file. Raises SyntaxError."""
    statements = list(_statements(ast.parse(text)))
    for node in statements:
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    content = hashlib.sha256(ast.dump(statements[0]).encode()).hexdigest()
    imports, keywords = [], {}
    for node in statements:
        if isinstance(node, ast.ImportFrom):
            imports += [("." * node.level + (node.module or ""), alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            imports += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.FunctionDef) and node.args.kwonlyargs:
            pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            keywords[node.name] = [
                (a.arg, ast.unparse(a.annotation) if a.annotation else "", d is None) for a, d in pairs
            ]
    return Summary(content, imports, keywords)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the module and all statements in it, wherever they stand.

    `ast.walk` also yields expressions: ten times as many.
    """
    nodes = [tree]
    for node in nodes:
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            nodes += getattr(node, field, ())
        yield node


# The memory: file of the project -> {"bytes": hash of its text, and the fields of its summary}.


@functools.cache
def _memory() -> dict[str, dict]:
    """Return what the last call remembered, or {} if there is no memory or another version of this file wrote it."""
    try:
        memory = json.loads(MEMORY.read_text())
        return memory["files"] if memory["written_by"] == _own_hash() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


_news: set[str] = set()  # files whose summaries this call made


def _recall(name: str, text: str) -> Summary:
    digest = hashlib.sha256(text.encode()).hexdigest()
    entry = _memory().get(name, {})
    if entry.get("bytes") != digest:
        entry = _memory()[name] = {"bytes": digest, **asdict(summarise(text))}
        _news.add(name)
    imports = [tuple(pair) for pair in entry["imports"]]
    keywords = {name: [tuple(argument) for argument in arguments] for name, arguments in entry["keywords"].items()}
    return Summary(entry["content"], imports, keywords)


def remember() -> None:
    """Write the new summaries for the next call, where Python may write its compiled code."""
    if _news and not sys.dont_write_bytecode:
        _news.clear()
        try:
            write_json(MEMORY, {"written_by": _own_hash(), "files": _memory()})
        except (OSError, UserError):  # a folder in which this user may not write, or a full disk
            return


@functools.cache
def _own_hash() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
