"""The files of a configuration: mistakes that no longer show once they are merged, and the line of each value.

Snakemake merges all files before the Snakefile sees them. So each file is read again here, as YAML nodes: a key that
stands twice, an empty file, an anchor inside its own value and numbers that YAML reads in another way than they look
are refused, and a message about a value can name its file and line.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from sns_workflow.config_values import ConfigurationError, join, shown

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Numbers that mean something else in YAML than they look like: 12:00:00 is 43200 (base 60), 010 is 8 (base 8).
MISREAD = re.compile(r"[-+]?(?:[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|0[0-7_]+)")

# Names of options that Snakemake takes once -> words for an example of several values.
REPEATED = {("--config", "-C"): "run=mine seed=1", ("--configfile", "--configfiles"): "first.yaml second.yaml"}


class ConfigFiles:
    """The configuration files of a call. `overlays`: those of --configfile, in order; `default`: the file under them;
    `command_line`: what --config gave."""

    def __init__(self, overlays=(), default: Path | None = None, command_line: dict | None = None):
        self.paths = [Path(path) for path in overlays]
        self.default, self.command_line = default, command_line or {}
        self._nodes: dict[Path, yaml.Node | None] = {}

    def check(self) -> None:
        """Raise ConfigurationError for what a file says and its mapping no longer shows."""
        for path in self.paths:
            node = self._node(path)
            if node is None:
                raise ConfigurationError(f"{relative(path)}: the file is empty; name at least one key, or leave it out")
            _check_node(node, "", relative(path), (), set())

    def locate(self, key: str, message: str = "") -> str:
        """Return "file, line N: " of a key, or of the nearest key above it; "--config: " for the command line; else "".

        `message`: of a mistake about the key. Where the key has its default value, the place is that of another key in the
        message which the user has set: the two do not fit each other, and the default fits all other defaults.
        """
        place = self._locate(key)
        if not self.default or not place.startswith(f"{relative(self.default)}, "):
            return place
        changed = ConfigFiles(self.paths, command_line=self.command_line)
        changed._nodes = self._nodes
        # A message shortens a key to the part after what it shares with the first one: a single word is the key of a sibling.
        parents = [*itertools.accumulate(re.findall(r"[^.]+\.", key)), ""]
        words = dict.fromkeys(re.findall(r"[A-Za-z_][\w-]*(?:\.[\w-]+)*", message))
        keys = (f"{parent}{word}" for word in words for parent in (parents if "." in word else parents[-2:-1]))
        return next((changed._locate(candidate) for candidate in keys if changed._holds(candidate)), place)

    def _holds(self, key: str) -> bool:
        """Whether --config or an overlay sets a key."""
        nodes = (self._node(path) for path in self.paths)
        return _depth(self.command_line, key) or any(
            isinstance(node, yaml.MappingNode) and not _follow(node, key)[0] for node in nodes
        )

    def _locate(self, key: str) -> str:
        if self.command_line and _depth(self.command_line, key):
            return "--config: "
        candidates = []
        for path in [*reversed(self.paths), *([self.default] if self.default and self.default.exists() else [])]:
            node = self._node(path)
            if isinstance(node, yaml.MappingNode):
                rest, line = _follow(node, key)
                candidates.append((len(rest), path, line))
                if not rest:
                    break
        if not candidates:
            return ""
        rest, path, line = min(candidates, key=lambda each: each[0])
        return f"{relative(path)}, line {line}: " if rest < len(key) else ""

    def _node(self, path: Path) -> yaml.Node | None:
        """The file as YAML nodes, which JSON files are, too; None for an empty file."""
        if path not in self._nodes:
            text = path.read_text(encoding="utf-8", errors="replace")
            try:
                self._nodes[path] = yaml.compose(text, Loader=LOADER)
            except yaml.YAMLError:  # Snakemake reads JSON by other means: nothing is known of the lines of such a file
                self._nodes[path] = yaml.ScalarNode(
                    "tag:yaml.org,2002:str", text, yaml.Mark(str(path), 0, 0, 0, None, 0)
                )
        return self._nodes[path]


def refuse_repeated_options(words: list[str]) -> None:
    """Raise ConfigurationError where the words of a call name --config or --configfile twice.

    Snakemake would drop the first without a word, and `--config run=mine --config seed=1` would replace the results of
    the default run.
    """
    options = words[: words.index("--")] if "--" in words else words
    for names, example in REPEATED.items():
        repeats = [
            word for word in options if word.partition("=")[0] in names or (word[:2] in names and word[1] != "-")
        ]
        if len(repeats) > 1:
            raise ConfigurationError(
                f"{names[0]}: stands {len(repeats)} times in this call, and Snakemake keeps the last one only; put all after one: "
                f"{names[0]} {example}",
                key="",
            )


def relative(path: Path) -> str:
    """A path as a person would type it in the working directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _entries(node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Keys and values of a mapping, then those of the mappings that `<<` merges into it."""
    merged = []
    for key, value in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
        else:
            yield key, value
    for inner in merged:
        if isinstance(inner, yaml.MappingNode):
            yield from _entries(inner)


def _check_node(node: yaml.Node, place: str, file: str, parents: tuple[int, ...], done: set[int]) -> None:
    where = f"{file}, line {node.start_mark.line + 1}"
    if id(node) in parents:
        raise ConfigurationError(
            f"{where}: {place or 'the file'} contains itself; an anchor (&) must not be used inside its own value",
            key="",
        )
    if id(node) in done:
        return
    done.add(id(node))
    inside = (*parents, id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise ConfigurationError(
                        f"{file}, line {line}: {join(place, key.value)}: the key stands twice, in line {lines[key.value]} too, "
                        "and YAML keeps the last one only; put both together",
                        key="",
                    )
                lines[key.value] = line
            _check_node(value, join(place, getattr(key, "value", "?")), file, inside, done)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _check_node(item, join(place, index), file, inside, done)
    elif not node.style and node.tag.rpartition(":")[2] in ("int", "float") and MISREAD.fullmatch(node.value):
        value = yaml.safe_load(node.value)
        raise ConfigurationError(
            f"{where}: {place}: {node.value} is the number {shown(value)} to YAML; write that number, or put it in quotes",
            key="",
        )


def _follow(node: yaml.Node, key: str) -> tuple[str, int]:
    """Follow a dotted key as far as it goes: what is left of it, and the line of the last name found.

    Names may hold dots.
    """
    best, line = key, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        children = [(name.value, name, value) for name, value in _entries(node) if isinstance(name, yaml.ScalarNode)]
    elif isinstance(node, yaml.SequenceNode):
        children = [(str(index), item, item) for index, item in enumerate(node.value)]
    else:
        return best, line
    for name, mark, value in children:
        if key == name:
            return "", mark.start_mark.line + 1
        if key.startswith(f"{name}."):
            rest, inner = _follow(value, key[len(name) + 1 :])
            if len(rest) < len(best):
                best, line = rest, inner if rest != key[len(name) + 1 :] else mark.start_mark.line + 1
    return best, line


def _depth(mapping, key: str) -> bool:
    """Whether a mapping holds a dotted key, or a value in the place of a mapping on the way to it."""
    if not isinstance(mapping, dict):
        return True
    return any(
        key == name or (key.startswith(f"{name}.") and _depth(value, key[len(str(name)) + 1 :]))
        for name, value in mapping.items()
    )
