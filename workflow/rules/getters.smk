# What the jobs of the rules read and which settings they take: functions of a job's wildcards (`get_...`), or of names.
import math


def get_method_class(wildcards) -> list[str]:
    """The class of a method, on whose code its results depend."""
    return [class_of(get_methods(wildcards.system)[wildcards.method]["kind"])]


def get_objective_class(wildcards) -> list[str]:
    """The class of a model's objective, on whose code the model depends."""
    return [objective_class(RESOLVED[wildcards.system]["models"][wildcards.model]["objective"])]


def get_user_metrics(wildcards) -> list[str]:
    return RESOLVED[wildcards.system]["metrics"]["user"]


# Methods and their models


def get_methods(system) -> dict:
    """The methods of this run, in the configuration's order."""
    return RESOLVED[system]["methods"]


def get_restartable_methods(system) -> list[str]:
    """Methods that can be started again, from states of our choice."""
    return [name for name, method in get_methods(system).items() if method["kind"] != "external"]


def get_forecast_methods(system) -> list[str]:
    """Methods whose forecasts are scored, and the solver or the trajectories of files, which hold the truth."""
    return [name for name in get_methods(system) if name == "solver" or name in get_restartable_methods(system)]


def get_models(system) -> list[str]:
    """Models that the methods of this run need, and those that they learn from, in the configuration's order."""
    needed = configuration.used_models(RESOLVED[system])
    return [model for model in RESOLVED[system]["models"] if model in needed]


def get_teachers(wildcards) -> dict:
    """Role -> file of each model that a training learns from, and of the calibration that it reads."""
    spec, folder = RESOLVED[wildcards.system]["models"][wildcards.model], f"{RESULTS}/{wildcards.system}"
    roles = configuration.teachers_of(spec)
    files = {role: f"{folder}/models/{roles[role]}.safetensors" for role in sorted(roles)}
    return files | (
        {"calibration": f"{folder}/calibrations/{spec['calibration']}.json"} if "calibration" in spec else {}
    )


def get_model_roles(system, method) -> dict:
    """Role -> file of each model of a method."""
    folder = f"{RESULTS}/{system}/models"
    roles = get_methods(system)[method]["models"]
    return {role: f"{folder}/{roles[role]}.safetensors" for role in sorted(roles)}


@functools.cache  # each job asks, and the answer is read from the files that define the methods
def list_calibrated(system) -> tuple[str, ...]:
    """Methods of this run that are calibrated."""
    return tuple(name for name, method in get_methods(system).items() if is_calibrated(method["kind"]))


def get_calibrations(wildcards) -> dict:
    """Calibrated method -> its calibration."""
    folder = f"{RESULTS}/{wildcards.system}/calibrations"
    return {method: f"{folder}/{method}.json" for method in list_calibrated(wildcards.system)}


def get_measured_roles(system, method) -> dict:
    """Role -> file of each model of a method, and of its calibration if it has one."""
    roles = get_model_roles(system, method)
    if method in list_calibrated(system):
        roles["calibration"] = f"{RESULTS}/{system}/calibrations/{method}.json"
    return roles


def get_method_options(system, method) -> dict:
    """What a method is built from; labels and lengths are no part of it."""
    no_options = set(configuration.METHOD_KEYS) - {"kind"}
    options = {key: value for key, value in get_methods(system)[method].items() if key not in no_options}
    return in_order_of_keys(options)


def get_refinements(system) -> list[str]:
    """Methods that examine a denoiser around a surrogate: the first one of those with the same models and read-out."""
    examined = {}
    for name, method in get_methods(system).items():
        # Reused data hold no frames to examine a denoiser with: a diagnosis that is not reused is left out.
        if method["kind"] in REFINEMENTS and (not REUSED or f"{system}/diagnostics/{name}.nc" in REUSED):
            examined.setdefault(configuration.as_parameter([method["models"], method.get("readout")]), name)
    return list(examined.values())


