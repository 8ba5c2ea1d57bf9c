"""Systems, methods and metrics of the user's own: names with a dot, `module.Name`, of files in the working directory.

The methods of this project come in by the same door: `catalogue.METHODS` gives their `module.Name`. All functions but
`load` read the syntax tree of the file and run nothing, so a configuration is checked, and its code fingerprinted,
without torch. Every mistake is a ValueError in one line.
"""

import ast
import difflib
import functools
import importlib
import itertools
import os
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sns_core import options
from sns_core.catalogue import METHODS, OBJECTIVES

Definition = ast.ClassDef | ast.FunctionDef
Parsed = typing.TypeVar("Parsed")
PACKAGE = Path(__file__).parent
ABSENT = object()


@dataclass(frozen=True)
class Option:
    """One option of a method: its type, as `sns_core.options` understands it, and whether it must be given.

    `default`: the value of an option that is left out; ABSENT where the file does not state it as a literal.
    """

    hint: object
    required: bool
    default: object = ABSENT


def is_own(name: str) -> bool:
    """Whether a name leads to a file of the user's own."""
    return "." in name


def source(module: str) -> Path | None:
    """The file of a module of this package or of the working directory; None where there is none."""
    package, *rest = module.split(".")
    base = os.path.join(PACKAGE if package == PACKAGE.name else os.path.join(os.getcwd(), package), *rest)
    return next((Path(path) for path in (f"{base}.py", f"{base}/__init__.py") if os.path.exists(path)), None)


def parse(path: Path, parser: Callable[[str], Parsed] = ast.parse) -> Parsed:
    """Return the syntax tree of a file, or what `parser` makes of its text.

    Raises ValueError, which names the file, where it is no Python in UTF-8.
    """
    try:
        return parser(path.read_text(encoding="utf-8-sig"))
    except SyntaxError as error:
        raise ValueError(f"{path.name}, line {error.lineno or 1}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: is not UTF-8 text, byte {error.start + 1} is none; save it as UTF-8") from None
    except OSError as error:
        raise ValueError(f"{path.name}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a file with null bytes
        raise ValueError(f"{path.name}: {error}") from None


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> ast.Module:
    """Return the syntax tree of a file's text: a configuration of many methods asks for few files again and again."""
    return ast.parse(text)


def definition(name: str) -> Definition:
    """The class or function that `module.Name` stands for."""
    module, _, wanted = name.rpartition(".")
    if not module or not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"{name!r}: is not module.Name, of a file in the working directory")
    first = module.partition(".")[0]
    if first in sys.stdlib_module_names:
        raise ValueError(
            f"{name!r}: Python has a module {first!r} itself, and would import that one; rename {first}.py"
        )
    path = source(module)
    if path is None:
        raise ValueError(f"{name!r}: there is no {module.replace('.', '/')}.py in {Path.cwd()}")
    try:
        nodes = {node.name: node for node in parse(path, _parsed).body if isinstance(node, Definition)}
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from None
    if wanted not in nodes:
        close = difflib.get_close_matches(wanted, nodes, 1, 0.5) or sorted(nodes)
        raise ValueError(f"{name!r}: {path.name} defines no {wanted!r}; it defines {', '.join(close) or 'nothing'}")
    return nodes[wanted]


def constant(module: str, name: str):
    """Return the value that a module of this package assigns to a name, a literal, without running the module."""
    assignments = (node for node in parse(source(module), _parsed).body if isinstance(node, ast.Assign))
    return ast.literal_eval(next(node.value for node in assignments if getattr(node.targets[0], "id", None) == name))


def files_behind(name: str) -> list[Path]:
    """Return the files of the user's own behind a name: its file and the files of the working directory that it imports.

    Their code is fingerprinted. Raises ValueError, which names the file, where one of them cannot be read.
    """
    waiting, done = [name.rpartition(".")[0]], {}
    while waiting:
        module = waiting.pop()
        path = source(module)
        if path is None or module in done or module.split(".")[0] == PACKAGE.name:
            continue
        done[module] = path
        for node in ast.walk(parse(path, _parsed)):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                origin = absolute(module, path, "." * node.level + (node.module or ""))
                waiting += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return list(done.values())


def absolute(module: str, path: Path, imported: str) -> str:
    """Return the full name of a module that `from <imported> import …` in the file `path` of `module` names, perhaps by dots."""
    name = imported.lstrip(".")
    level = len(imported) - len(name)
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    above = package[: len(package) - level + 1] if level else []
    return ".".join([*above, *([name] if name else [])])


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


def short_name(name: str) -> str:
    """Return `Name` of `module.Name`: the name of a metric in files and tables."""
    return name.rpartition(".")[2]


def class_of(kind: str) -> str:
    """`module.Name` of the class of a method's `kind`: a name of the catalogue, or already the user's `module.Name`."""
    return _class_of(kind, METHODS, "kind of method")


