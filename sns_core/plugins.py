"""Systems, steppers and measures of the user's own: names with a dot, `module.Name`, of files in the working directory.

All but `load` read the syntax tree of the file and run nothing, so a configuration is checked and its code fingerprinted
without torch. Every mistake is a ValueError in one line.
"""

import ast
import difflib
import importlib
import sys
from pathlib import Path

from sns_core.catalogue import NEEDS, OPTIONS, STEPPERS

Definition = ast.ClassDef | ast.FunctionDef


def is_own(name: str) -> bool:
    """Whether a name leads to a file of the user's own."""
    return "." in name


def source(module: str) -> Path | None:
    """The file of a module in the working directory; None where there is none."""
    base = Path.cwd().joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()), None)


def definition(name: str) -> Definition:
    """The class or function that `module.Name` stands for."""
    module, _, wanted = name.rpartition(".")
    path = source(module)
    if path is None:
        raise ValueError(f"{name!r}: there is no {module.replace('.', '/')}.py in {Path.cwd()}")
    try:
        found = {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, Definition)}
    except SyntaxError as error:
        raise ValueError(f"{name!r}: {path.name}, line {error.lineno}: {error.msg}") from None
    if wanted not in found:
        close = difflib.get_close_matches(wanted, found, 1, 0.5) or sorted(found)
        raise ValueError(f"{name!r}: {path.name} defines no {wanted!r}; it defines {', '.join(close) or 'nothing'}")
    return found[wanted]


def load(name: str):
    """The class or function itself."""
    definition(name)
    module, _, wanted = name.rpartition(".")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return getattr(importlib.import_module(module), wanted)


def parameters(name: str) -> tuple[list[str], list[str]] | None:
    """What a class of one's own is built from: names of all parameters of its `__init__`, and of those that must be given.

    None where its `__init__` is inherited or takes any keyword.
    """
    for node in definition(name).body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            inner = node.args
            if inner.kwarg:
                return None
            plain = [a.arg for a in inner.args[1:]]
            required = plain[: len(plain) - len(inner.defaults)]
            required += [a.arg for a, value in zip(inner.kwonlyargs, inner.kw_defaults, strict=True) if value is None]
            return plain + [a.arg for a in inner.kwonlyargs], required
    return None


def _base(name: str) -> str | None:
    """The stepper that a class of one's own is derived from: a name of the catalogue, or another one of its own file."""
    module = name.rpartition(".")[0]
    for base in definition(name).bases:
        word = ast.unparse(base).rpartition(".")[2]
        if word in STEPPERS.values():
            return next(kind for kind, known in STEPPERS.items() if known == word)
        try:
            definition(f"{module}.{word}")
        except ValueError:
            continue
        return f"{module}.{word}"
    return None


def needs_of(stepper: str) -> dict[str, tuple[str, ...]]:
    """Role of each model that a stepper asks for -> objectives: of the catalogue, of its attribute `needs`, or its base's."""
    if not is_own(stepper):
        if stepper not in NEEDS:
            raise ValueError(f"unknown stepper {stepper!r}; known: {', '.join(NEEDS)}")
        return NEEDS[stepper]
    for node in definition(stepper).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["needs"]:
            return ast.literal_eval(node.value)
    base = _base(stepper)
    return needs_of(base) if base else {}


def options_of(stepper: str) -> tuple[str, ...]:
    """Options that a stepper takes: of the catalogue, or its keyword-only arguments and, where it passes `**options` on or
    has no `__init__`, its base's."""
    if not is_own(stepper):
        return OPTIONS[stepper]
    own, inherits = [], True
    for node in definition(stepper).body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            own, inherits = [argument.arg for argument in node.args.kwonlyargs], node.args.kwarg is not None
    base = _base(stepper)
    return (*own, *(options_of(base) if base and inherits else ()))