def get_surrogate_method(system, method) -> str:
    """The method of this run that runs the surrogate of a refinement alone."""
    surrogate = get_methods(system)[method]["models"]["surrogate"]
    for name, candidate in get_methods(system).items():
        if candidate["kind"] in ALONE and candidate["models"]["surrogate"] == surrogate:
            return name
    raise WorkflowError(
        f"methods.{method}: its surrogate {surrogate!r} needs a method of its own under use.methods, which runs it alone"
    )


def network_setting(name, without):
    """Setting of a stage that runs one method: one of `hardware` that concerns networks. `without`: for a method without any."""
    return lambda wildcards: (
        without
        if get_methods(wildcards.system)[wildcards.method]["kind"] in WITHOUT_NETWORKS
        else config["hardware"][name]
    )


# Settings of every stage that runs one method.
METHOD = {
    "name": lambda wildcards: wildcards.method,
    "method": lambda wildcards: get_method_options(wildcards.system, wildcards.method),
    "models": lambda wildcards: get_measured_roles(wildcards.system, wildcards.method),
    "seed": config["seed"],
    "device": config["hardware"]["device"],
    "precision": network_setting("precision", without="auto"),
}


# Files


def get_manifest(wildcards) -> str:
    return f"{RESULTS}/{wildcards.system}/shards/manifest.json"


def list_shards(system) -> list[str]:
    """Shards of a data set, which rules name only in a call with a storage provider. Elsewhere the manifest stands for them."""
    if not IN_STORAGE:
        return []
    data = RESOLVED[system]["data"]
    counts = {split: math.ceil(data["splits"][split]["members"] / data["shard_members"]) for split in SPLITS}
    names = [f"{split}_{i:04d}" for split in SPLITS for i in range(counts[split])]
    if RESOLVED[system].get("source", {}).get("static"):
        names.append("static")
    return [f"{RESULTS}/{system}/shards/{name}.npy" for name in names]


def get_shards(wildcards) -> list[str]:
    return list_shards(wildcards.system)


def get_reference(wildcards) -> str:
    return f"{RESULTS}/{wildcards.system}/metrics/reference.nc"


def get_floors(wildcards) -> str:
    return f"{RESULTS}/{wildcards.system}/metrics/floors.csv"


def get_split(system, split) -> dict:
    """Members and frames of a split; of the states of the reference ensemble, one frame is kept."""
    data = RESOLVED[system]["data"]
    return {**data["reference"], "frames": 1} if split == ENSEMBLE else data["splits"][split]


def list_trajectories(system, split) -> list[str]:
    """Trajectories of a split: one file, or one for each group of its members."""
    data = RESOLVED[system]["data"]
    if split == ENSEMBLE and system in SOURCED:
        return list_trajectories(system, "test")  # all of its members are the ensemble
    groups = configuration.member_groups({**get_split(system, split), "group_members": data["group_members"]})
    names = [f"{split}_{group}" for group in groups] if data["group_members"] else [split]
    return [f"{RESULTS}/{system}/data/{name}.nc" for name in names]


def list_checks(system) -> list[str]:
    """The check of the data's stationarity; none where reused data bring none, since it needs frames, which they lack."""
    name = f"{system}/data/stationarity.csv"
    return [f"{RESULTS}/{name}"] if not REUSED or name in REUSED else []


def get_check(wildcards) -> list[str]:
    return list_checks(wildcards.system)


def get_required_check(wildcards) -> list[str]:
    """The check, where training may begin only after it."""
    return get_check(wildcards) if RESOLVED[wildcards.system]["data"]["require_stationary"] else []


def get_trajectories(wildcards) -> dict:
    """Split -> its trajectories."""
    return {split: list_trajectories(wildcards.system, split) for split in SPLITS}


def list_reference_segments(system) -> list[str]:
    """Segments of the reference ensemble, a chain for each group of members; none in a run without one."""
    spans, groups = configuration.reference_spans(RESOLVED[system]), configuration.reference_groups(RESOLVED[system])
    folder = f"{RESULTS}/{system}/{ENSEMBLE}"
    return [f"{folder}/{group}/segment_{index:04d}.nc" for group in groups for index in range(len(spans))]