def objective_class(objective: str) -> str:
    """`module.Name` of the class of a model's `objective`: a name of the catalogue, or already the user's `module.Name`."""
    return _class_of(objective, OBJECTIVES, "objective")


def _class_of(name: str, catalogue: dict[str, str], noun: str) -> str:
    if is_own(name):
        return name
    if name not in catalogue:
        close = difflib.get_close_matches(name, catalogue, 1, 0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(catalogue)}, or module.Name of your own"
        raise ValueError(f"unknown {noun} {name!r}; {hint}")
    return catalogue[name]


def check_class(name: str, noun: str, root: str, needed: tuple[str, ...], derived: bool = False) -> None:
    """Raise ValueError for a class `module.Name` of the user's own that cannot serve, as far as its file says so.

    `noun`: what the class is; `root`: `module.Name` of the class from which such classes derive; `needed`: what it must
    define, alternatives with a bar between them; `derived`: whether it must derive from `root`. Where a base lies in a
    file that cannot be read here, that base may define the rest.
    """
    article = "an" if noun[0] in "aeiou" else "a"
    if not isinstance(definition(name), ast.ClassDef):
        raise ValueError(f"{name!r}: is a function, and {article} {noun} is a class")
    names = _lineage(name)
    above = [each for each in names if each != root]
    _check_build(name, above)
    if any(len(definition(each).bases) > len(list(_bases(each))) for each in above):
        return
    if derived and root not in names:
        package, _, short = root.rpartition(".")
        raise ValueError(f"{name!r}: is no {noun}; derive it from {package.rpartition('.')[0]}.{short}")
    defined = {each for ancestor in above for each in _names_in(definition(ancestor))}
    for alternatives in needed:
        words = alternatives.split("|")
        if not defined & set(words):
            raise ValueError(f"{name!r}: defines no {' or '.join(words)}, which every {noun} needs; define it")


def _check_build(name: str, names: list[str]) -> None:
    """Raise ValueError where the `build` of a class, or of the first of `names` that has one, is called without its class."""
    build = next(filter(None, (_function(definition(each), "build") for each in names)), None)
    first = build.args.args[0].arg if build and build.args.args else ""
    if first in ("cls", "self") and not build.decorator_list:
        raise ValueError(
            f"{name!r}: its build is no class method; write @classmethod above it, and cls as its first argument"
        )


