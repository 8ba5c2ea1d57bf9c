"""Options of methods: the annotations of a user's class, one value per setting, and defaults."""

import copy
import hashlib
import shutil
import sys
import typing

import pytest

from sns_core import options, plugins
from sns_core.catalogue import METHODS
from sns_core.diffusion import Sampler
from sns_core.methods import Surrogate
from sns_core.options import Bounds
from sns_core.plugins import definitions
from sns_workflow import fingerprint as fingerprints
from sns_workflow.command import arguments_of, in_order_of_keys, settings
from sns_workflow.config_methods import settings_of, settle_options
from sns_workflow.configuration import METHOD_KEYS, ConfigurationError, read, validate


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes a file into the working directory."""
    monkeypatch.chdir(tmp_path)
    return lambda text, name="mine.py": (tmp_path / name).write_text(text)


BASES = {
    "by attribute": "from sns_core import methods\nclass Surrogate(methods.Surrogate): pass",
    "by name": "from sns_core.methods import Surrogate as Base\nclass Mine(Base): pass",
    "its own name": "from sns_core.methods import Surrogate\nclass Surrogate(Surrogate): pass",
    "of a module": "from sns_core.methods.surrogate import Surrogate as S\nclass Mine(S): pass",
    "by a long name": "import sns_core.methods\nclass Mine(sns_core.methods.Surrogate): pass",
    "by a short name": "import sns_core.methods.surrogate as s\nclass Mine(s.Surrogate): pass",
    "by a star": "from sns_core.methods import *\nclass Mine(Surrogate): pass",
    "of the file": "from sns_core.methods import Surrogate\nclass First(Surrogate): pass\nclass Mine(First): pass",
    "of two files": "from first import Mine as Base\nclass Mine(Base): pass",
    "handed on": "from door import Mine as Base\nclass Mine(Base): pass",
    "beside a mixin": "import sns_core.methods as m\nclass Mixin(m.Method): pass\nclass Mine(Mixin, m.Surrogate): pass",
    "a later name": "from sns_core.methods import Surrogate\nclass Mine(Surrogate): pass\nclass Surrogate(Mine): pass",
}


@pytest.mark.parametrize("case", BASES)
def test_the_base_of_a_users_class_is_found_through_its_imports(write, case):
    write("from sns_core.methods import Surrogate\nclass Mine(Surrogate): pass", "first.py")
    write("from first import Mine", "door.py")
    write(BASES[case])
    word = "Mine" if "class Mine" in BASES[case] else "Surrogate"
    assert plugins.needs_of(f"mine.{word}") == Surrogate.needs
    assert plugins.options_of(f"mine.{word}") == {}
    assert issubclass(reloaded(f"mine.{word}"), plugins.load(METHODS["pointwise"]))


def reloaded(name: str):
    """Return the class as Python reads the file, independent of earlier imports."""
    for module in ("mine", "first", "door"):
        sys.modules.pop(module, None)
    try:
        return plugins.load(name)
    finally:
        sys.path.pop(0)


def test_a_name_of_the_file_is_not_the_method_of_that_name(write):
    write("class Refinement:\n    needs = {}\nclass Mine(Refinement):\n    def build(cls, parts): pass")
    assert plugins.needs_of("mine.Mine") == {} == plugins.options_of("mine.Mine")


def test_files_that_import_a_base_from_each_other_are_no_endless_search(write):
    write("from other import Base\nclass Mine(Base): pass")
    write("from mine import Base", "other.py")
    assert plugins.needs_of("mine.Mine") == {}


FAULTS = {
    "a circle": ("class A(B): pass\nclass B(A): pass", "'mine.A': its bases lead in a circle: mine.A, mine.B, mine.A"),
    "a function": ("def A(): pass", "'mine.A': is a function, and a method is a class"),
    "needs in words": ("class A:\n    needs = make()", "'mine.A': needs must be a literal dict"),
    "needs as a list": ("class A:\n    needs = ['surrogate']", "needs must be a literal dict"),
    "needs without a tuple": ("class A:\n    needs = {'surrogate': 'pointwise'}", "needs must be a literal dict"),
    "a mistake": ("class A(:", "'mine.A': mine.py, line 1: "),
    "no class": ("A = 1", "'mine.A': mine.py defines no 'A'; it defines nothing"),
    "bytes": (b"# \xff\nclass A: pass", "'mine.A': mine.py: is not UTF-8 text, byte 3 is none; save it as UTF-8"),
    "null bytes": (b"\0class A: pass", "'mine.A': mine.py"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_faulty_class_is_one_line(config, write, tmp_path, case):
    text, words = FAULTS[case]
    (tmp_path / "mine.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    config["methods"]["sns"] |= {"kind": "mine.A"}
    with pytest.raises(ConfigurationError) as caught:
        validate(config)
    message = str(caught.value)
    assert message.startswith("methods.sns.kind: ") and words in message and "\n" not in message


def test_a_faulty_file_that_a_users_file_imports_is_one_line(config, write, tmp_path):
    write("import helper\nfrom sns_core import methods\nclass Mine(methods.Surrogate): pass")
    (tmp_path / "helper.py").write_bytes(b"# \xff")
    config["methods"]["pointwise"]["kind"] = "mine.Mine"
    with pytest.raises(ConfigurationError, match=r"methods\.pointwise\.kind: helper\.py: is not UTF-8 text"):
        validate(config)
    write("def score(): pass\nimport helper", "other.py")
    config["methods"]["pointwise"]["kind"] = "pointwise"
    config["metrics"]["user"] = ["other.score"]
    with pytest.raises(ConfigurationError, match=r"metrics\.user: helper\.py: is not UTF-8 text"):
        validate(config)


IMPORTS = ["import own.helper", "from own.helper import f", "from own import helper", "from .helper import f", "from . import helper",
           "from ..own.helper import f", "from .door import f"]  # fmt: skip


@pytest.mark.parametrize("line", IMPORTS)
@pytest.mark.parametrize("package", [True, False], ids=["package", "folder"])
def test_the_code_of_a_user_s_method_holds_what_its_file_imports_in_any_way(write, tmp_path, line, package):
    (tmp_path / "own").mkdir()
    if package:
        write("", "own/__init__.py")
    write(f"{line}\nfrom sns_core.methods import Surrogate\nclass Mine(Surrogate): pass", "own/mine.py")
    write("from .helper import f", "own/door.py")
    prints = []
    for factor in (1, 2):
        write(f"def f(x):\n    return {factor} * x", "own/helper.py")
        definitions.files_behind("own.mine.Mine")
        fingerprints.forget()
        prints.append(fingerprints.fingerprint("rollout_segment", "own.mine.Mine"))
    assert prints[0] != prints[1]
    write("def f(:", "own/helper.py")
    with pytest.raises(ValueError, match=r"helper\.py, line 1"):
        definitions.files_behind("own.mine.Mine")


def test_the_code_of_a_user_s_method_holds_the_packages_around_its_file(write, tmp_path):
    """Python runs their `__init__.py` before the file."""
    (tmp_path / "own" / "inner").mkdir(parents=True)
    write("from sns_core.methods import Surrogate\nclass Mine(Surrogate): pass", "own/inner/mine.py")
    prints = set()
    for package in ("own", "own/inner"):
        for text in ("", "import torch\ntorch.set_default_dtype(torch.float64)"):
            write(text, f"{package}/__init__.py")
            fingerprints.forget()
            prints.add(fingerprints.fingerprint("rollout_segment", "own.inner.mine.Mine"))
    assert len(prints) == 4
    names = {str(path.relative_to(tmp_path)) for path in definitions.files_behind("own.inner.mine.Mine")}
    assert names == {"own/__init__.py", "own/inner/__init__.py", "own/inner/mine.py"}


@pytest.mark.parametrize("kind", ["/etc/hosts.A", "../mine.A", "mine.", "mine.A;", "a" * 201])
def test_a_kind_that_is_no_name_is_one_line(config, kind):
    config["methods"]["sns"]["kind"] = kind
    with pytest.raises(ConfigurationError, match=r"^methods\.sns\.kind: .*(module\.Name|200 characters)"):
        validate(config)
    with pytest.raises(ValueError, match=r"module\.Name"):
        plugins.needs_of(kind)


def test_a_file_with_the_name_of_a_module_of_python_is_one_line(config, write):
    write("from sns_core.methods import Surrogate\nclass Mine(Surrogate): pass", "signal.py")
    config["methods"]["pointwise"]["kind"] = "signal.Mine"
    with pytest.raises(
        ConfigurationError, match=r"kind: 'signal\.Mine': Python has a module 'signal' .*; rename signal\.py"
    ):
        validate(config)


def test_a_label_has_a_bound(config):
    config["methods"]["sns"]["label"] = "x" * 81
    with pytest.raises(ConfigurationError, match=r"methods\.sns\.label: .* must have at most 80 characters"):
        validate(config)


HEAD = """
import math
import typing as t
from typing import Annotated, Any, Literal, Optional, Union
from pathlib import Path
from sns_core import options
from sns_core.options import Bounds, Count, Readout
from sns_core.options import Share as Part
Level = Annotated[int, Bounds(5)]
class Gain: pass
class Mine:
    @classmethod
    def build(cls, parts, *, option: {}): pass