def get_reference_segments(wildcards) -> list[str]:
    return list_reference_segments(wildcards.system)


def get_ensemble_of_reference(wildcards) -> list[str]:
    """The ensemble that is the reference; none where it is the test split, as for trajectories of files."""
    return [] if wildcards.system in SOURCED else list_reference_segments(wildcards.system)


def get_recorded_file(wildcards) -> list[str]:
    """Trajectories of files that stand in the solver's place, from the frame on from which rollouts start."""
    return [get_methods(wildcards.system)["solver"]["file"]] if wildcards.system in SOURCED else []


def get_test_trajectories(wildcards) -> list[str]:
    return list_trajectories(wildcards.system, "test")


def get_model_files(wildcards) -> list[str]:
    """Files of the models that a method needs; of an external method, the file that it is read from."""
    method = get_methods(wildcards.system)[wildcards.method]
    external = [method["file"]] if method["kind"] == "external" else []
    return external + list(get_measured_roles(wildcards.system, wildcards.method).values())


def list_spans(system, method) -> list[tuple[int, int]]:
    """(first step, steps) of each segment of a rollout."""
    return configuration.segments(get_methods(system)[method], RESOLVED[system]["rollout"])


def list_segments(system, method) -> list[str]:
    """Segments of a rollout, a chain for each group of members."""
    return [
        f"{RESULTS}/{system}/rollouts/{method}/{group}/segment_{index:04d}.nc"
        for group in configuration.member_groups(RESOLVED[system]["rollout"])
        for index in range(len(list_spans(system, method)))
    ]


def get_segments(wildcards) -> dict:
    """Method -> segments of its rollout."""
    return {method: list_segments(wildcards.system, method) for method in METHODS}


def get_metrics(wildcards) -> dict:
    """Method -> file of its metrics."""
    return {method: f"{RESULTS}/{wildcards.system}/metrics/{method}.nc" for method in METHODS}


def get_diagnostics(wildcards) -> dict:
    """Refinement -> diagnosis of its denoiser."""
    folder = f"{RESULTS}/{wildcards.system}/diagnostics"
    return {method: f"{folder}/{method}.nc" for method in get_refinements(wildcards.system)}


def files_of(getter):
    """Input function: all files that a getter names, also inside mappings and lists."""

    def flatten(value) -> list[str]:
        if isinstance(value, str):
            return [value]
        return [path for inner in (value.values() if isinstance(value, dict) else value) for path in flatten(inner)]

    return lambda wildcards: flatten(getter(wildcards))


# Data


def get_members(wildcards) -> list[int]:
    """Members of a job of `simulate_trajectories`: a group, or all members of the split."""
    if wildcards.members:
        return configuration.members_of(wildcards.members.removeprefix("_"))
    return list(range(get_split(wildcards.system, wildcards.split)["members"]))


def get_source_files(wildcards) -> list[str]:
    """Files of a system's source, of the split where they are named by split; with those of static fields for training."""
    source = RESOLVED[wildcards.system]["source"]
    files, static = source["files"], source["static"] or {}
    files = files if isinstance(files, list) else files["test" if wildcards.split == "continued" else wildcards.split]
    return [*files, static["file"]] if static and wildcards.split == "train" else files


def get_recorded(wildcards) -> dict:
    """Members and frames of a split of a source."""
    resolved = RESOLVED[wildcards.system]
    if wildcards.split != "continued":
        return resolved["data"]["splits"][wildcards.split]
    first, steps = configuration.reference_spans(resolved)[-1]
    return {"members": resolved["data"]["reference"]["members"], "frames": first + steps + 1}


# Rollouts


def get_restart(wildcards) -> list[str]:
    """Restart file of the segment before; none for the first."""
    index = int(wildcards.index)
    chain = f"rollouts/{wildcards.method}" if hasattr(wildcards, "method") else ENSEMBLE
    folder = f"{RESULTS}/{wildcards.system}/{chain}/{wildcards.group}"
    return [f"{folder}/restart_{index - 1:04d}.safetensors"] if index else []


