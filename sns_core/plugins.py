"""Systems, methods and metrics of the user's own: names with a dot, `module.Name`, of files in the working directory.

The methods of this project come in by the same door: `catalogue.METHODS` gives their `module.Name`. All functions but
`load` read the syntax tree of the file and run nothing, so a configuration is checked, and its code fingerprinted,
without torch. Every mistake is a ValueError in one line.
"""

import ast
import difflib
import functools
import importlib
import sys
import typing
from dataclasses import dataclass
from pathlib import Path

from sns_core import options
from sns_core.catalogue import METHODS

Definition = ast.ClassDef | ast.FunctionDef
PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Option:
    """One option of a method: its type, as `sns_core.options` understands it, and whether it must be given."""

    hint: object
    required: bool


def is_own(name: str) -> bool:
    """Whether a name leads to a file of the user's own."""
    return "." in name


def source(module: str) -> Path | None:
    """The file of a module of this package or of the working directory; None where there is none."""
    package, *rest = module.split(".")
    base = PACKAGE.joinpath(*rest) if package == PACKAGE.name else Path.cwd().joinpath(package, *rest)
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()), None)


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> ast.Module:
    """The syntax tree of a file's text: a configuration of many methods asks for few files again and again."""
    return ast.parse(text)


def definition(name: str) -> Definition:
    """The class or function that `module.Name` stands for."""
    module, _, wanted = name.rpartition(".")
    path = source(module)
    if path is None:
        raise ValueError(f"{name!r}: there is no {module.replace('.', '/')}.py in {Path.cwd()}")
    try:
        nodes = {node.name: node for node in _parsed(path.read_text()).body if isinstance(node, Definition)}
    except SyntaxError as error:
        raise ValueError(f"{name!r}: {path.name}, line {error.lineno}: {error.msg}") from None
    if wanted not in nodes:
        close = difflib.get_close_matches(wanted, nodes, 1, 0.5) or sorted(nodes)
        raise ValueError(f"{name!r}: {path.name} defines no {wanted!r}; it defines {', '.join(close) or 'nothing'}")
    return nodes[wanted]


def load(name: str):
    """The class or function itself."""
    definition(name)
    module, _, wanted = name.rpartition(".")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return getattr(importlib.import_module(module), wanted)


def parameters(name: str) -> tuple[list[str], list[str]] | None:
    """Names of all parameters of the `__init__` of a user's own class, and of those that must be given.

    None where its `__init__` is inherited or takes any keyword.
    """
    init = _function(definition(name), "__init__")
    if init is None or init.args.kwarg:
        return None
    inner = init.args
    plain = [argument.arg for argument in inner.args[1:]]
    required = plain[: len(plain) - len(inner.defaults)]
    required += [a.arg for a, value in zip(inner.kwonlyargs, inner.kw_defaults, strict=True) if value is None]
    return plain + [argument.arg for argument in inner.kwonlyargs], required


def class_of(kind: str) -> str:
    """`module.Name` of the class of a method's `kind`: a name of the catalogue, or already the user's `module.Name`."""
    if is_own(kind):
        return kind
    if kind not in METHODS:
        close = difflib.get_close_matches(kind, METHODS, 1, 0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(METHODS)}, or module.Name of your own"
        raise ValueError(f"unknown kind of method {kind!r}; {hint}")
    return METHODS[kind]


def needs_of(kind: str) -> dict[str, tuple[str, ...]]:
    """Role of each model that a kind of method needs -> objectives, from the class attribute `needs` or its base's."""
    name = class_of(kind)
    for node in definition(name).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "needs":
            return ast.literal_eval(node.value)
    base = _base(name)
    return needs_of(base) if base else {}


def options_of(kind: str) -> dict[str, Option]:
    """Options of a kind of method: the keyword-only arguments of its `build`, and its base's where `build` passes
    `**options` on or is inherited."""
    name = class_of(kind)
    build, base = _function(definition(name), "build"), _base(name)
    inherits = build is None or build.args.kwarg is not None
    taken = dict(options_of(base)) if base and inherits else {}
    if build is not None:
        arguments = zip(build.args.kwonlyargs, build.args.kw_defaults, strict=True)
        taken |= {a.arg: Option(_hint(a.annotation), default is None) for a, default in arguments}
    return taken


def check_option(kind: str, name: str, value, where: str):
    """The value of an option as the method means it. ValueError, beginning with `where`, for a value that is not allowed."""
    return options.check(value, options_of(kind)[name].hint, where)


def _function(node: Definition, name: str) -> ast.FunctionDef | None:
    body = node.body if isinstance(node, ast.ClassDef) else []
    return next((inner for inner in body if isinstance(inner, ast.FunctionDef) and inner.name == name), None)


def _base(name: str) -> str | None:
    """`module.Name` of the method from which a class is derived: one of its own file, or one of the catalogue."""
    module = name.rpartition(".")[0]
    for base in definition(name).bases:
        word = ast.unparse(base).rpartition(".")[2]
        try:
            definition(f"{module}.{word}")
        except ValueError:
            pass
        else:
            return f"{module}.{word}"
        for path in METHODS.values():
            if path.rpartition(".")[2] == word and path != name:
                return path
    return None


PLAIN = {"int": int, "float": float, "bool": bool, "str": str, "list": list, "dict": dict, "tuple": tuple}


def _hint(node: ast.expr | None):
    """The type that an annotation names, from the names of `sns_core.options`; Any for everything else. Nothing is run."""
    try:
        return _hint_of(node)
    except (KeyError, TypeError, AttributeError):
        return typing.Any


def _hint_of(node):
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return PLAIN[node.id] if node.id in PLAIN else vars(options)[node.id]
    if isinstance(node, ast.Attribute):
        return vars(options)[node.attr]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return typing.Union[_hint_of(node.left), _hint_of(node.right)]  # noqa: UP007
    if isinstance(node, ast.Subscript):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return _hint_of(node.value)[tuple(map(_hint_of, inner))]
    if isinstance(node, ast.Call):  # Bounds(0, 1)
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
        return {"Bounds": options.Bounds}[node.func.id](*map(ast.literal_eval, node.args), **keywords)
    raise KeyError(ast.dump(node) if node else "no annotation")