"""
ANNOTATIONS = {
    "float": float,
    "'float'": float,
    "'int | None'": int | None,
    "'Count' | None": options.Count | None,
    "list[float]": list[float],
    "list['Count']": list[options.Count],
    "dict[str, float]": dict[str, float],
    "tuple[float, ...]": tuple[float, ...],
    "tuple[int, 'float']": tuple[int, float],
    "tuple": tuple,
    "Optional[int]": int | None,
    "Union[int, str, None]": int | str | None,
    "t.Optional['int']": int | None,
    "Literal['a', 2, None]": typing.Literal["a", 2, None],
    "Annotated[int, Bounds(2, maximum=7)]": typing.Annotated[int, Bounds(2, 7)],
    "Annotated[float, 'metres', options.Bounds(0, inside=True)]": typing.Annotated[float, Bounds(0, inside=True)],
    "Annotated[float, Bounds(0, math.pi)]": float,
    "Count": options.Count,
    "options.Share": options.Share,
    "Part": options.Share,
    "Readout": options.Readout,
    # Annotations that the check does not know.
    "Level": typing.Any,
    "Gain": typing.Any,
    "Share": typing.Any,
    "Path": typing.Any,
    "Path | None": typing.Any | None,
    "Any": typing.Any,
    "Bounds": typing.Any,
    "options.check": typing.Any,
    "math": typing.Any,
    "'not python'": typing.Any,
    "Literal": typing.Any,
    "Literal[math.pi]": typing.Any,
    "set[int]": typing.Any,
    "tuple[()]": tuple,
    "1": typing.Any,
    "(lambda: float)()": typing.Any,
}


@pytest.mark.parametrize("annotation", ANNOTATIONS)
def test_an_annotation_of_a_users_build_is_checked_or_every_value_is_allowed(write, annotation):
    write(HEAD.format(annotation))
    hint = plugins.options_of("mine.Mine")["option"].hint
    assert hint == ANNOTATIONS[annotation]
    for value in (None, True, 1, 2.5, "a", [1, 2.0], [], {}, {"kind": {}}, {"kind": "mean"}):
        try:  # the check accepts the value, or refuses it in one line
            options.check(value, hint, "option")
        except ValueError as error:
            assert str(error).startswith("option") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("gain", {}, "methods.sns_published.gain: a mapping is not a list"),
        ("sampler", {"clip": {}}, "methods.sns_published.sampler.clip: a mapping is not a number"),
        ("stride", None, "methods.sns_published.stride: null is not a whole number"),
        ("stride", True, "methods.sns_published.stride: true is not a whole number"),
        ("path", None, "methods.sns_published.path: null is none of left_then_down"),
        ("readout", None, "methods.sns_published.readout: null is not a mapping with kind"),
        ("readout", {"kind": None}, "methods.sns_published.readout.kind: null is none of argmax"),
        ("gain", [None, 1], "methods.sns_published.gain.0: null is not a number"),
        (
            "readout",
            {"kind": "calibrated", "quantile": 0.9},
            "methods.sns_published.readout: the key 'refine_share' is missing; readout.quantile was renamed to readout.refine_share",
        ),
    ],
)
def test_a_message_shows_values_as_yaml_writes_them(config, option, value, words):
    config["methods"]["sns_published"][option] = value
    with pytest.raises(ConfigurationError) as caught:
        validate(config)
    assert str(caught.value).startswith(words)


def settings_of_rollouts(config: dict) -> dict[str, str]:
    """Return method -> settings of the rule that rolls it out: the string that Snakemake compares."""
    apart = set(METHOD_KEYS) - {"kind"}
    names = [argument.name for argument in arguments_of("rollout_segment") if argument.directive == "settings"]
    strings = {}
    for name, spec in read(config).systems["kolmogorov"]["methods"].items():
        method = in_order_of_keys({key: value for key, value in spec.items() if key not in apart})
        strings[name] = settings("rollout_segment", {**dict.fromkeys(names, 0), "method": method})(None)
    return strings


def digest(value) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def test_one_setting_is_one_value(config):
    whole, decimal = copy.deepcopy(config), copy.deepcopy(config)
    whole["methods"]["sns_published"] |= {
        "stride": 8,
        "gain": [2, 1],
        "sampler": {"eta": 1, "variance": "posterior", "clip": 8, "order": 1},
    }
    decimal["methods"]["sns_published"] |= {
        "stride": 8.0,
        "gain": [2.0, 1.0],
        "sampler": {"eta": 1.0, "variance": "posterior", "clip": 8.0, "order": 1.0},
    }
    assert settings_of_rollouts(whole) == settings_of_rollouts(decimal)
    assert digest(settings_of_rollouts(whole)) == digest(settings_of_rollouts(decimal))
    assert repr(read(whole).whole) == repr(read(decimal).whole)
    assert repr(options.check(8, float, "x")) == "8.0"
    assert repr(options.check(2.0, typing.Literal[1, 2], "x")) == "2"
    assert options.check(True, typing.Literal[True, "auto"], "x") is True
    with pytest.raises(ValueError, match="true is none of 1, 2"):
        options.check(True, typing.Literal[1, 2], "x")


def test_an_option_that_is_left_out_equals_its_default(config):
    """A refinement with all options at their defaults equals a refinement without options."""
    short = copy.deepcopy(config)
    short["methods"]["sns_published"] = {
        key: value for key, value in config["methods"]["sns_published"].items() if key in METHOD_KEYS
    }
    assert settings_of_rollouts(short) == settings_of_rollouts(config)
    methods = [read(each).whole["methods"]["sns_published"] for each in (short, config)]
    assert in_order_of_keys(methods[0]) == in_order_of_keys(methods[1])
    assert settings_of(short["methods"]["sns_published"]) == settings_of(config["methods"]["sns_published"])
    unknown = {"label": "x", "kind": "gone.Method", "models": {}, "stride": 2}
    assert settings_of(unknown) == {"kind": "gone.Method", "models": {}, "stride": 2}


def test_the_defaults_of_a_sampler_are_those_of_its_class():
    assert Sampler(**options.check({}, options.SamplerOptions, "sampler")) == Sampler()
    assert options.check({}, options.SamplerOptions, "sampler").keys() == vars(Sampler()).keys()


def test_defaults_of_a_users_build_are_read_where_they_are_literals(write):
    write(
        "import math\nclass Mine:\n    @classmethod\n    def build(cls, parts, *, a: float = 8, b: float = None,\n"
        "              c: tuple[int, ...] = (1, 2), d=(1, 2), e=math.pi, f={1}, g='x', h): pass"
    )
    spec = {"label": "x", "kind": "mine.Mine", "models": {}, "h": 1}
    taken = plugins.options_of("mine.Mine")
    assert settle_options("m", spec, taken) == {**spec, "a": 8.0, "b": None, "c": [1, 2], "g": "x"}
    with pytest.raises(ConfigurationError, match=r"m: the key 'h' is missing"):
        settle_options("m", {"kind": "mine.Mine"}, taken)


def test_an_option_cannot_have_the_name_of_a_key_of_every_method(config, write):
    write(
        "from sns_core.methods import Surrogate\nclass Mine(Surrogate):\n"
        "    def build(cls, parts, *, steps: int = 3): pass"
    )
    config["methods"]["pointwise"]["kind"] = "mine.Mine"
    with pytest.raises(ConfigurationError, match=r"methods\.pointwise\.kind: 'mine.Mine' has an option 'steps'"):
        validate(config)


def test_an_edit_reruns_the_rollouts_of_methods_that_use_the_code_and_one_of_the_options_reruns_none(
    root, tmp_path, monkeypatch
):
    shutil.copytree(root / "sns_core", tmp_path / "sns_core", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprints, "ROOT", tmp_path)

    def after(name: str, old: str, new: str) -> set[str]:
        """Return the kinds of methods whose rollouts have another fingerprint after an edit."""
        path = tmp_path / "sns_core" / name
        text, before = path.read_text(), prints()
        assert old in text
        path.write_text(text.replace(old, new))
        changed = {kind for kind, value in prints().items() if value != before[kind]}
        path.write_text(text)
        return changed

    def prints() -> dict[str, str]:
        fingerprints.forget()
        return {
            kind: fingerprints.fingerprint("rollout_segment", "KolmogorovFlow", path) for kind, path in METHODS.items()
        }

    assert after("options.py", "Count = Annotated[int, Bounds(1)]", "Count = Annotated[int, Bounds(2)]") == set()
    changed = after("methods/levels.py", "self.level * due", "self.level * 1 * due")
    assert "refinement" in changed and not changed & {"pointwise", "solver", "acdm"}
    median = 'LevelReadout("quantile", 0.5)'
    assert after("methods/calibrated.py", median, median.replace("5", "4")) == {
        "calibrated_refinement",
        "residual_noise",
    }
    monkeypatch.undo()
    fingerprints.forget()