def get_span(wildcards) -> tuple[int, int]:
    """(first step, steps) of a segment."""
    return list_spans(wildcards.system, wildcards.method)[int(wildcards.index)]


def get_reference_span(wildcards) -> tuple[int, int]:
    """(first step, steps) of a segment of the reference ensemble."""
    return configuration.reference_spans(RESOLVED[wildcards.system])[int(wildcards.index)]


def get_leads(wildcards) -> list[int]:
    """Steps after which a method's forecasts are scored."""
    leads = RESOLVED[wildcards.system]["metrics"]["ensemble"]["leads"]
    return get_methods(wildcards.system)[wildcards.method].get("leads", leads)


# Metrics


def get_lengths(wildcards) -> list[int]:
    """Numbers of steps of the runs that have floors: the rollouts, and the runs of the solver on other grids."""
    rollout, cost = (RESOLVED[wildcards.system][key] for key in ("rollout", "metrics"))
    lengths = {method.get("steps", rollout["steps"]) for method in get_methods(wildcards.system).values()}
    on_grids = set() if wildcards.system in SOURCED else {counted_steps(cost["cost"]["spectrum_steps"])}
    return sorted(lengths | on_grids)


def count_dask_cores(wildcards) -> int:
    """Cores of a job that computes by dask: those of its threads or processes; its SLURM jobs have their own."""
    dask = RESOLVED[wildcards.system]["metrics"]["dask"]
    return dask["workers"] if dask["scheduler"] != "slurm" else 1


def get_dask_memory(wildcards, attempt) -> int:
    """MB of such a job; processes of dask come on top of the job's own process."""
    dask = RESOLVED[wildcards.system]["metrics"]["dask"]
    shares = {"threads": dask["workers"], "local": dask["workers"] + 1, "slurm": 1}
    return dask["memory"] * shares[dask["scheduler"]] * attempt


# Cost


def get_finest_grid(wildcards) -> int:
    """Points along the longer side of the finest grid on which forecasts are made."""
    resolved = RESOLVED[wildcards.system]
    return round(
        resolved["metrics"]["cost"]["finest_forecast"] * longer_side(resolved["system"]["parameters"]["resolution"])
    )


def count_cores(wildcards) -> int:
    """Cores of a job that is timed: all that this call has, so that nothing runs beside it; on a cluster one."""
    return (workflow.resource_settings.cores or 1) if workflow.local_exec else 1


def get_timed_methods(wildcards) -> dict:
    """Method -> its options and the files of its models, for each method that is timed.

    They are sorted, so that another order of the methods times nothing again.
    """
    system = wildcards.system
    return {
        name: {"method": get_method_options(system, name), "models": get_measured_roles(system, name)}
        for name in sorted(get_restartable_methods(system))
    }


def get_timed_files(wildcards) -> list[str]:
    """Files of the models and calibrations of the methods that are timed, each once."""
    timed = get_timed_methods(wildcards).values()
    return list(dict.fromkeys(path for method in timed for path in method["models"].values()))


def get_timed_classes(wildcards) -> list[str]:
    """Classes of the methods that are timed."""
    methods = get_methods(wildcards.system)
    return sorted({class_of(methods[name]["kind"]) for name in get_restartable_methods(wildcards.system)})


def get_models_of_methods(wildcards) -> dict:
    """Method -> names of the models that were trained for it, sorted: the order of roles is no part of the configuration."""
    methods, models = get_methods(wildcards.system), RESOLVED[wildcards.system]["models"]
    return {
        name: sorted(configuration.with_teachers(methods[name]["models"].values(), models))
        for name in get_restartable_methods(wildcards.system)
    }


def get_notes(wildcards) -> dict:
    """Model -> the JSON beside it."""
    return {model: f"{RESULTS}/{wildcards.system}/models/{model}.json" for model in get_models(wildcards.system)}


