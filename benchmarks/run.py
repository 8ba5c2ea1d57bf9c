"""Speed beside the peers and beside straightforward code: `make bench`, or python benchmarks/run.py [--only solvers] ...

Every side of a comparison is a process of one thread on one core. The sides work in turns, and the table gives medians over
the turns with quartiles. Rates are per second of processor time, so that a turn is not counted as slower because another job
interrupts it (but that job's effect on the caches is counted). The last column is the ratio by the clock. The part `cores`
gives the solvers and jax-cfd several cores, and measures by the clock.

Writes benchmarks/results/speed_<date>_<machine>.md. benchmarks/peers.sh makes the environments of the peers.
"""

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from math import log2
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
PROJECT = [sys.executable, "worker.py"]
ROUND = 10  # steps in one unit of a rollout, as in worker.py
THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


class Worker:
    """A process that takes turns (see serve.py)."""

    def __init__(self, *command: str):
        self.process = subprocess.Popen(
            list(command), cwd=HERE, env={**os.environ, **THREADS}, text=True, bufsize=1, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, line: str):
        self.process.stdin.write(line + "\n")
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{' '.join(self.process.args)} ended at {line!r}; its error is above")
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Workers:
    """Processes on the same cores; a `with` block ends them."""

    def __init__(self, cores: list[int]):
        self.cores, self.started = set(cores), []

    def start(self, *command: str) -> Worker:
        os.sched_setaffinity(0, self.cores)  # the child inherits the cores
        self.started.append(Worker(*command))
        return self.started[-1]

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_) -> None:
        for worker in self.started:
            worker.close()


def in_turns(sides: list[tuple[Worker, dict]], turns: int) -> list[list[list[float]]]:
    """Return seconds per unit, [processor, wall], for each turn of each side."""
    for worker, case in sides:
        worker.ask(json.dumps(case))
    seconds = [[] for _ in sides]
    for turn in range(turns):
        for index in range(len(sides)) if turn % 2 else reversed(range(len(sides))):
            seconds[index].append(sides[index][0].ask(""))
    return seconds


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def row(label: str, seconds: list, units: list[float], reference: int = 0, clock: bool = False) -> list[str]:
    """Return one row: for each side the rate (by processor time, or by the clock) with quartiles, and its ratio to the side
    `reference`."""
    rates = [[unit / turn[clock] for turn in turns] for turns, unit in zip(seconds, units, strict=True)]
    by_clock = [statistics.median(unit / turn[1] for turn in turns) for turns, unit in zip(seconds, units, strict=True)]
    cells = []
    for side, rate in enumerate(rates):
        low, middle, high = quartiles(rate)
        cell = f"{middle:.4g} ({low:.4g} to {high:.4g})"
        if side != reference:
            ratios = [left / right for left, right in zip(rate, rates[reference], strict=True)]
            low, _, high = quartiles(ratios)
            cell += f" | **{middle / statistics.median(rates[reference]):.2f}** ({low:.2f} to {high:.2f})"
            cell += f" | {by_clock[side] / by_clock[reference]:.2f}"
        cells.append(cell)
    return [f"| {label} | " + " | ".join(cells) + " |"]


def head(first: str, *sides: str, reference: str, more: str = "") -> str:
    """Return the head of a table whose rows `row` makes: the rate of the reference, then rate and two ratios per further side."""
    columns = [first, reference] + [cell for side in sides for cell in (side, f"/ {reference}", "clock")]
    columns += [more] if more else []
    count = sum(cell.count("|") for cell in columns) + len(columns)
    return "| " + " | ".join(columns) + " |\n" + "|---" * count + "|"


def transforms(resolution: int, columns: int, real: int, stages: int = 1) -> str:
    """Return the operations of one step's transforms: each takes N lines along the first axis and `columns` along the second."""
    n = resolution
    operations = stages * real * (2.5 * n * n * log2(n) + 5 * columns * n * log2(n))
    return f"{operations / 1e6:.3g}"


