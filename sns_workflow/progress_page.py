"""A page of what a run has come to, while it is going: `snakemake --nolock progress` writes progress.html.

It shows the time left, the jobs by stage, the losses of finished and running trainings, the scores of the methods whose
rollouts are measured, and every figure that is there. Results of this configuration alone are shown, and those that it
would make anew are called stale.
"""

from collections import Counter
from pathlib import Path

import pandas as pd

from sns_core.figures.training import plot_training
from sns_core.files import whole_file
from sns_core.pages import inline, render_page
from sns_core.wording import digits
from sns_workflow.jobs import STATES, Job

TEMPLATE = "progress.html.j2"
SCORES = {
    "window_spectrum_error": "spectrum error (decades)", "spectrum_error": "spectrum error (decades)", "kinetic_energy": "kinetic energy",
    "enstrophy": "enstrophy", "relative_change": "change per step", "calls_per_step": "calls per step",
    "members_lost": "members lost, at most",
}  # fmt: skip


def write_page(folder: Path, config: dict, jobs: list[Job], summary: str, left: str) -> Path:
    """Write the page of a run into its folder, and return its path. `summary`, `left`: lines about jobs and time."""
    stages = {stage: Counter(job.state for job in jobs if job.stage == stage) for stage in _stages(jobs)}
    present = {job.state for job in jobs}
    values = {
        "run": config["run"],
        "summary": summary,
        "left": left,
        "states": [state for state in STATES if state in present],
        "stages": stages,
        "running": [job for job in jobs if job.state == "running"],
        "systems": [_system(folder, name, jobs) for name in config["use"]["systems"]],
    }
    output = folder / "progress.html"
    with whole_file(output) as temporary:
        temporary.write_text(render_page(TEMPLATE, **values), encoding="utf-8")
    return output


def _stages(jobs: list[Job]) -> list[str]:
    return list(dict.fromkeys(job.stage for job in jobs))


def _system(folder: Path, name: str, jobs: list[Job]) -> dict:
    """Return what the page shows of a system."""
    pictures = _present(jobs, folder / name / "figures", ".png")
    return {
        "name": name,
        "training": _training(folder / name, jobs),
        "scores": _scores(_present(jobs, folder / name / "metrics", "_windows.csv")),
        "pictures": [
            {"name": title, "address": inline(path.read_bytes(), "image/png")} for path, title in pictures.items()
        ],
    }


def _present(jobs: list[Job], folder: Path, ending: str) -> dict[Path, str]:
    """Return result -> its name without the ending, with its state unless it is done, of the jobs' results in a folder.

    The folder may hold results of other configurations, too.
    """
    made = sorted(
        (path, job.state)
        for job in jobs
        for path in job.outputs
        if path.parent == folder and path.name.endswith(ending)
    )
    return {
        path: path.name.removesuffix(ending) + (f" ({state})" if state != "done" else "")
        for path, state in made
        if path.exists()
    }


def history_of(model: Path) -> Path | None:
    """Return the history of a finished or running training; None where neither has a row. `model`: the model file."""
    running = sorted(model.parent.glob(f".work/*/{model.stem}.csv"), key=lambda path: path.stat().st_mtime)
    finished = model.with_suffix(".csv")
    return finished if finished.exists() else running[-1] if running else None


def _training(folder: Path, jobs: list[Job]) -> str | None:
    """Return the figure of the losses of a system's models as an address; None without any history."""
    models = {
        job.arguments["name"]: (job.outputs[0], job.arguments["spec"]["training"]["steps"])
        for job in jobs
        if job.stage == "train_model" and job.outputs[0].is_relative_to(folder)
    }
    histories = {name: history for name, (path, _) in models.items() if (history := history_of(path))}
    if not histories:
        return None
    output = folder / "logs" / "training.png"
    plot_training(histories=histories, steps={name: models[name][1] for name in histories}, dpi=100, output=output)
    return inline(output.read_bytes(), "image/png")


def _scores(tables: dict[Path, str]) -> list[dict]:
    """Return a row per method whose rollout is measured: the means of its windows, as text; `tables`: file -> method."""
    rows = []
    for path, method in tables.items():
        table = pd.read_csv(path)
        columns = [column for column in SCORES if column in table]
        row = {"method": method}
        row |= {SCORES[c]: digits(float(table[c].max() if c == "members_lost" else table[c].mean())) for c in columns}
        rows.append(row)
    return rows
