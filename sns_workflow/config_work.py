"""Bounds of work: jobs, bytes, memory and hours that no run needs, mostly asked for by a misplaced digit.

They are checked before any list of jobs is made, which would itself take hours. Each check counts what one key asks
for, and the message gives the amount.
"""

import math
from dataclasses import dataclass

from sns_core.grids import grid_shape
from sns_workflow.config_checks import channels_of
from sns_workflow.config_models import used_models
from sns_workflow.config_values import ConfigurationError

JOBS, BYTES, MEMORY, HOURS = 100_000, 1e14, 2e12, 240.0
SEGMENTS = 10_000  # of one rollout: their names hold four digits
# The least seconds of a step, those of starting its kernels, on any machine.
SECONDS = {"solver steps": 5e-4, "model steps": 1e-3, "training steps": 2e-3}


def check_work(where: str, resolved: dict) -> None:
    """Raise ConfigurationError for the first key of a system that asks for more work than any run can want."""
    sizes = _Sizes.of(resolved)
    amounts = [_check_splits(where, resolved, sizes), _check_reference(where, resolved, sizes)]
    amounts += [_check_method(name, method, resolved, sizes) for name, method in resolved["methods"].items()]
    jobs, stored = map(sum, zip(*amounts, strict=True))
    metrics, members = resolved["metrics"], resolved["rollout"]["members"]
    ensemble = metrics["ensemble"]
    _bound_bytes(
        "metrics.ensemble.members", ensemble["starts"] * ensemble["members"] * sizes.state, "of memory", MEMORY
    )
    _bound_bytes("rollout.steps", stored, "of frames and series", BYTES)
    _bound_bytes("metrics.diagnose.pairs", 10 * metrics["diagnose"]["pairs"] * sizes.frame, "of memory", MEMORY)
    for name in resolved["models"].keys() & used_models(resolved):
        _check_model(f"models.{name}", resolved["models"][name], sizes)
    _bound_bytes("metrics.cost.grids", members * max(metrics["cost"]["grids"]) ** 2 * sizes.state, "of memory", MEMORY)
    _bound_count("rollout.segment_steps", jobs + 4 * len(resolved["methods"]) + 20, "jobs")


@dataclass(frozen=True)
class _Sizes:
    """`frame`, `state`: bytes of a frame, and of a solver's state with its work arrays; `dt`: the solver's time step;
    `substeps`: solver steps per emulator step."""

    frame: int
    state: int
    dt: float
    substeps: float

    @classmethod
    def of(cls, resolved: dict) -> "_Sizes":
        solver, emulator, channels = (
            resolved["system"]["parameters"],
            resolved["emulator"],
            channels_of(resolved["system"]),
        )
        frame = 4 * (channels or 1) * math.prod(grid_shape(emulator["resolution"]))
        state = 80 * (channels or 1) * math.prod(grid_shape(solver["resolution"]))  # ten fields in double precision
        return cls(frame, state, solver["dt"], emulator["step"] / solver["dt"])


def _check_splits(where: str, resolved: dict, sizes: _Sizes) -> tuple[float, float]:
    """Return the jobs that simulate the splits of the data, and the bytes that they store."""
    jobs = stored = 0.0
    data, dt = resolved["data"], f"solver.dt {sizes.dt:g}"
    for split, part in data["splits"].items():
        key, members, frames = f"{where}.data.splits.{split}", part["members"], part["frames"]
        group = data["group_members"] or members
        jobs += _bound_count(f"{where}.data.group_members", members / group, f"jobs of the split {split}")
        _bound_bytes(f"{key}.members", members * frames * sizes.frame, "of frames", BYTES)
        _bound_bytes(f"{key}.members", min(group, members) * sizes.state, "of memory", MEMORY)
        spin_up, substeps = data["spin_up"] / sizes.dt, frames * sizes.substeps
        _bound_hours(f"{where}.data.spin_up", spin_up, "solver steps", f" (spin_up over {dt})")
        _bound_hours(f"{key}.frames", substeps, "solver steps", f" (emulator.step over {dt} for each frame)")
        stored += members * frames * sizes.frame
    return jobs, stored