def memory_traffic(system: str, resolution: int, dtype, advection: str = "stress") -> float:
    """Return the bytes per step of the spectra and fields of one trajectory, each written and read once.

    `system`: KolmogorovFlow, whose steps have five evaluations, or TwoLayerQG. `dtype`: of the real numbers, with an
    `itemsize`.
    """
    n, size = resolution, dtype.itemsize
    full, narrow, field = n * (n // 2 + 1) * 2 * size, n * int(2 / 3 * (n // 2 + 1)) * 2 * size, n * n * size
    if system == "TwoLayerQG":
        # Of both layers: q, u, v and the fluxes by them, as spectra and as fields; the tendency and the state.
        return 2 * 2 * (7 * full + 5 * field)
    if advection == "stress":
        return 5 * 2 * (7 * narrow + 4 * field)
    return 5 * 2 * (8 * full + 5 * field)


def kolmogorov(turns: int, cores: list[int]) -> Iterator[str]:
    """On one core, by processor time, with the floor; on several by the clock, members shared among as many processes."""
    peer, processes = HERE / ".peers", len(cores)
    alone, floor, clock = processes == 1, "bare transforms (floor)", processes > 1
    solver = "solver" if alone else "solvers"
    where = "one core" if alone else f"{processes} cores, rates by the clock"
    yield f"## Kolmogorov flow, float32, beside jax-cfd 0.2.1 (jit, as many trajectories at once): {where}\n"
    yield "Steps per second and trajectory." + (
        " Floor: the transforms of a step alone, each axis on contiguous, cached arrays.\n"
        "Advective form: 4 inverse and 1 forward transform per evaluation, 5 evaluations per step; stress form: 2 and 2 of\n"
        "two thirds of the columns. Bytes: the spectra and fields of an evaluation, each written and read once.\n"
        if alone
        else f" Ours: the members shared among {processes} processes (a single member in one process); jax-cfd: the cores that XLA takes.\n"
    )
    first, sides = "N, batch", ["advective", "stress"] + [floor] * alone
    yield head(first + " | million operations; MB per step (advective, stress)" * alone, *sides, reference="jax-cfd")
    with Workers(cores) as workers:
        jax_cfd = workers.start(str(peer / "jax/bin/python"), "peers.py", "jax_cfd", *["one_thread"] * alone)
        advective, stress, bare = (workers.start(*PROJECT, kind) for kind in (solver, solver, "transforms"))
        for n in (64, 128, 256, 512):
            columns = int(2 / 3 * (n // 2 + 1))
            for batch in (1, 8, 32):
                case = {"system": "KolmogorovFlow", "resolution": n, "batch": batch, "dtype": "float32", "dt": 1e-3}
                case["processes"] = processes
                bound = {**case, "columns": columns, "stages": 5, "inverse": 2, "forward": 2, "batch": min(batch, 4)}
                ours = {**case, "least": 32}  # the time loop checks its members at such intervals
                sides = [(jax_cfd, case), (advective, ours), (stress, {**ours, "advection": "stress"}), (bare, bound)]
                seconds = in_turns(sides[: 3 + alone], turns)
                bytes_ = [
                    memory_traffic("KolmogorovFlow", n, np.dtype("float32"), form) / 1e6
                    for form in ("advective", "stress")
                ]
                operations = f"{transforms(n, n // 2 + 1, 5, 5)}, {transforms(n, columns, 4, 5)}"
                label = f"{n}, {batch}" + f" | {operations}; {bytes_[0]:.3g}, {bytes_[1]:.3g}" * alone
                yield from row(label, seconds, [batch, batch, batch, bound["batch"]][: 3 + alone], clock=clock)


def qg(turns: int, cores: list[int]) -> Iterator[str]:
    """As `kolmogorov`. Turns have at least 32 steps, since the time loop checks its members at such intervals."""
    peer, processes = HERE / ".peers", len(cores)
    alone, floor, clock = processes == 1, "bare transforms (floor)", processes > 1
    solver = "solver" if alone else "solvers"
    where = "one core" if alone else f"{processes} cores, rates by the clock"
    yield f"\n## Two-layer QG beside pyqg 0.7.2 (float64, one trajectory, FFTW, one thread): {where}\n"
    yield "Steps per second and trajectory; 6 inverse and 4 forward transforms per step on both sides. In complex arithmetic (the"
    yield "default) and in real arithmetic (`arithmetic: real`, equal to rounding).\n"
    sides = ["float64", "float64, real", "float32, real"] + [f"{floor}, float64"] * alone
    yield head("N, batch" + " | million operations" * alone, *sides, reference="pyqg")
    with Workers(cores) as workers:
        pyqg = workers.start(str(peer / "pyqg/bin/python"), "peers.py", "pyqg")
        plain, double, single, bare = (workers.start(*PROJECT, kind) for kind in (*[solver] * 3, "transforms"))
        for n in (64, 128, 256):
            for batch in (1, 8, 32):
                case = {"system": "TwoLayerQG", "resolution": n, "batch": batch, "dtype": "float64", "least": 32}
                case["processes"] = processes
                real = {**case, "arithmetic": "real"}
                bound = {**case, "columns": n // 2 + 1, "stages": 1, "inverse": 6, "forward": 4, "batch": min(batch, 4)}
                sides = [
                    (pyqg, case),
                    (plain, case),
                    (double, real),
                    (single, {**real, "dtype": "float32"}),
                    (bare, bound),
                ]
                label = f"{n}, {batch}" + f" | {transforms(n, n // 2 + 1, 10)}" * alone
                units = [1, batch, batch, batch, bound["batch"]][: 4 + alone]
                yield from row(label, in_turns(sides[: 4 + alone], turns), units, clock=clock)


SOLVERS = {
    "KolmogorovFlow, stress, float32": {
        "system": "KolmogorovFlow",
        "advection": "stress",
        "dtype": "float32",
        "dt": 1e-3,
    },
    "TwoLayerQG, complex, float64": {"system": "TwoLayerQG", "dtype": "float64"},
    "TwoLayerQG, real, float64": {"system": "TwoLayerQG", "arithmetic": "real", "dtype": "float64"},
}


def floors(turns: int, cores: list[int]) -> Iterator[str]:
    """The solvers beside their bare transforms alone, on one core, by processor time. No peer is needed."""
    yield "## Solvers beside the bare transforms of their steps, one core\n"
    yield "Steps per second and trajectory. Bare: the transforms of a step alone, each axis on contiguous, cached arrays. Turns of the"
    yield "solvers have at least 32 steps, since the time loop checks its members at such intervals.\n"
    yield head("solver, N, batch | MB per step", "solver", reference="bare")
    with Workers(cores) as workers:
        bare, solver = workers.start(*PROJECT, "transforms"), workers.start(*PROJECT, "solver")
        for name, options in SOLVERS.items():
            qg = options["system"] == "TwoLayerQG"
            for n in (128, 256) if qg else (128, 256, 512):
                columns = n // 2 + 1 if qg else int(2 / 3 * (n // 2 + 1))
                counts = {"stages": 1, "inverse": 6, "forward": 4} if qg else {"stages": 5, "inverse": 2, "forward": 2}
                traffic = memory_traffic(options["system"], n, np.dtype(options["dtype"])) / 1e6
                for batch in (1, 8, 32):
                    case = {**options, "resolution": n, "batch": batch, "least": 32}
                    bound = {**case, **counts, "columns": columns, "batch": min(batch, 4), "least": 1}
                    seconds = in_turns([(bare, bound), (solver, case)], turns)
                    yield from row(f"{name}, {n}, {batch} | {traffic:.3g}", seconds, [bound["batch"], batch])


def training(turns: int) -> Iterator[str]:
    yield "## Training, samples per second at batch 16, the demo's networks\n"
    yield "The straightforward loop (benchmarks/straightforward.py) takes one pass of the encoder per head, or one that both share.\n"
    sides = ("a shared pass", "ours, float32", "ours", "ours, compiled")
    yield head("model", *sides, reference="straightforward")
    workers = [Worker(*PROJECT, "training") for _ in range(5)]
    for model in ("sns_coloured", "sns_white"):
        cases = [
            {"model": model, "side": "plain", "passes": 2}, {"model": model, "side": "plain", "passes": 1},
            {"model": model, "side": "ours", "precision": "float32"}, {"model": model, "side": "ours"},
            {"model": model, "side": "ours", "compile": True},
        ]  # fmt: skip
        yield from row(model, in_turns(list(zip(workers, cases, strict=True)), turns), [16] * len(cases))
    for worker in workers:
        worker.close()


def refinement(turns: int, results: Path) -> Iterator[str]:
    yield "\n## Refinement, members x steps per second, 8 members, the demo's models\n"
    yield "The straightforward rollout (benchmarks/straightforward.py) takes the same path with the same moves, or with one move"
    yield "per level, as the published code does. The last columns compare a step with the surrogate's, plain and compiled."
    yield f"Every turn of every side makes the same first {ROUND} steps, since the first steps take more network calls.\n"
    yield "Each step examines its pair, except on the sides `configured`: there every n-th step does, as configured (sns_in_place: 2).\n"
    sides = (
        "one move per level", "ours, float32", "ours", "ours, compiled", "surrogate", "surrogate, compiled", "configured",
        "configured, compiled",
    )  # fmt: skip
    yield head("method", *sides, reference="straightforward", more="step / surrogate's | compiled | configured | both")
    workers = [Worker(*PROJECT, "rollout", str(results)) for _ in range(len(sides) + 1)]
    for method in ("sns_in_place", "sns_published"):
        case, alone = {"method": method, "members": 8}, {"method": "pointwise", "members": 8, "side": "ours"}
        cases = [
            {**case, "side": "plain", "precision": "float32"}, {**case, "side": "plain", "precision": "float32", "stride": 1},
            {**case, "side": "ours", "precision": "float32"}, {**case, "side": "ours"}, {**case, "side": "ours", "compile": True},
            alone, {**alone, "compile": True}, {**case, "side": "ours", "configured": True},
            {**case, "side": "ours", "configured": True, "compile": True},
        ]  # fmt: skip
        seconds = in_turns(list(zip(workers, cases, strict=True)), turns)
        middle = [statistics.median(turn[0] for turn in side) for side in seconds]
        costs = " ".join(f"{middle[i] / middle[j]:.2f} |" for i, j in ((3, 5), (4, 6), (7, 5), (8, 6)))
        yield f"{row(method, seconds, [8 * ROUND] * len(cases))[0]} {costs}"
    for worker in workers:
        worker.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", choices=("solvers", "floors", "cores", "training", "refinement"), help="one part instead of all"
    )
    parser.add_argument("--solver", choices=("kolmogorov", "qg"), help="one solver instead of both")
    parser.add_argument("--turns", type=int, default=15, help="turns of each side (default: %(default)s)")
    parser.add_argument(
        "--cores", type=int, nargs="+", default=[0, 1],
        help="all sides share the first core; in the part `cores` the solvers have all cores (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--results",
        type=Path,
        default=HERE.parent / "results/demo/kolmogorov",
        help="the folder of a system in a finished run, with shards/, data/ and models/, and sns_in_place and sns_published in"
        " use.methods (default: results/demo/kolmogorov)",
    )
    arguments = parser.parse_args()
    if arguments.only in (None, "refinement") and not (arguments.results / "shards" / "manifest.json").exists():
        parser.error(
            f"--results {arguments.results}: holds no shards/manifest.json; give the folder of a system in a finished"
            " run, such as results/demo/kolmogorov"
        )
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()).group(1)
    load = os.getloadavg()[0]
    lines = [f"# Speed on {platform.machine()} {cpu}, {datetime.date.today()}", ""]
    lines += [
        f"{arguments.turns} turns of each side; load of the machine's {os.cpu_count()} cores at the start: {load:.1f}.",
        "",
    ]

    def solvers(cores: list[int]) -> Iterator[str]:
        for name, table in (("kolmogorov", kolmogorov), ("qg", qg)):
            if arguments.solver in (None, name):
                yield from table(arguments.turns, cores)

    parts = {
        "solvers": lambda: solvers(arguments.cores[:1]), "floors": lambda: floors(arguments.turns, arguments.cores[:1]),
        "cores": lambda: solvers(arguments.cores), "training": lambda: training(arguments.turns),
        "refinement": lambda: refinement(arguments.turns, arguments.results.resolve()),
    }  # fmt: skip
    for name, part in parts.items():
        if arguments.only in (None, name):
            os.sched_setaffinity(0, set(arguments.cores[:1]))
            for line in part():
                lines.append(line)
                print(line, flush=True)
    tag = re.sub(r"[^A-Za-z0-9]+", "-", f"{platform.machine()} {cpu}").strip("-")
    suffix = "".join(f"_{part}" for part in (arguments.only, arguments.solver) if part)
    path = HERE / "results" / f"speed{suffix}_{datetime.date.today()}_{tag}.md"
    path.write_text("\n".join(lines) + "\n")
    print(path)


if __name__ == "__main__":
    main()
