"""Fingerprints of the code behind each stage, so that an edit reruns exactly the stages that use it.

The fingerprint of a stage is a hash over the syntax trees of the module that defines it and of every sns_core module
that those import, followed to the module that defines each imported name. Comments, docstrings and formatting are not
part of a syntax tree (docstrings are dropped), so editing them reruns nothing.
"""

import functools
import hashlib
import os
from pathlib import Path

from sns_core.catalogue import SYSTEMS
from sns_core.plugins import definitions
from sns_core.stages import STAGES
from sns_workflow.syntax import Summary, remember, summary

ROOT = Path(__file__).parents[1]
PACKAGE = "sns_core"
# Which of their entries a stage uses stands in its parameters. So do the values of options: their annotations and
# checks change no number.
PLUGINS = {f"sns_core.plugins{name}" for name in ("", ".annotations", ".classes", ".definitions")}
TABLES = {"sns_core.catalogue", "sns_core.options", "sns_core.stages", *PLUGINS}


def _file(module: str) -> Path | None:
    """The file of a module of the package, or of the user's own in the working directory; None for any other."""
    return _file_seen_from(os.getcwd(), module)


@functools.cache  # a call asks for some thousands of names, most of them again and again
def _file_seen_from(folder: str, module: str) -> Path | None:
    if module.split(".")[0] != PACKAGE:
        return definitions.source(module)
    base = ROOT.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


@functools.cache
def _summary(module: str) -> Summary:
    return summary(_file(module))


@functools.cache
def _imports(module: str) -> list[tuple[str, str | None]]:
    """(module, name) of every import in a module of the package or the user's own, wherever it stands."""
    pairs = [
        (definitions.absolute(module, _file(module), imported), name) for imported, name in _summary(module).imports
    ]
    # A folder without an __init__.py is no file, and `from folder import name` may name a file in it.
    return [(imported, name) for imported, name in pairs if _file(imported) or (name and _file(f"{imported}.{name}"))]


def _defining(module: str, name: str | None) -> str:
    """The module that defines the `name` which `module` uses, through the re-exports of package files."""
    if name is None:
        return module
    if _file(f"{module}.{name}"):
        return f"{module}.{name}"
    if _file(module).name == "__init__.py":
        for source, exported in _imports(module):
            if exported == name:
                return _defining(source, name)
    return module


@functools.cache
def _used_by(module: str) -> set[str]:
    """The modules that define what a module imports."""
    return {_defining(*imported) for imported in _imports(module)}


@functools.cache
def modules(stage: str, *names: str) -> tuple[str, ...]:
    """Names of the modules that a stage uses, sorted; `names`: of a system's class, or anything of the user's own."""
    visited = set(TABLES)
    queue = [STAGES[stage], *(SYSTEMS.get(name) or name.rpartition(".")[0] for name in names)]
    while queue:
        module = queue.pop()
        if module not in visited:
            visited.add(module)
            queue += _used_by(module)
            if module.split(".")[0] != PACKAGE:
                queue += filter(_file, definitions.packages_around(module))
    return tuple(sorted(visited - TABLES))


def keywords(stage: str) -> list[tuple[str, str, bool]]:
    """Return (name, annotation, whether it has no default) of each keyword-only argument of a stage's function."""
    return _summary(STAGES[stage]).keywords[stage]


def builds_systems(stage: str) -> bool:
    """Whether a stage can build a system: the class of the system is part of its code only then."""
    return _defining("sns_core.systems", "build_system") in modules(stage)


@functools.cache
def fingerprint(stage: str, *names: str, templates: tuple[str, ...] = ()) -> str:
    """Return twelve hexadecimal digits that change when the code of a stage changes (see `modules`).

    `templates`: files of the package that the stage fills in, by their paths below it; all of their text counts.
    """
    content = "\n".join(
        [
            *(f"{module}: {_summary(module).content}" for module in modules(stage, *names)),
            *(f"{name}: {(ROOT / PACKAGE / name).read_text()}" for name in templates),
        ]
    )
    remember()
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def forget() -> None:
    """Read all files anew from here on."""
    for cached in (_file_seen_from, _summary, _imports, _used_by, modules, fingerprint):
        cached.cache_clear()