# Figures


def get_labels(wildcards) -> dict:
    """Method -> label, in the order of the methods, which rows and colours follow."""
    return {name: method["label"] for name, method in get_methods(wildcards.system).items()}


def get_surrogate_methods(wildcards) -> dict:
    """Refinement -> the method that runs its surrogate alone."""
    system = wildcards.system
    return {method: get_surrogate_method(system, method) for method in get_refinements(system)}


def get_tables(system) -> list[str]:
    """Names of a system's tables."""
    return ["metrics", "windows", "scorecard", *([] if system in SOURCED else ["cost"])]


def get_table(name):
    """Input function: a table of the system."""
    return lambda wildcards: f"{RESULTS}/{wildcards.system}/{name}.csv"


def is_row(system) -> bool:
    """Return whether the frames of a system are a single row of points."""
    return grid_shape(RESOLVED[system]["emulator"]["resolution"])[0] == 1


def list_figures(system) -> list[str]:
    """Base names of a system's figures, without those that need what it lacks.

    Figures of a denoiser need one around a surrogate, and the one that ranks them needs four; the distance from the solver
    needs a method beside it, and the zonal mean a velocity that depends on y.
    """
    least = {"condition_error": 1, "levels": 1, "held_out": 4}
    lacking = {
        "calibration": not list_calibrated(system),
        "cost": "cost" not in get_tables(system),
        "error": list(get_methods(system)) == ["solver"],
        "zonal": RESOLVED[system]["system"]["parameters"].get("velocity") == "none" or is_row(system),
    }
    enough = [name for name in FIGURES if len(get_refinements(system)) >= least.get(name, 0)]
    return [name for name in enough if not lacking.get(name, False)]


# Movie and explorer


def get_methods_shown(wildcards) -> list[str]:
    """The methods that stand side by side."""
    return configuration.movie_methods(config)


# Report


def get_captions(wildcards) -> dict:
    """Name of a figure -> the text of its caption."""
    return {name: Path(path).read_text(encoding="utf-8") for name, path in CAPTIONS.items()}


def get_provenance_files(wildcards) -> dict:
    """System -> files that tell what made its results."""
    files = {}
    for system in SYSTEMS:
        folder, ensemble = f"{RESULTS}/{system}", [ENSEMBLE] if list_reference_segments(system) else []
        files[system] = {
            "manifest": f"{folder}/shards/manifest.json",
            "data": {split: list_trajectories(system, split) for split in (*SPLITS, *ensemble)},
            "models": {model: f"{folder}/models/{model}.safetensors" for model in get_models(system)},
            "segments": {
                **{method: list_segments(system, method) for method in METHODS},
                **{name: list_reference_segments(system) for name in ensemble},
            },
        }
    return files


def get_methods_of_systems(wildcards) -> dict:
    """System -> its methods in their order; within a method, keys are sorted: their order in a file means nothing."""
    return {
        system: {name: in_order_of_keys(method) for name, method in get_methods(system).items()} for system in SYSTEMS
    }


def get_report_files(wildcards) -> dict:
    """System -> what the report shows of it; methods and figures keep their order."""
    files = {}
    for system in SYSTEMS:
        folder, methods = f"{RESULTS}/{system}", get_methods(system)
        files[system] = {
            **{table: f"{folder}/{table}.csv" for table in get_tables(system)},
            "reference": f"{folder}/metrics/reference.nc",
            "floors": f"{folder}/metrics/floors.csv",
            **{"stationarity": path for path in list_checks(system)},
            "figures": {name: f"{folder}/figures/{name}.png" for name in list_figures(system)},
            "movie": f"{folder}/figures/movie_small.mp4",
            "explorer": f"{folder}/explorer.html",
            "truth": "data" if system in SOURCED else "solver",
            "methods": [
                # Trajectories of files stand in the solver's place.
                {"name": name, "label": method["label"], "kind": "solver" if name == "solver" else method["kind"]}
                for name, method in methods.items()
            ],
        }
    return files
