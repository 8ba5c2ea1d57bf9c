"""Classes and functions as the files that define them say: `module.Name`, read from their syntax trees.

Nothing is run, so a configuration is checked, and its code fingerprinted, without torch. A module is one of this
package, or a file of the working directory. Every mistake is a ValueError in one line.
"""

import ast
import difflib
import functools
import itertools
import os
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

from sns_core import options
from sns_core.catalogue import METHODS

Definition = ast.ClassDef | ast.FunctionDef
Parsed = typing.TypeVar("Parsed")
PACKAGE = Path(__file__).parents[1]
ABSENT = object()  # the value of an expression that is no literal


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

    The `__init__.py` of the packages around them are among these files. Their code is fingerprinted. Raises ValueError,
    which names the file, where one of them cannot be read.
    """
    waiting, done = [name.rpartition(".")[0]], {}
    while waiting:
        module = waiting.pop()
        path = source(module)
        if path is None or module in done or module.split(".")[0] == PACKAGE.name:
            continue
        done[module] = path
        waiting += packages_around(module)
        for node in ast.walk(parse(path, _parsed)):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                origin = absolute(module, path, "." * node.level + (node.module or ""))
                waiting += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return list(done.values())


def packages_around(module: str) -> list[str]:
    """Return the packages in which a module lies, the outermost first: Python runs their `__init__.py` before the module."""
    return list(itertools.accumulate(module.split(".")[:-1], "{}.{}".format))


def absolute(module: str, path: Path, imported: str) -> str:
    """Return the full name of a module that `from <imported> import …` in the file `path` of `module` names, perhaps by dots."""
    name = imported.lstrip(".")
    level = len(imported) - len(name)
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    above = package[: len(package) - level + 1] if level else []
    return ".".join([*above, *([name] if name else [])])


def function_of(node: Definition, name: str) -> ast.FunctionDef | None:
    body = node.body if isinstance(node, ast.ClassDef) else []
    return next((inner for inner in body if isinstance(inner, ast.FunctionDef) and inner.name == name), None)


def literal(node: ast.expr):
    """Return the value of an expression of constants; ABSENT for any other expression."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ABSENT


def lineage(name: str) -> list[str]:
    """Return `module.Name` of a class and of the classes that it is derived from, in the order of inheritance.

    Bases from elsewhere are left out. Raises ValueError where `name` is a function or the bases lead in a circle.
    """

    def ancestors(name: str, above: tuple[str, ...]) -> Iterator[str]:
        if name in above:
            raise ValueError(f"{above[0]!r}: its bases lead in a circle: {', '.join((*above, name))}")
        yield name
        for base in bases_of(name):
            yield from ancestors(base, (*above, name))

    if not isinstance(definition(name), ast.ClassDef):
        raise ValueError(f"{name!r}: is a function, and a method is a class")
    names = list(ancestors(name, ()))
    return [each for index, each in enumerate(names) if each not in names[index + 1 :]]


def bases_of(name: str) -> Iterator[str]:
    """Give `module.Name` of the bases of a class whose definition can be read."""
    module = name.rpartition(".")[0]
    node = definition(name)
    names, origin = classes_of(module), imported_names(module)
    for base in getattr(node, "bases", ()):
        word = ast.unparse(base)
        target = origin(word)
        # A class may derive from an imported class of its own name; only a class of the file above it comes before imports.
        if word in names and names[word] is not node and (target is None or names[word].lineno < node.lineno):
            yield f"{module}.{word}"
        elif target and (target := _class_behind(target)) and target != name:
            yield target


def classes_of(module: str) -> dict[str, ast.ClassDef]:
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
    if word in classes_of(module):
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
