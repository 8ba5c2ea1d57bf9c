"""Check the rules of docs/style.md that a program can check: pages, docstrings, comments, messages, names of values."""

import ast
import contextlib
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT

PLACES = {
    "pages": ["README.md", "docs/*.md", "envs/*.md", "results/*.md", "gallery/*/*.md", "tests/reference/*.md"],
    "docs": ["docs/*.py", "tests/docs/*.py"],
    "config": ["config/*.yaml", "profiles/*/*.yaml", "workflow/schemas/*.yaml", "Makefile"],
    "workflow": ["Snakefile", "workflow/**/*.smk", "workflow/**/*.py", "workflow/**/*.rst", "sns_workflow/**/*.py"],
    "benchmarks": ["benchmarks/*.py", "benchmarks/*.sh"],
    "tests": ["tests/*.py", "tests/*/**/*.py"],
    "sns_core": ["sns_core/*.py", "sns_core/*.j2"],
    **{
        f"sns_core/{folder.name}": [f"sns_core/{folder.name}/**/*.py"]
        for folder in sorted((ROOT / "sns_core").iterdir())
        if (folder / "__init__.py").exists()
    },
}
PLACES_OF_CODE = [place for place in PLACES if place not in ("pages", "config")]

# A rate such as "10 calls a second" is plain English. The article in place of "per" or "for each" is not: these nouns.
COUNTED = "row|panel|file|folder|job|generator|stream|curve|line|point|call|list|value|number|level|step|frame|member"
COUNTED += (
    "|entry|byte|GPU|chunk|column|block|thread|page|log|stepper|network|character|picture|title|seed|weight|table"
)
DIVIDED = (
    "method|member|step|frame|split|run|system|job|group|model|denoiser|head|level|layer|side|page|stage|shard|move"
)
DIVIDED += (
    "|chunk|trajectory|score|window|device|rule|file|figure|channel|row|stretch|grid|seed|mode|shell|point|time unit"
)
PATTERNS = {
    "the article for 'per'": re.compile(rf"(?<!which )(?<!whose )\b(?:{COUNTED})s? an? (?:{DIVIDED})\b", re.I),
    "a relative clause without a noun": re.compile(r"\b(?:whoever|whatever|whichever)\b", re.I),
    "of which, by which, from which on": re.compile(r"\b(?:of|by) which\b|\bfrom which on\b", re.I),
}
OPENING = re.compile(r"(?:What|Who|How|Where|That)\b")
BANNED = {"told", "given", "found", "known", "one", "other", "own", "kept", "there", "here", "some", "again", "few"}
BANNED |= {"asked", "seen"}

# Words that a pattern matches although they keep the rule: file -> words.
EXCEPTIONS = {
    "docs/style.md": ("whoever computes", "whichever are asked for", "a row a method"),
    "tests/docs/test_style.py": ("whoever", "whichever", "a row a method", "of which", "from which on"),
}


def prose_of_page(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line outside the code blocks."""
    code = False
    for number, line in enumerate(text.splitlines(), 1):
        code ^= line.lstrip().startswith("```")
        if not code:
            yield number, line


def prose_of_code(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the first line's number and the text of each run of comments, and of each string that holds a sentence."""
    block: list[str] = []
    start = last = 0
    with tokenize.open(path) as file:
        tokens = list(tokenize.generate_tokens(file.readline))
    for token in tokens:
        number = token.start[0]
        if token.type == tokenize.COMMENT:
            if block and number != last + 1:
                yield start, " ".join(block)
                block = []
            start = start if block else number
            block.append(token.string.lstrip("# "))
            last = number
        elif token.type in (tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)) and token.string.count(" ") > 2:
            yield number, token.string
    if block:
        yield start, " ".join(block)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    if path.suffix in (".py", ".smk") or path.name == "Snakefile":
        yield from prose_of_code(path)
    elif path.suffix == ".md":
        yield from prose_of_page(path.read_text())
    elif path.suffix == ".yaml" or path.name == "Makefile":
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if "#" in line:
                yield number, line.partition("#")[2]
    else:
        yield from enumerate(path.read_text().splitlines(), 1)


def files(place: str) -> list[Path]:
    return sorted({path for pattern in PLACES[place] for path in ROOT.glob(pattern)})


def allowed(path: Path, words: str) -> bool:
    return any(exception in words for exception in EXCEPTIONS.get(str(path.relative_to(ROOT)), ()))


@pytest.mark.parametrize("place", PLACES)
def test_sentences_keep_to_the_style(place):
    faults = []
    for path in files(place):
        for number, text in prose(path):
            flat = " ".join(text.split())
            for rule, pattern in PATTERNS.items():
                for match in pattern.finditer(flat):
                    around = flat[max(0, match.start() - 30) : match.end() + 30]
                    if not allowed(path, around):
                        faults.append(f"{path.relative_to(ROOT)}:{number}: {rule}: ...{around}...")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("place", PLACES_OF_CODE)
