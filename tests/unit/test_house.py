"""The plan of the house: imports lead down the floors that sns_core/__init__.py lists, and never in a circle."""

import ast
import functools
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sns_core

ROOT = Path(__file__).parents[2]
FLOOR = re.compile(r"^ +(\d+)  (\w.*)$", re.M)
# Figures that compute their data. All other figures read finished tables and fields.
COMPUTING_FIGURES = {"movie", "phase_space"}


def find_modules(package: Path) -> dict[str, Path]:
    """Return dotted module name -> file, for a package folder."""
    names = {path: ".".join(path.relative_to(package.parent).with_suffix("").parts) for path in package.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in sorted(names.items())}


MODULES = find_modules(ROOT / "sns_core")


@functools.cache
def imports_of(path: Path, at_import: bool = False) -> frozenset[str]:
    """Return the dotted names that a file imports, `from a import b` as `a.b`.

    `at_import` leaves out imports that do not run when the module is imported: those inside functions and those for
    type checkers.
    """
    waiting, names = [ast.parse(path.read_text())], set()
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            later = later or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: imports are absolute in this house"
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif not (at_import and later):
                waiting.append(node)
    return frozenset(names)


def module_of(name: str, modules: dict[str, Path] = MODULES) -> str | None:
    """Return the one of `modules` in which an imported name is defined; None for a name from elsewhere."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def room_of(module: str) -> str:
    """Return the room of a module: `figures` of `sns_core.figures.style`."""
    return module.split(".")[1]


def floors_of(docstring: str) -> dict[str, int]:
    """Read the table of floors: room -> floor."""
    return {room.strip(): int(floor) for floor, rooms in FLOOR.findall(docstring) for room in rooms.split(",")}


FLOORS = floors_of(sns_core.__doc__)
ROOMS = sorted({room_of(module) for module in MODULES if module != "sns_core"})


def upward_imports(files: dict[str, Path], floors: dict[str, int]) -> list[str]:
    """Return one line for each import that does not lead from a room to a lower floor."""
    lines = []
    for module, path in files.items():
        room = room_of(module)
        targets = {module_of(name) for name in imports_of(path)} - {None, "sns_core"}
        for target in sorted(targets):
            if room_of(target) != room and floors[room_of(target)] >= floors[room]:
                lines.append(f"{module} (floor {floors[room]}) imports {target} (floor {floors[room_of(target)]})")
    return lines


def test_the_table_of_floors_lists_every_room_once_and_nothing_else():
    listed = [room.strip() for _, rooms in FLOOR.findall(sns_core.__doc__) for room in rooms.split(",")]
    assert sorted(listed) == ROOMS
    assert sorted({int(floor) for floor, _ in FLOOR.findall(sns_core.__doc__)}) == list(range(max(FLOORS.values()) + 1))


def test_imports_lead_down_the_floors():
    inside = {module: path for module, path in MODULES.items() if module != "sns_core"}
    assert upward_imports(inside, FLOORS) == []


@pytest.mark.parametrize("package", ["sns_core", "sns_workflow"])
def test_no_module_imports_itself_by_way_of_others(package):
    modules = find_modules(ROOT / package)
    graph = {
        module: {module_of(name, modules) for name in imports_of(path)} - {None, module}
        for module, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_rooms_take_nothing_from_the_door_but_the_version():
    """`sns_core` itself offers names of the upper floors to users of the library; inside, each name has its module."""
    for module, path in MODULES.items():
        if module != "sns_core":
            taken = {name for name in imports_of(path) if module_of(name) == "sns_core"}
            taken |= set(re.findall(r"\bsns_core\.\w+", path.read_text())) if "sns_core" in taken else set()
            outside = {name for name in taken if name not in MODULES}
            assert outside <= {"sns_core.__version__"}, f"{module} takes {outside}"


def loads(module: str, package: str) -> bool:
    """Return whether the import of a module of `sns_core` leads to the import of another package."""
    waiting, visited = [module], set()
    while waiting:
        name = waiting.pop()
        visited.add(name)
        for target in imports_of(MODULES[name], at_import=True):
            if target.split(".")[0] == package:
                return True
            waiting.extend({module_of(target)} - visited - {None})
        waiting.extend({name.rpartition(".")[0]} - visited - {""})  # Python imports the package of a module, too
    return False


@pytest.mark.parametrize("figure", [name for name in MODULES if name.startswith("sns_core.figures.")])
def test_only_figures_that_compute_load_torch(figure):
    assert loads(figure, "torch") == (figure.split(".")[2] in COMPUTING_FIGURES)


@pytest.mark.parametrize("package", ["snakemake", "workflow", "sns_workflow", "tests", "pytest"])
def test_the_package_knows_nothing_of_the_workflow(package):
    assert [m for m, path in MODULES.items() if any(n.split(".")[0] == package for n in imports_of(path))] == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("from sns_core.rollout import segment\n", "imports sns_core.rollout.segment (floor"),
        ("import sns_core.collection\n", "imports sns_core.collection (floor"),
        ("def late():\n    from sns_core.training import train_model\n", "imports sns_core.training (floor"),
        ("from sns_core.files import whole_file\n", None),
        ("import torch\n", None),
    ],
)
def test_an_import_that_leads_up_is_detected(tmp_path, text, complaint):
    path = tmp_path / "edited.py"
    path.write_text(text)
    lines = upward_imports({"sns_core.data.edited": path}, FLOORS)
    assert (complaint in lines[0]) if complaint else lines == []
