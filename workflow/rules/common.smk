# Names and helpers that the rules share. The settings of a job are the slice of the configuration that its stage uses, and a
# fingerprint stands for the stage's code: a rule reruns when one of these changes, and only then.
import shutil

SYSTEMS = config["use"]["systems"]
METHODS = config["use"]["methods"]
SPLITS = ("train", "validation", "test")
RESULTS = f"{config['results']}/{config['run']}"
RESOLVED = {name: configuration.resolve(config, name) for name in SYSTEMS}
# Results that this run takes from another run, by their names below the run's folder.
REUSED = configuration.reused_results(config)
ENVIRONMENT = "../../envs/sns.yaml"
PYTHON = python(deployed=bool(workflow.deployment_settings.deployment_method))


wildcard_constraints:
    system="|".join(SYSTEMS),
    method="|".join(METHODS),
    split="|".join(SPLITS),
    members="(_[0-9]+-[0-9]+)?",
    model="[A-Za-z0-9._-]+",
    index="[0-9]{4}",
    group="[0-9]+-[0-9]+",


# Memory and time


def resource(rule, name):
    """Resource function: what the configuration says that a job of the rule takes, more at each further attempt."""
    return lambda wildcards, attempt: config["resources"][rule][name] * attempt


def count_gpus(devices=1) -> int:
    """GPUs of a job with tensors: `hardware.device: auto` takes them where this machine has any."""
    if config["hardware"]["device"] == "auto":
        return devices * int(shutil.which("nvidia-smi") is not None)
    return devices * int(config["hardware"]["device"].startswith("cuda"))


def resources_of(rule) -> dict:
    """Memory and time of a rule's jobs, as the configuration states them."""
    return {name: resource(rule, name) for name in ("mem_mb", "runtime")}


def small_job(mem_mb=1000, runtime=10) -> dict:
    """Memory in MB and time in minutes of a job that takes seconds."""
    return {
        "mem_mb": lambda wildcards, attempt: mem_mb * attempt,
        "runtime": lambda wildcards, attempt: runtime * attempt,
    }


# Parameters


def config_slice(*keys):
    """Setting of a rule: a slice of the system's resolved configuration."""

    def select(wildcards):
        value = RESOLVED[wildcards.system]
        for key in keys:
            value = value[key.format(**wildcards)]
        return in_order_of_keys(value)

    return select


def fingerprint_of(stage, user_code=lambda wildcards: [], templates=()):
    """Parameter function: the fingerprint of a stage's code with the job's system and the user's own code."""

    def evaluate(wildcards):
        system = [RESOLVED[wildcards.system]["system"]["name"]] if builds_systems(stage) else []
        return fingerprint(stage, *system, *user_code(wildcards), templates=tuple(templates))

    return evaluate


def parameters(stage, user_code=lambda wildcards: [], templates=(), processes=1, offered={}, **values) -> dict:
    """The params of a stage's rule: its settings (see sns_workflow.command), its fingerprint and what starts it.

    `values`: name -> value of each setting, or a function of the wildcards; `offered`: more of them, for stages that take them.

    Snakemake does not compare parameters that are computed from `output`. So another interpreter, another place of the clone
    or another number of devices, which change nothing that is learnt but for rounding, make no job run again.
    """
    torchrun = f"-m torch.distributed.run --standalone --nproc-per-node={processes} -m --"
    return {
        "settings": settings(stage, values, offered),
        "code": fingerprint_of(stage, user_code, templates),
        "launcher": lambda wildcards, output: f"{PYTHON} {'-m' if processes == 1 else torchrun}",
    }


def get_method_class(wildcards) -> list[str]:
    """The class of a method, whose code its rollouts depend on."""
    return [class_of(get_methods(wildcards.system)[wildcards.method]["kind"])]


def get_user_metrics(wildcards) -> list[str]:
    return RESOLVED[wildcards.system]["metrics"]["user"]


# Methods and their models


def get_methods(system) -> dict:
    """The methods of this run, in the configuration's order."""
    return RESOLVED[system]["methods"]


def get_restartable_methods(system) -> list[str]:
    """Methods that can be started again, from states of our choice."""
    return [name for name, method in get_methods(system).items() if method["kind"] != "external"]


def get_models(system) -> list[str]:
    """Models that the methods of this run need, in the configuration's order."""
    needed = {model for method in get_methods(system).values() for model in method["models"].values()}
    return [model for model in RESOLVED[system]["models"] if model in needed]


def get_model_roles(system, method) -> dict:
    """Role -> file of each model of a method."""
    folder = f"{RESULTS}/{system}/models"
    roles = get_methods(system)[method]["models"]
    return {role: f"{folder}/{roles[role]}.safetensors" for role in sorted(roles)}


def get_method_options(system, method) -> dict:
    """What a method is built from; labels and lengths are no part of it."""
    apart = set(configuration.METHOD_KEYS) - {"kind"}
    options = {key: value for key, value in get_methods(system)[method].items() if key not in apart}
    return in_order_of_keys(options)


def get_refinements(system) -> list[str]:
    """Methods that examine a denoiser around a surrogate: the first one of those with the same models and read-out."""
    examined = {}
    for name, method in get_methods(system).items():
        # Reused data hold no frames to examine a denoiser with: a diagnosis that is not reused is left out.
        if method["kind"] == "refinement" and (not REUSED or f"{system}/diagnostics/{name}.nc" in REUSED):
            examined.setdefault(configuration.as_parameter([method["models"], method.get("readout")]), name)
    return list(examined.values())


def get_surrogate_method(system, method) -> str:
    """The method of this run that runs the surrogate of a refinement alone."""
    surrogate = get_methods(system)[method]["models"]["surrogate"]
    for name, candidate in get_methods(system).items():
        if candidate["kind"] == "pointwise" and candidate["models"]["surrogate"] == surrogate:
            return name
    raise WorkflowError(
        f"methods.{method}: its surrogate {surrogate!r} needs a pointwise method of its own under use.methods"
    )


# Files


def get_manifest(wildcards) -> str:
    return f"{RESULTS}/{wildcards.system}/shards/manifest.json"


def get_reference(wildcards) -> str:
    return f"{RESULTS}/{wildcards.system}/metrics/reference.nc"


def list_trajectories(system, split) -> list[str]:
    """Trajectories of a split: one file, or one for each group of its members."""
    data = RESOLVED[system]["data"]
    groups = configuration.member_groups({**data["splits"][split], "group_members": data["group_members"]})
    names = [f"{split}_{group}" for group in groups] if data["group_members"] else [split]
    return [f"{RESULTS}/{system}/data/{name}.nc" for name in names]


def get_trajectories(wildcards) -> dict:
    """Split -> its trajectories."""
    return {split: list_trajectories(wildcards.system, split) for split in SPLITS}


def get_test_trajectories(wildcards) -> list[str]:
    return list_trajectories(wildcards.system, "test")


def get_model_files(wildcards) -> list[str]:
    """Files of the models that a method needs; of an external method, the file that it is read from."""
    method = get_methods(wildcards.system)[wildcards.method]
    external = [method["file"]] if method["kind"] == "external" else []
    return external + list(get_model_roles(wildcards.system, wildcards.method).values())


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