def test_docstrings_begin_with_a_verb_or_a_thing(place):
    faults = []
    for path in files(place):
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                opening = (ast.get_docstring(node) or "")[:60]
                if OPENING.match(opening):
                    line = getattr(node, "lineno", 1)
                    faults.append(f"{path.relative_to(ROOT)}:{line}: {opening!r}")
    assert not faults, "\n".join(faults)


def names_of_values(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each parameter, assigned variable, function and class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name


@pytest.mark.parametrize("place", PLACES_OF_CODE)
def test_no_value_is_named_by_a_pronoun(place):
    faults = []
    for path in files(place):
        if path.suffix == ".py":
            for line, name in names_of_values(ast.parse(path.read_text())):
                if name.strip("_") in BANNED:
                    faults.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not faults, "\n".join(faults)


def unmarked_expressions(text: str) -> list[str]:
    """Return the Python expressions that stand between the braces of a literal. A dictionary or a set of words is none."""
    expressions = []
    for inside in re.findall(r"\{([^{}]+)\}", text):
        for expression in (inside, inside.rpartition(":")[0], inside.rpartition("!")[0]):
            with contextlib.suppress(SyntaxError):
                if not isinstance(ast.parse(expression.strip(), mode="eval").body, ast.Constant):
                    expressions.append(expression)
                    break
    return expressions


def pieces_beside_f_strings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each piece of a string that has no f, although a piece beside it has."""
    ignored = (tokenize.NL, tokenize.COMMENT)
    with tokenize.open(path) as file:
        tokens = [token for token in tokenize.generate_tokens(file.readline) if token.type not in ignored]

    def is_f_string(token: tokenize.TokenInfo) -> bool:
        marked = token.type == tokenize.STRING and "f" in re.match(r"\w*", token.string)[0].lower()
        return marked or tokenize.tok_name[token.type] in ("FSTRING_START", "FSTRING_END")

    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token.type == tokenize.STRING and not is_f_string(token) and (is_f_string(before) or is_f_string(after)):
            yield token.start[0], token.string


def raised_literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each string without an f below a `raise`."""
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Raise):
            nodes = list(ast.walk(statement))
            pieces = {id(piece) for node in nodes if isinstance(node, ast.JoinedStr) for piece in ast.walk(node)}
            for node in nodes:
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces:
                    yield node.lineno, node.value


@pytest.mark.parametrize("place", PLACES_OF_CODE)
def test_no_message_prints_an_expression_in_place_of_its_value(place):
    faults = []
    for path in files(place):
        if path.suffix not in (".py", ".smk") and path.name != "Snakefile":
            continue
        literals = list(pieces_beside_f_strings(path))
        literals += raised_literals(ast.parse(path.read_text())) if path.suffix == ".py" else []
        for line, text in literals:
            faults += [f"{path.relative_to(ROOT)}:{line}: {{{e}}} without an f" for e in unmarked_expressions(text)]
    assert not faults, "\n".join(faults)


def test_a_forgotten_f_is_seen(tmp_path):
    path = tmp_path / "messages.py"
    path.write_text(
        "def stop(a, b):\n    print(f'{a}: '\n          'not {b.size:.3f}')\n    raise ValueError('no {a[0]!r}')\n"
    )
    ((line, text),) = pieces_beside_f_strings(path)
    assert line == 3 and unmarked_expressions(text) == ["b.size"]
    ((line, text),) = raised_literals(ast.parse(path.read_text()))
    assert line == 4 and unmarked_expressions(text) == ["a[0]"]
    assert unmarked_expressions('write {"time": times} or {"a"}') == []


# `collect_run` writes the pages of the gallery with one paragraph per line.
WRITTEN_BY_HAND = [path for path in files("pages") if path.parents[1].name != "gallery"]


@pytest.mark.parametrize("path", WRITTEN_BY_HAND, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_of_pages_end_at_column_120(path):
    lines = enumerate(path.read_text().splitlines(), 1)
    assert [number for number, line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_the_glossary_is_sorted_and_its_italics_have_entries():
    text = " ".join((ROOT / "docs" / "glossary.md").read_text().split())
    entries = re.findall(r"- \*\*(.+?)\*\*:", text)
    assert len(entries) > 40 and entries == sorted(entries, key=str.lower)
    for word in re.findall(r"(?<!\*)\*([A-Za-z-]+(?: [A-Za-z-]+)*)\*(?!\*)", text):
        assert any(entry.lower().startswith(word.lower().rstrip("s")) for entry in entries), word