def _check_reference(where: str, resolved: dict, sizes: _Sizes) -> tuple[float, float]:
    """Return the jobs of the reference ensemble, and 0 bytes: it stores no frames."""
    data, longest = resolved["data"], resolved["rollout"]["segment_steps"]
    reference = data["reference"]
    if not reference:
        return 0.0, 0.0
    key, group = f"{where}.data.reference", data["group_members"] or reference["members"]
    steps = reference["duration"] / resolved["emulator"]["step"]
    chains = _bound_count(f"{key}.members", reference["members"] / group, "chains of jobs of the reference ensemble")
    _bound_bytes(f"{key}.members", min(group, reference["members"]) * sizes.state, "of memory", MEMORY)
    segments = _bound_count(f"{key}.duration", chains * steps / longest, "segments of the reference ensemble")
    _bound_hours(f"{key}.duration", min(steps, longest) * sizes.substeps, "solver steps")
    return chains + segments, 0.0


def _check_method(name: str, method: dict, resolved: dict, sizes: _Sizes) -> tuple[float, float]:
    """Return the jobs of the rollout of a method, and the bytes that it stores."""
    rollout, ensemble = resolved["rollout"], resolved["metrics"]["ensemble"]
    steps, length = (method.get(key, rollout[key]) for key in ("steps", "segment_steps"))
    key = f"methods.{name}" if {"steps", "segment_steps"} & method.keys() else "rollout"
    kind, substeps = ("solver steps", sizes.substeps) if method["kind"] == "solver" else ("model steps", 1)
    segments = f"segments of {steps:,} steps in each rollout of {name}"
    _bound_count(f"{key}.segment_steps", steps / length, segments, SEGMENTS)
    chains = rollout["members"] / (rollout["group_members"] or rollout["members"])
    jobs = _bound_count(f"{key}.segment_steps", chains * steps / length, f"jobs of {name}")
    _bound_hours(f"{key}.segment_steps", min(length, steps) * substeps, kind)
    leads = method.get("leads", ensemble["leads"])
    _bound_hours(
        f"methods.{name}.leads" if "leads" in method else "metrics.ensemble.leads", max(leads) * substeps, kind
    )
    forecasts = ensemble["starts"] * ensemble["members"] * len(leads) * sizes.frame
    _bound_bytes("metrics.ensemble.members", forecasts, "of forecasts", MEMORY)
    series = 100 * steps
    return jobs, rollout["members"] * (steps / rollout["frame_stride"] * sizes.frame + series)


def _check_model(where: str, spec: dict, sizes: _Sizes) -> None:
    """Check the weights, hours and memory of the training of a model."""
    network, training = spec["network"], spec["training"]
    widths = [network["width"] * factor for factor in network["multipliers"]]
    weights = sum(4 * 9 * 4 * network["blocks"] * width**2 for width in widths)
    _bound_bytes(f"{where}.network.width", weights * 4, "of weights", MEMORY / 20)
    _bound_hours(f"{where}.training.steps", training["steps"], "training steps")
    activations = training["batch"] * training["unroll"] * sizes.frame * max(widths)
    _bound_bytes(f"{where}.training.batch", activations, "of memory", MEMORY)


def _bound_count(key: str, number: float, what: str, most: float = JOBS) -> float:
    """Return `number`, or refuse it where it exceeds `most`."""
    if number > most:
        _refuse(key, f"{number:,.0f} {what}", f"{most:,.0f}")
    return number


def _bound_bytes(key: str, number: float, what: str, most: float) -> None:
    if number > most:
        _refuse(key, f"{number / 1e12:,.0f} TB {what}", f"{most / 1e12:,.0f} TB")


def _bound_hours(key: str, steps: float, kind: str, origin: str = "") -> None:
    """Refuse steps, a kind of SECONDS, that one job cannot make in HOURS; `origin`: how their number comes about."""
    hours = steps * SECONDS[kind] / 3600
    if hours > HOURS:
        amount = f"one job of {steps:.3g} {kind}{origin} in turn, which take {hours:,.0f} hours on any machine"
        _refuse(key, amount, f"{HOURS:g}")


def _refuse(key: str, amount: str, bound: str) -> None:
    raise ConfigurationError(f"{key}: would make {amount}, and at most {bound} are allowed; nothing has been started")
