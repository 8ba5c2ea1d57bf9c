# What figures and report are told. Methods keep the configuration's order (rows, colours), so the parameters here are not
# sorted by key.
import json

TABLES = ("metrics", "windows", "scorecard", "cost")
FIGURES = {
    "fields": "1 Fields",
    "phase_space": "2 Phase space",
    "condition_error": "3 Condition and error",
    "temporal": "5 Temporal coherence",
    "ablation": "6 Accuracy and cost",
    "levels": "7 Noise levels",
    "error": "8 Distance from the solver",
    "spectra": "9 Spectra",
    "zonal": "10 Zonal flow",
    "spin_up": "11 Spin-up",
    "distributions": "12 Distributions",
    "scorecard": "13 Scorecard",
    "held_out": "14 Held-out frames and rollouts",
    "cost": "15 Cost",
}
COMPARED = 4  # denoisers from which on it says something to rank them


def figure_names(system):
    """Base names of a run's figures; some need a denoiser around a surrogate, one needs several."""
    needed = {"condition_error": 1, "levels": 1, "held_out": COMPARED}
    return [name for name in FIGURES if len(refinements(system)) >= needed.get(name, 0)]


def labels(wildcards):
    return json.dumps({name: method["label"] for name, method in RESOLVED[wildcards.system]["methods"].items()})


def method_metrics(wildcards):
    return [f"{RESULTS}/{wildcards.system}/metrics/{method}.nc" for method in METHODS]


def trajectories_by_split(system):
    return {split: trajectory_files(system, split) for split in SPLITS}


def shown_in_movie(config):
    """The methods that stand side by side: those of figures.movie.methods that this run has."""
    return [name for name in config["figures"]["movie"]["methods"] if name in METHODS]


def method_segments(wildcards):
    return [path for method in METHODS for path in segment_files(wildcards.system, method)]


def method_diagnostics(wildcards):
    return [f"{RESULTS}/{wildcards.system}/diagnostics/{method}.nc" for method in refinements(wildcards.system)]


def by_method(files, methods=lambda system: METHODS):
    """Parameter function: JSON of method -> its file."""
    return lambda wildcards: json.dumps(dict(zip(methods(wildcards.system), files(wildcards))))


def segments_by_method(wildcards):
    return json.dumps({method: segment_files(wildcards.system, method) for method in METHODS})


def surrogates(wildcards):
    """JSON of refinement -> the method that runs its surrogate alone."""
    system = wildcards.system
    return json.dumps({method: surrogate_rollout(system, method) for method in refinements(system)})


def drawn(name):
    """Outputs of a figure: the PNG, with its caption in `snakemake --report`, and the same page as PDF."""
    base = f"{RESULTS}/{{system}}/figures/{name}"
    shown = report(
        f"{base}.png", caption=f"../report/{name}.rst", category="{system}", labels={"figure": FIGURES[name]}
    )
    return {"png": shown, "pdf": f"{base}.pdf"}


def described(wildcards):
    """JSON of each system's files that tell what made them."""
    found = {}
    for system in SYSTEMS:
        folder = f"{RESULTS}/{system}"
        found[system] = {
            "manifest": f"{folder}/shards/manifest.json",
            "data": trajectories_by_split(system),
            "models": {model: f"{folder}/models/{model}.safetensors" for model in models_used(system)},
            "segments": {method: segment_files(system, method) for method in METHODS},
        }
    return json.dumps(found)


def told(wildcards):
    """JSON of what the page shows of each system; lists keep the configuration's order."""
    found = {}
    for system in SYSTEMS:
        folder, methods = f"{RESULTS}/{system}", RESOLVED[system]["methods"]
        found[system] = {
            "metrics": f"{folder}/metrics.csv",
            "windows": f"{folder}/windows.csv",
            "scorecard": f"{folder}/scorecard.csv",
            "cost": f"{folder}/cost.csv",
            "reference": f"{folder}/metrics/reference.nc",
            "figures": {name: f"{folder}/figures/{name}.png" for name in figure_names(system)},
            "movie": f"{folder}/figures/movie_small.mp4",
            "explorer": f"{folder}/explorer.html",
            "methods": [
                {"name": name, "label": methods[name]["label"], "stepper": methods[name]["stepper"]} for name in methods
            ],
        }
    return json.dumps(found)
