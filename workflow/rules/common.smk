# Names and helpers that the rules share. Every parameter is the slice of the configuration that its rule uses, as JSON
# with sorted keys, and a fingerprint of the code behind it: a rule reruns when one of these changes, and only then.
import shutil

SYSTEMS = config["use"]["systems"]
METHODS = config["use"]["methods"]
SPLITS = ("train", "validation", "test")
RESULTS = f"{config['results']}/{config['run']}"
RESOLVED = {name: configuration.resolve(config, name) for name in SYSTEMS}
# Results that this run takes from another one, by their names below a run's folder.
GIVEN = configuration.reused_results(config)
ENVIRONMENT = Path(PROJECT, "envs", "sns.yaml")


wildcard_constraints:
    system="|".join(SYSTEMS),
    method="|".join(METHODS),
    split="|".join(SPLITS),
    members="(_[0-9]+-[0-9]+)?",
    model="[A-Za-z0-9._-]+",
    index="[0-9]{4}",
    group="[0-9]+-[0-9]+",


def stage(name, launcher="python -m", threads="{threads}") -> str:
    """The beginning of every shell command: the stage, with what each stage is told; the rule adds its arguments."""
    return f"{launcher} sns_core {name} --threads {threads} --code {{params.code}} --log {{log:q}} "


def gpus(count=1) -> int:
    """GPUs that a job with tensors asks for: `hardware.device: auto` takes as many as it may where this machine has any."""
    if config["hardware"]["device"] == "auto":
        return count * int(shutil.which("nvidia-smi") is not None)
    return count * int(config["hardware"]["device"].startswith("cuda"))


def launcher() -> str:
    """What starts a training: torchrun where several devices share it. A resource of the job and no parameter, since what
    is learnt is the same to rounding: another number of devices makes nothing anew."""
    if config["hardware"]["devices"] == 1:
        return "python -m"
    return f"python -m torch.distributed.run --standalone --nproc-per-node={config['devices']} -m --"


def asked(rule, resource):
    """Resource function: what the configuration says that a job of a rule takes, more at each further attempt."""
    return lambda wildcards, attempt: config["resources"][rule][resource] * attempt


def dask_cores(wildcards) -> int:
    """Cores of a job that computes by dask: those of its threads or processes; its SLURM jobs have their own."""
    dask = RESOLVED[wildcards.system]["metrics"]["dask"]
    return dask["workers"] if dask["scheduler"] != "slurm" else 1


def dask_memory(wildcards) -> int:
    """MB of such a job, in which processes come on top of the one that they work for."""
    dask = RESOLVED[wildcards.system]["metrics"]["dask"]
    return dask["memory"] * {"threads": dask["workers"], "local": dask["workers"] + 1, "slurm": 1}[dask["scheduler"]]


def code(stage, further=lambda wildcards: []):
    """Parameter function: the fingerprint of a stage for the system of the job, and for `further` names."""
    return lambda wildcards: fingerprint(stage, RESOLVED[wildcards.system]["system"]["name"], *further(wildcards))


def own_stepper(wildcards):
    """The stepper of a method where it is the user's own."""
    stepper = RESOLVED[wildcards.system]["methods"][wildcards.method]["stepper"]
    return [stepper] if is_own(stepper) else []


def own_measures(wildcards):
    return RESOLVED[wildcards.system]["metrics"]["user"]


def part(*keys):
    """Parameter function: a slice of the system's resolved configuration, as JSON."""

    def select(wildcards):
        value = RESOLVED[wildcards.system]
        for key in keys:
            value = value[key.format(**wildcards)]
        return configuration.as_parameter(value)

    return select


def manifest(wildcards):
    return f"{RESULTS}/{wildcards.system}/shards/manifest.json"


def trajectory_files(system, split):
    """Trajectories of a split: one file, or one for each group of its members."""
    data = RESOLVED[system]["data"]
    groups = configuration.member_groups({**data["splits"][split], "group_members": data["group_members"]})
    names = [f"{split}_{group}" for group in groups] if data["group_members"] else [split]
    return [f"{RESULTS}/{system}/data/{name}.nc" for name in names]


