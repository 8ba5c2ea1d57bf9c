"""Say what the files of a run's sources hold, before anything runs: `snakemake inspect --configfile mine.yaml`.

For each system with a `source`: variables, grid, step, members and frames of each split, bytes and memory, whether the
data suffice, and the time that training will take. A picture is written into the run's folder.
"""

import argparse
import json
import math
import sys
from pathlib import Path

from sns_core.errors import UserError
from sns_core.grids import grid_shape, grid_text
from sns_workflow import configuration
from sns_workflow.jobs import Job
from sns_workflow.plan import Scale, estimate, in_bytes, rough_duration


def describe(name: str, resolved: dict, picture: Path) -> tuple[list[str], bool]:
    """Return the lines about one system, and whether its data suffice; `picture`: the PNG that is drawn."""
    from sns_core.evaluation.source_check import check_source
    from sns_core.figures.source import draw_source

    parameters, emulator, splits = resolved["system"]["parameters"], resolved["emulator"], resolved["data"]["splits"]
    units = "" if parameters["time_units"] == "1" else f" {parameters['time_units']}"
    length = "" if parameters["length_units"] == "1" else f" {parameters['length_units']}"
    (height, width), channels = grid_shape(emulator["resolution"]), len(parameters["layers"])
    plane = " points (y, x), longer side" if height > 1 else ", length"
    lines = [
        f"{name}: {', '.join(parameters['layers'])} on {grid_text(emulator['resolution'])}{plane} "
        f"{parameters['length']:.4g}{length}, a frame every {emulator['step']:g}{units}"
    ]
    walls = [axis for axis, mirror in zip("yx", parameters["mirrored"], strict=True) if mirror]
    if walls:
        lines.append(
            f"  walls      along {' and '.join(walls)}: points and length count the field and its mirror image"
        )
    if static := resolved["source"]["static"]:
        lines.append(f"  static     {', '.join(static['variables'])}, which every network sees, from {static['file']}")
    if parameters["offset"]:
        lines.append(
            f"  means      taken away from the channels: {', '.join(f'{mean:.15g}' for mean in parameters['offset'])}"
        )
    files, total = resolved["source"]["files"], 0
    if not isinstance(files, dict):
        lines.append(f"  files      {len(files)}, split by {resolved['source']['splits']['by']}")
    for split, size in splits.items():
        amount = 4 * channels * height * width * size["members"] * size["frames"]
        total += amount
        origin = f", from {len(files[split])} files" if isinstance(files, dict) else ""
        members = f"{size['members']} member{'' if size['members'] == 1 else 's'}"
        lines.append(f"  {split:10} {members} of {size['frames']} frames, {in_bytes(amount)}{origin}")
    lines.append(f"  disk       {in_bytes(2 * total)}: frames are kept as netCDF and as shards")
    steps = resolved["methods"]["solver"]["steps"]
    lines.append(
        f"  rollouts   start at frame {resolved['source']['start']} and are compared with the files for {steps} steps"
    )
    check = check_source(resolved["source"], resolved["system"], emulator, splits["train"])
    findings = check.findings()
    lines += [f"  {'ok' if good else 'CHECK':10} {sentence}" for good, sentence in findings]
    lines += [f"  training   {model}: about {taken} on one core" for model, taken in _training_times(resolved).items()]
    draw_source(check, parameters["layers"], parameters["time_units"], picture)
    lines.append(f"  picture    {picture}")
    return lines, all(good for good, _ in findings)


def _training_times(resolved: dict) -> dict[str, str]:
    """Return model -> hours or minutes of its training, of the models that methods of the run use."""
    scale, times = Scale(resolved), {}
    for model in sorted(configuration.used_models(resolved)):
        job = Job("train_model", {"name": model, "spec": resolved["models"][model]}, "")
        seconds = estimate(job, scale).seconds("core")
        times[model] = rough_duration(seconds) if math.isfinite(seconds) else "?"
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--snakefile", required=True)
    parser.add_argument("--configuration", type=Path, required=True, help="the whole configuration, as JSON in a file")
    arguments = parser.parse_args()
    config = json.loads(arguments.configuration.read_text())
    sourced = [name for name in config["use"]["systems"] if "source" in config["systems"][name]]
    if not sourced:
        print("no system of this run has a source; docs/your-own-flow.md shows how to name files")
    for name in sourced:
        picture = Path(config["results"], config["run"], name, "source.png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        try:
            lines, suffices = describe(name, configuration.resolve(config, name), picture)
        except UserError as error:
            print(f"{name}: {error}")
            return 1
        print("\n".join(lines))
        print(
            "  next       snakemake --cores all, with the same --configfile"
            + ("" if suffices else ", after a look at CHECK")
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