def _names_in(node: ast.ClassDef) -> set[str]:
    """Return the names of all functions in a class, and all names to which it assigns."""
    inner = [*ast.walk(node)]
    stored = {each.id for each in inner if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    return stored | {each.name for each in inner if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


def check_metric(name: str) -> None:
    """Raise ValueError where `module.name` of the user's own is no function that can be called with (frames, system)."""
    function = definition(name)
    if not isinstance(function, ast.FunctionDef):
        raise ValueError(f"{name!r}: is a class, and a metric is a function of frames and system")
    inner = function.args
    taken = [argument.arg for argument in (*inner.posonlyargs, *inner.args)]
    without = [a.arg for a, value in zip(inner.kwonlyargs, inner.kw_defaults, strict=True) if value is None]
    enough = len(taken) >= 2 or inner.vararg
    if not function.decorator_list and (not enough or len(taken) - len(inner.defaults) > 2 or without):
        words = ", ".join([*taken, *without]) or "nothing"
        raise ValueError(f"{name!r}: takes {words}; a metric is called with two arguments, frames and system")


def needs_of(kind: str) -> dict[str, tuple[str, ...]]:
    """Role of each model that a kind of method needs -> objectives, from the class attribute `needs` or its base's."""
    return class_needs(class_of(kind))


def class_needs(name: str) -> dict[str, tuple[str, ...]]:
    """The same for the class `module.Name` of a method or an objective."""
    return next((_needs(ancestor, value) for ancestor, value in _attributes(name, "needs")), {})


def is_calibrated(kind: str) -> bool:
    """Whether a kind of method is measured before it runs, from the class attribute `calibrated` or its base's."""
    return class_is_calibrated(class_of(kind))


def class_is_calibrated(name: str) -> bool:
    """The same for the class `module.Name` of a method, or of an objective, which reads the calibration of a method."""
    return any(value is True for _, value in itertools.islice(_attributes(name, "calibrated"), 1))


def _attributes(name: str, attribute: str) -> Iterator[tuple[str, object]]:
    """Give (class, literal value) of a class attribute of the class `module.Name`, the class's own first."""
    for ancestor in _lineage(name):
        for node in definition(ancestor).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(target, ast.Name) and target.id == attribute and node.value is not None:
                yield ancestor, _literal(node.value)


def _needs(name: str, value) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict) or not all(
        isinstance(role, str)
        and isinstance(objectives, tuple | list)
        and all(isinstance(objective, str) for objective in objectives)
        for role, objectives in value.items()
    ):
        raise ValueError(
            f"{name!r}: needs must be a literal dict, of roles and tuples of objectives, such as "
            '{"surrogate": ("pointwise",)}'
        )
    return {role: tuple(objectives) for role, objectives in value.items()}


def options_of(kind: str) -> dict[str, Option]:
    """Options of a kind of method (see `build_options`)."""
    return build_options(class_of(kind))


def build_options(name: str) -> dict[str, Option]:
    """Options of a class `module.Name`: the keyword-only arguments of its `build`, and its base's where `build` passes
    `**options` on or is inherited."""
    taken = {}
    for ancestor in _lineage(name):
        build = _function(definition(ancestor), "build")
        if build is None:
            continue
        hint_of = Annotations(ancestor.rpartition(".")[0]).hint
        for argument, default in zip(build.args.kwonlyargs, build.args.kw_defaults, strict=True):
            value = ABSENT if default is None else _literal(default)
            taken.setdefault(argument.arg, Option(hint_of(argument.annotation), default is None, value))
        if build.args.kwarg is None:
            break
    return taken


def check_option(kind: str, name: str, value, where: str):
    """The value of an option as the method means it. ValueError, beginning with `where`, for a value that is not allowed."""
    return options.check(value, options_of(kind)[name].hint, where)


def default_of(option: Option):
    """Return the value of an option that is left out, as the configuration would state it; ABSENT where it is unknown."""
    try:
        return options.check(option.default, option.hint, "default")
    except (ValueError, OverflowError):  # `factor: float = None` says more than its annotation
        return option.default


def _literal(node: ast.expr):
    """Return the value of an expression of constants; ABSENT for any other expression."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ABSENT


def _function(node: Definition, name: str) -> ast.FunctionDef | None:
    body = node.body if isinstance(node, ast.ClassDef) else []
    return next((inner for inner in body if isinstance(inner, ast.FunctionDef) and inner.name == name), None)


def _lineage(name: str) -> list[str]:
    """Return `module.Name` of a class and of the classes that it is derived from, in the order of inheritance.

    Bases from elsewhere are left out. Raises ValueError where `name` is a function or the bases lead in a circle.
    """

    def ancestors(name: str, above: tuple[str, ...]) -> Iterator[str]:
        if name in above:
            raise ValueError(f"{above[0]!r}: its bases lead in a circle: {', '.join((*above, name))}")
        yield name
        for base in _bases(name):
            yield from ancestors(base, (*above, name))

    if not isinstance(definition(name), ast.ClassDef):
        raise ValueError(f"{name!r}: is a function, and a method is a class")
    names = list(ancestors(name, ()))
    return [each for index, each in enumerate(names) if each not in names[index + 1 :]]


def _bases(name: str) -> Iterator[str]:
    """Give `module.Name` of the bases of a class whose definition can be read."""
    module = name.rpartition(".")[0]
    node = definition(name)
    names, origin = _classes(module), imported_names(module)
    for base in getattr(node, "bases", ()):
        word = ast.unparse(base)
        target = origin(word)
        # A class may derive from an imported class of its own name; only a class of the file above it comes before imports.
        if word in names and names[word] is not node and (target is None or names[word].lineno < node.lineno):
            yield f"{module}.{word}"
        elif target and (target := _class_behind(target)) and target != name:
            yield target


def _classes(module: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in parse(source(module), _parsed).body if isinstance(node, ast.ClassDef)}


def _class_behind(target: str, above: tuple[str, ...] = ()) -> str | None:
    """Return `module.Name` of an imported class, through files that import it from another one.

    The methods of this project stand in the catalogue by their names. `above`: names that led to this one.
    """
    module, _, word = target.rpartition(".")
    if module == "sns_core.methods" or module.startswith("sns_core.methods."):
        catalogued = next((path for path in METHODS.values() if path.rpartition(".")[2] == word), None)
        if catalogued:
            return catalogued
    if not module or not source(module):
        return None
    if word in _classes(module):
        return target
    origin = imported_names(module)(word)
    return _class_behind(origin, (*above, target)) if origin and origin not in (*above, target) else None


def imported_names(module: str) -> Callable[[str], str | None]:
    """Return a function: a name as a module writes it, perhaps with dots -> its full name where it was imported.

    `Base` is `sns_core.methods.Surrogate` after `from sns_core.methods import Surrogate as Base`. For a name that was not
    imported, the function returns None.
    """
    path = source(module)
    names, whole = {}, []
    waiting = list(parse(path, _parsed).body)
    for node in waiting:
        if isinstance(node, ast.Import):
            for alias in node.names:
                head = alias.name.partition(".")[0]
                names[alias.asname or head] = alias.name if alias.asname else head
        elif isinstance(node, ast.ImportFrom):
            origin = absolute(module, path, "." * node.level + (node.module or ""))
            for alias in node.names:
                if alias.name == "*":
                    whole.append(origin)
                else:
                    names[alias.asname or alias.name] = f"{origin}.{alias.name}"
        elif isinstance(node, ast.Assign):  # an alias of the file's own
            for target in node.targets:
                names.pop(getattr(target, "id", None), None)
        elif isinstance(node, ast.If | ast.Try | ast.With):  # not into functions and classes, whose names are their own
            waiting += [inner for inner in ast.walk(node) if isinstance(inner, ast.Import | ast.ImportFrom)]

    def origin_of(word: str) -> str | None:
        head, dot, rest = word.partition(".")
        if head in names:
            return f"{names[head]}{dot}{rest}"
        return next((f"{origin}.{word}" for origin in whole if _offers(origin, head)), None)

    return origin_of


def _offers(module: str, word: str) -> bool:
    """Return whether `from module import *` brings a name of this project: a method, or a type of options."""
    if module == "sns_core.options":
        return word in vars(options)
    return module.split(".")[0] == PACKAGE.name and any(path.rpartition(".")[2] == word for path in METHODS.values())


PLAIN = {"int": int, "float": float, "bool": bool, "str": str, "list": list, "dict": dict, "tuple": tuple}
TYPING = ("Annotated", "Any", "Literal", "Optional", "Union")
TYPES = {
    name: hint
    for name, hint in vars(options).items()
    if typing.get_origin(hint) is not None or typing.is_typeddict(hint)
}


class Annotations:
    """The types that the annotations of a file name. Nothing is run.

    Understood are plain types, `X | None` and other alternatives, `list[...]`, `tuple[...]`, `dict[...]`, `Literal` and
    `Annotated` with `Bounds`, names imported from `sns_core.options`, and all of these in quotes. Everything else is Any.
    """

    def __init__(self, module: str):
        self.origin, self.classes = imported_names(module), _classes(module)

    def hint(self, node: ast.expr | None):
        """Return the type of an annotation."""
        try:
            return self._hint(node)
        except (ValueError, TypeError, IndexError, SyntaxError, RecursionError):
            return typing.Any

    def _hint(self, node):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return self.hint(ast.parse(node.value.strip(), mode="eval").body)
        if isinstance(node, ast.Constant) and node.value is None:
            return None
        if isinstance(node, ast.Name | ast.Attribute):
            hint = self._named(node)
            return typing.Any if hint in (typing.Literal, typing.Annotated, typing.Optional, typing.Union) else hint
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return typing.Union[self.hint(node.left), self.hint(node.right)]  # noqa: UP007
        if isinstance(node, ast.Subscript):
            return self._generic(
                self._named(node.value), node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            )
        return typing.Any

    def _named(self, node: ast.expr):
        """Return the type behind a name, without its arguments in brackets."""
        word = ast.unparse(node)
        if origin := self.origin(word):
            module, _, name = origin.rpartition(".")
            if module in ("typing", "typing_extensions") and name in TYPING:
                return getattr(typing, name)
            return TYPES.get(name, typing.Any) if module == "sns_core.options" else typing.Any
        return typing.Any if word in self.classes else PLAIN.get(word, typing.Any)

    def _generic(self, outer, inner: list[ast.expr]):
        if outer is typing.Literal:
            return typing.Literal[tuple(map(ast.literal_eval, inner))]
        if outer is typing.Annotated:
            hint, bounds = self.hint(inner[0]), [b for b in map(self._bounds, inner[1:]) if b]
            return functools.reduce(lambda hint, bound: typing.Annotated[hint, bound], bounds, hint)
        if outer is dict:
            return dict[tuple(map(self.hint, inner))]
        if outer is tuple:
            if len(inner) == 2 and isinstance(inner[1], ast.Constant) and inner[1].value is ...:
                return tuple[self.hint(inner[0]), ...]
            return tuple[tuple(map(self.hint, inner))] if inner else tuple
        if outer is list:
            return list[self.hint(inner[0])]
        if outer is typing.Optional or outer is typing.Union:
            empty = [None] if outer is typing.Optional else []
            return typing.Union[tuple([*map(self.hint, inner), *empty])]  # noqa: UP007
        return typing.Any

    def _bounds(self, node: ast.expr):
        """Return the bounds that a call states, `Bounds(0, 1)`; None for anything else."""
        if not isinstance(node, ast.Call) or self.origin(ast.unparse(node.func)) != "sns_core.options.Bounds":
            return None
        values = [_literal(value) for value in node.args]
        named = {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
        if not all(isinstance(value, int | float) for value in [*values, *named.values()]):
            return None
        return options.Bounds(*values, **named)