def members_simulated(wildcards):
    """Members of a job of `simulate_trajectories`: a group, or all of the split."""
    if wildcards.members:
        return configuration.members_of(wildcards.members.removeprefix("_"))
    return list(range(RESOLVED[wildcards.system]["data"]["splits"][wildcards.split]["members"]))


def first_member(wildcards):
    first = members_simulated(wildcards)[0]
    return f"--first-member {first}" if first else ""


def models_used(system):
    """Models that the methods of this run need, in the configuration's order."""
    methods = RESOLVED[system]["methods"].values()
    needed = {model for method in methods for model in method["models"].values()}
    return [model for model in RESOLVED[system]["models"] if model in needed]


def plan(system, method):
    """(first step, steps) of each segment of a rollout."""
    resolved = RESOLVED[system]
    return configuration.segments(resolved["methods"][method], resolved["rollout"])


def segment_files(system, method):
    """Segments of a rollout, a chain for each group of members."""
    return [
        f"{RESULTS}/{system}/rollouts/{method}/{group}/segment_{index:04d}.nc"
        for group in configuration.member_groups(RESOLVED[system]["rollout"])
        for index in range(len(plan(system, method)))
    ]


def refinements(system):
    """Methods that examine a denoiser around a surrogate: the first one of those with the same models and read-out."""
    examined = {}
    for name, method in RESOLVED[system]["methods"].items():
        # Where data are given there are no frames to examine a denoiser with, and what is not given stays out.
        if method["stepper"] == "refinement" and (not GIVEN or f"{system}/diagnostics/{name}.nc" in GIVEN):
            examined.setdefault(configuration.as_parameter([method["models"], method["readout"]]), name)
    return list(examined.values())


def surrogate_rollout(system, method):
    """The method that runs the surrogate of a refinement alone, in this run."""
    methods = RESOLVED[system]["methods"]
    surrogate = methods[method]["models"]["surrogate"]
    for name, other in methods.items():
        if other["stepper"] == "pointwise" and other["models"]["surrogate"] == surrogate:
            return name
    raise WorkflowError(
        f"methods.{method}: its surrogate {surrogate!r} needs a pointwise method of its own under use.methods"
    )


def model_files(wildcards):
    """Files of the models that a method needs; of a foreign one, the file that it is read from."""
    folder = f"{RESULTS}/{wildcards.system}/models"
    method = RESOLVED[wildcards.system]["methods"][wildcards.method]
    own = [method["file"]] if method["stepper"] == "foreign" else []
    return own + [f"{folder}/{model}.safetensors" for model in method["models"].values()]


def forecasters(system):
    """Methods that can be started again, from states of our choice."""
    return [name for name, method in RESOLVED[system]["methods"].items() if method["stepper"] != "foreign"]


def model_roles(wildcards):
    """JSON of role -> file for a method."""
    folder = f"{RESULTS}/{wildcards.system}/models"
    roles = RESOLVED[wildcards.system]["methods"][wildcards.method]["models"]
    return configuration.as_parameter({role: f"{folder}/{model}.safetensors" for role, model in roles.items()})


def method_options(wildcards):
    """JSON of what a stepper is built from; labels and lengths are not part of it."""
    method = RESOLVED[wildcards.system]["methods"][wildcards.method]
    apart = ("label", "models", "steps", "segment_steps", "leads")
    kept = {key: value for key, value in method.items() if key not in apart}
    return configuration.as_parameter(kept)


def leads(wildcards):
    """JSON of the steps after which a method's forecasts are scored."""
    resolved = RESOLVED[wildcards.system]
    method = resolved["methods"][wildcards.method]
    return configuration.as_parameter(method.get("leads", resolved["metrics"]["ensemble"]["leads"]))


def restart_before(wildcards):
    """Restart file of the segment before; none for the first."""
    index = int(wildcards.index)
    folder = f"{RESULTS}/{wildcards.system}/rollouts/{wildcards.method}/{wildcards.group}"
    return [f"{folder}/restart_{index - 1:04d}.safetensors"] if index else []


def configuration_file(wildcards):
    """The whole configuration in a file, since a command of its length would drown what a failed `verify` says."""
    path = Path(RESULTS, "logs", "configuration.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(configuration.as_parameter(config))
    return str(path)
