"""The types that annotations name, of files that are read and not run."""

import ast
import functools
import typing

from sns_core import options
from sns_core.plugins.definitions import classes_of, imported_names, literal

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
        self.origin, self.classes = imported_names(module), classes_of(module)

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
        values = [literal(value) for value in node.args]
        named = {keyword.arg: literal(keyword.value) for keyword in node.keywords}
        if not all(isinstance(value, int | float) for value in [*values, *named.values()]):
            return None
        return options.Bounds(*values, **named)
