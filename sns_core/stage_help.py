"""The help of a stage: what it does, and each argument with its type, default and description.

Everything is read from the syntax tree of the stage's module. Nothing is imported, so `python -m sns_core STAGE --help`
does not wait for torch. An argument is described in the docstring of its stage, as "`name`: description", or in SHARED
where it means the same in all stages.
"""

import ast
import importlib.util
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from sns_core.stages import COMMANDS, STAGES

SHARED = {
    "code": "a string that names the state of the code; unfinished work of another state is not used",
    "compile": "whether networks are compiled; the results agree to rounding",
    "dask": "where dask computes, as JSON",
    "device": "auto, cpu, or a GPU such as cuda:0",
    "dpi": "resolution of the figure, in dots per inch",
    "initial": "trajectory files of a split, whose final solver states are the initial states",
    "labels": "method -> label",
    "manifest": "the data manifest",
    "member": "the member that is shown",
    "metrics": "method -> result of compute_metrics",
    "models": "role -> model file",
    "name": "the name in the configuration",
    "output": "the file to write",
    "precision": "auto, float32 or bfloat16",
    "reference": "result of compute_reference",
    "seed": "the run's seed",
    "system": "the name of the system",
    "threads": "number of threads",
    "user_metrics": "the user's own metrics, as module.function",
}
KINDS = {"int": "INTEGER", "float": "NUMBER", "str": "TEXT", "bool": "true|false", "list": "JSON LIST", "dict": "JSON"}

# One or more argument names, and a colon: the start of a description in a docstring.
NAMES = r"`\w+`(?:, `\w+`| and `\w+`)*:"


@dataclass(frozen=True)
class Argument:
    """One argument of a stage. `annotation` and `default` are source text; `default` is None where there is none.

    `positional`: the argument may stand before the flags, without its name.
    """

    name: str
    annotation: str
    default: str | None
    description: str
    positional: bool = False

    @property
    def flag(self) -> str:
        """The argument on the command line, such as `--first-step`, or its name in capitals."""
        return self.name.upper() if self.positional else f"--{self.name.replace('_', '-')}"

    @property
    def kind(self) -> str:
        """The values that the argument takes, such as `FILE ...` for a list of paths."""
        annotation = self.annotation.removesuffix(" | None").replace("FilePath", "Path")
        if annotation.startswith("list[") and annotation != "list":
            inner = annotation.removeprefix("list[").removesuffix("]")
            return f"{'FILE' if inner == 'Path' else KINDS.get(inner, inner)} ..."
        return "FILE" if annotation == "Path" else KINDS.get(annotation.partition("[")[0], "JSON")


def definition_of(stage: str) -> ast.FunctionDef:
    """Return the syntax tree of a stage's function. Raise KeyError for an unknown stage."""
    tree = ast.parse(Path(_source_of((STAGES | COMMANDS)[stage])).read_text())
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == stage)


def _source_of(module: str) -> str:
    """Return the file of a module of this package, without an import of the packages that contain it."""
    root = Path(importlib.util.find_spec("sns_core").origin).parent
    path = root.joinpath(*module.split(".")[1:])
    return str(path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py")


def split_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring without its descriptions of arguments, and these descriptions.

    A description ends where the next one starts, or at the end of its first sentence or paragraph.
    """
    text, descriptions = [], {}
    for paragraph in re.split(r"\n\s*\n", docstring):
        flat = " ".join(paragraph.split())
        first, *parts = re.split(rf"({NAMES})", flat)
        if not parts:
            text.append(flat)
            continue
        rest = [first.strip()]
        for names, part in zip(parts[::2], parts[1::2], strict=True):
            # A sentence ends with a full stop, and the next one starts with a capital or a name in backquotes.
            description, *sentences = re.split(r"(?<=[^.])\. (?=[A-Z`])", part.strip(), maxsplit=1)
            for name in re.findall(r"`(\w+)`", names):
                descriptions[name] = description.strip(" ;.")
            rest += sentences
        if any(rest):
            text.append(" ".join(filter(None, rest)))
    return "\n\n".join(text), descriptions


def arguments_of(stage: str) -> list[Argument]:
    """Return the arguments of a stage, in the order of its signature."""
    function = definition_of(stage)
    _, descriptions = split_docstring(ast.get_docstring(function))
    named = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return [
        Argument(
            argument.arg,
            ast.unparse(argument.annotation),
            None if default is None else ast.unparse(default),
            descriptions.get(argument.arg) or SHARED.get(argument.arg, ""),
            positional=argument in function.args.args,
        )
        for argument, default in [*((argument, None) for argument in function.args.args), *named]
    ]


def _plain(default: str) -> str:
    """Return the source text of a default as a user would write it on the command line."""
    return {"True": "true", "False": "false", "None": "none", "''": "empty", "()": "none"}.get(
        default, default.strip("'")
    )


def help_of_stage(stage: str) -> str:
    """Return the help of a stage as text. Raise KeyError for an unknown stage."""
    text, _ = split_docstring(ast.get_docstring(definition_of(stage)))
    words = [argument.flag for argument in arguments_of(stage) if argument.positional]
    lines = [" ".join(["usage: python -m sns_core", stage, *words, "--argument value ..."]), ""]
    lines += [textwrap.fill(paragraph, 100) + "\n" for paragraph in text.split("\n\n")]
    for argument in arguments_of(stage):
        default = "" if argument.default is None else f" (default: {_plain(argument.default)})"
        lines.append(f"  {argument.flag} {argument.kind}")
        if described := f"{argument.description}{default}".strip():
            lines.append(textwrap.indent(textwrap.fill(described, 90), " " * 8))
    if stage in STAGES:
        lines += ["", "Every stage also takes --log FILE for the messages on stderr."]
    return "\n".join(lines)


def help_of_all() -> str:
    """Return a list of all stages and commands, each with the first sentence of its docstring."""
    lines = ["usage: python -m sns_core STAGE --argument value ...", "       python -m sns_core STAGE --help"]
    for title, names in (("commands, which a person gives on finished runs:", COMMANDS), ("stages:", STAGES)):
        lines += ["", title]
        for name in names:
            summary = ast.get_docstring(definition_of(name)).partition("\n\n")[0]
            lines.append(f"  {name:22} {textwrap.shorten(' '.join(summary.split()), 94, placeholder=' ...')}")
    return "\n".join(lines)
