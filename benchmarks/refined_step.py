"""The parts of one refined step beside the surrogate's step, by processor time: python benchmarks/refined_step.py results/demo

The run needs a method of the kind calibrated_refinement, and its surrogate as a method of its own. The parts are timed in
turn. Prints the table of the medians.
"""

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sns_core.data.emulation import Emulation
from sns_core.data.frames import open_frames
from sns_core.device import use_threads
from sns_core.methods.base import Method
from sns_core.methods.build import build_method
from sns_core.methods.calibration import CALIBRATION
from sns_core.streams import MemberStreams, normal

CALLS = 4  # of each part in one turn


def build(folder: Path, methods: dict, name: str) -> Method:
    """Return a method of the run of one system, with the models of that run."""
    models = {role: folder / "models" / f"{model}.safetensors" for role, model in methods[name]["models"].items()}
    calibration = folder / "calibrations" / f"{name}.json"
    if calibration.exists():
        models[CALIBRATION] = calibration
    return build_method(methods[name], models, Emulation.read(folder / "shards" / "manifest.json"))


def parts_of(
    folder: Path, methods: dict, refined: str, surrogate: str, members: int, student: str | None = None
) -> dict[str, Callable[[], object]]:
    """Return name -> function for each part of a step, and for the step of a `student` that makes it in one call."""
    method, alone = build(folder, methods, refined), build(folder, methods, surrogate)
    states = open_frames(next((folder / "data").glob("test*.nc")), "final_state")["final_state"].values[:members]
    carry = method.start(torch.from_numpy(states))
    single, streams = alone.start(torch.from_numpy(states)), MemberStreams(0, "benchmark", members=range(members))
    network, context, denoiser = method.surrogate.network, method.surrogate.context, method.denoiser
    previous, following = method.whiten(carry["frame"]), method.whiten(method.surrogate(carry["frame"]))
    anchor = method.anchors.of_step(carry, streams.at(1))
    pair = denoiser.encode_pair(previous, following, anchor)
    clean, level = torch.zeros(members, dtype=torch.int64), torch.full((members,), method.calibration.level)

    @torch.no_grad()
    def encode():
        with context:
            return network.encode(carry["frame"][:, None])

    skips, bottom, _ = encode()

    @torch.no_grad()
    def decode():
        with context:
            return network.decode(skips, bottom, None)

    def complete():
        noise = normal(streams.at(1), following.shape[1:], following)
        return method.shell_noise(method.completion, noise, method.sigma)

    in_one_call = {}
    if student:
        distilled = build(folder, methods, student)
        in_one_call["student's step"] = lambda: distilled.step(carry, streams.at(1))
    return {
        "surrogate's step": lambda: alone.step(single, streams.at(1)),
        "refined step": lambda: method.step(carry, streams.at(1)),
        **in_one_call,
        "surrogate, encoder": encode,
        "surrogate, decoder": decode,
        "denoiser, encoder and heads": lambda: denoiser.encode_pair(previous, following, anchor),
        "denoiser, decoder": lambda: denoiser.decode_pair(pair, clean, level),
        "level of the condition": lambda: method.condition_levels(pair, streams.at(1)),
        "completion": complete,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path, help="a finished run's folder, results/<run>")
    parser.add_argument("--method", default="sns", help="a calibrated refinement (default: %(default)s)")
    parser.add_argument("--surrogate", default="pointwise", help="the surrogate alone (default: %(default)s)")
    parser.add_argument("--student", help="a method in one call that learnt from it, sns_distilled for example")
    parser.add_argument(
        "--members", type=int, default=8, help="members that are stepped together (default: %(default)s)"
    )
    parser.add_argument("--turns", type=int, default=9, help="turns of each part (default: %(default)s)")
    arguments = parser.parse_args()
    use_threads(1)
    system, entry = next(iter(json.loads((arguments.run / "provenance.json").read_text())["systems"].items()))
    words = entry["methods"], arguments.method, arguments.surrogate, arguments.members, arguments.student
    parts = parts_of(arguments.run / system, *words)
    spent = {name: [] for name in parts}
    for turn in range(arguments.turns + 1):
        for name, part in parts.items():
            tick = time.process_time()
            for _ in range(CALLS):
                part()
            if turn:  # the first turn warms up
                spent[name].append((time.process_time() - tick) / CALLS * 1e3)
    middle = {name: statistics.median(turns) for name, turns in spent.items()}
    print(f"# A refined step of {arguments.method}, {arguments.members} members, {datetime.date.today()}\n")
    print("| part | ms | / surrogate's step |\n|---|---|---|")
    for name, value in middle.items():
        ratio = statistics.median(a / b for a, b in zip(spent[name], spent["surrogate's step"], strict=True))
        print(f"| {name} | {value:.2f} ({min(spent[name]):.2f} to {max(spent[name]):.2f}) | {ratio:.2f} |")


if __name__ == "__main__":
    main()
