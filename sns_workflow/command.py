"""The shell command of each stage, built from the stage's own signature, and the settings that Snakemake watches.

The names of a rule's inputs, outputs and settings are the names of the stage's arguments. So `command("train_model")`
can write every flag, and no argument is written twice.

Snakemake reruns a job when one of its parameters changes. It compares parameters as a set of printed values without
names: two values that change places, or a value that another parameter already has, would change nothing. All settings
of a job are therefore one parameter, JSON that names each argument.

Arguments reach the stage on its standard input (`@-`), because a command line holds about two megabytes only and a run
may have more names of files than that.
"""

import functools
import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sns_core.arguments import COMMON
from sns_core.record import WRITTEN
from sns_workflow.fingerprint import keywords

ROOT = Path(__file__).parents[1]
END = "END_OF_ARGUMENTS"
GIVEN_TO_ALL = ("threads", "log", "code")  # arguments in COMMON that every command has


@dataclass(frozen=True)
class Argument:
    """One keyword-only argument of a stage, as its source states it."""

    name: str
    annotation: str
    required: bool

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def directive(self) -> str:
        """The directive of a rule that gives this argument: output, input, or the settings among its params."""
        if self.name.startswith("output") or self.name in WRITTEN:
            return "output"
        return "input" if "Path" in self.annotation and not self.annotation.startswith("dict") else "settings"


@functools.cache
def keyword_arguments(stage: str) -> tuple[Argument, ...]:
    """All arguments of a stage, read from its source: nothing is imported."""
    return tuple(Argument(*argument) for argument in keywords(stage))


def arguments_of(stage: str) -> list[Argument]:
    """The arguments of a stage that determine its result."""
    return [argument for argument in keyword_arguments(stage) if argument.name not in COMMON]


def command(stage: str, threads: str | int = "{threads}", stdin: bool = True) -> str:
    """The shell command of the rule for `stage`, in Snakemake's format.

    `threads`: threads of the numerical libraries. `stdin=False` puts all arguments on the command line.
    """
    files = [argument for argument in arguments_of(stage) if argument.directive != "settings"]
    flags = " ".join(f"{argument.flag} {{{argument.directive}.{argument.name}:q}}" for argument in files)
    common = [a for a in keyword_arguments(stage) if a.name in COMMON and a.name not in GIVEN_TO_ALL]
    words = "".join(f" {argument.flag} {{params.{argument.name}:q}}" for argument in common)
    return _command(flags, words, threads, stdin)


def command_in_a_loop() -> str:
    """The same for rules that a loop defines, whose params hold `flags`.

    Snakemake evaluates `shell` once more when a job runs. The loop has ended then, so the command must not depend on
    it.
    """
    return _command("{params.flags}")


def _command(flags: str, common: str = "", threads: str | int = "{threads}", stdin: bool = True) -> str:
    head = f"{{params.call}} --threads {threads} --code {{params.code}} --log {{log:q}}{common}"
    words = f"--from-json {{params.settings:q}} {flags}"
    return f"{head} @- <<'{END}'\n{words}\n{END}" if stdin else f"{head} {words}"


def flags(stage: str) -> Callable:
    """Parameter function: the names of a job's files as words of the command line."""

    def evaluate(wildcards, input, output) -> str:
        words = []
        for argument in arguments_of(stage):
            if argument.directive != "settings":
                paths = getattr(input if argument.directive == "input" else output, argument.name)
                words += [argument.flag, *([paths] if isinstance(paths, str) else paths)]
        return shlex.join(map(str, words))

    return evaluate


def settings(stage: str, values: dict, shared: dict = {}) -> Callable:  # noqa: B006
    """Return a parameter function: the settings of a job as JSON, name -> value.

    `values`: the settings of the rule; a function among them takes the wildcards of the job. `shared`: values that
    several rules share; a rule takes those that its stage has arguments for. Raises ValueError where the stage has other
    settings than these.
    """
    expected = {argument.name: argument for argument in arguments_of(stage) if argument.directive == "settings"}
    values = {name: value for name, value in shared.items() if name in expected} | values
    missing = [name for name, argument in expected.items() if argument.required and name not in values]
    unknown = [name for name in values if name not in expected]
    if missing or unknown:
        raise ValueError(f"rule {stage}: settings missing: {missing}, unknown: {unknown}")

    def evaluate(wildcards) -> str:
        job = {name: value(wildcards) if callable(value) else value for name, value in values.items()}
        # A whole number for a float is the same setting: 40 and 40.0 must read the same.
        floats = {name for name, value in job.items() if expected[name].annotation == "float" and value is not None}
        return json.dumps({name: float(job[name]) if name in floats else job[name] for name in sorted(job)})

    return evaluate


def in_order_of_keys(value):
    """A copy of a JSON-able value with its keys in order: the same slice of a configuration, however it was written."""
    return json.loads(json.dumps(value, sort_keys=True))


def inspection_command(module: str, *words: str) -> str:
    """The shell command of a rule that inspects a run, in Snakemake's format; what it prints is its log, too.

    The configuration comes in a file: when `verify` finds something, Snakemake repeats the whole command.
    """
    call = " ".join(["{params.python}", "-m", f"sns_workflow.{module}", *words])
    return f"{call} --snakefile {{params.snakefile:q}} --configuration {{params.configuration:q}} 2>&1 | tee {{log:q}}"


def write_configuration(folder: str, config: dict) -> str:
    """Write a configuration into a folder, for a rule that inspects what the folder holds. Return the file's path.

    The keys keep their order, which is that of methods and models in files and tables.
    """
    path = Path(folder, "logs", "configuration.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another call may read the file at this moment, so it is moved into place whole.
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    unfinished.write_text(json.dumps(config))
    unfinished.replace(path)
    return str(path)


def python(deployed: bool) -> str:
    """The interpreter of the jobs: that of Snakemake, unless conda or a container brings another one (`deployed`).

    Where this package lies in a clone, the jobs import `sns_core` from there: the fingerprints are those of that code.
    """
    interpreter = "python" if deployed else shlex.quote(sys.executable)
    clone = (
        f"PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}} " if (ROOT / "Snakefile").exists() else ""
    )
    return clone + interpreter
