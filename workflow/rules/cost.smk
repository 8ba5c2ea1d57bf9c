# What a method costs, beside the solver on other grids. Seconds depend on the machine: they are measured again where
# models, methods or code changed, as anything else is, and not for another machine.
from types import SimpleNamespace


def grids(system) -> list[int]:
    """Points a side of the solver's grids, its own among them, the coarsest first."""
    return configuration.solver_grids(RESOLVED[system])


def finest(wildcards) -> int:
    """Points a side of the finest grid on which forecasts are made."""
    resolved = RESOLVED[wildcards.system]
    return round(resolved["metrics"]["cost"]["finest"] * resolved["system"]["parameters"]["resolution"])


def whole_machine(wildcards) -> int:
    """Cores of a job that is timed: all that this call has, so that nothing runs beside it; on a cluster one."""
    return (workflow.resource_settings.cores or 1) if workflow.local_exec else 1


def timed_methods(wildcards):
    """JSON of what is timed: each method that can be started from states of our choice."""
    found = {}
    for name in forecasters(wildcards.system):
        one = SimpleNamespace(system=wildcards.system, method=name)
        found[name] = {"method": json.loads(method_options(one)), "models": json.loads(model_roles(one))}
    return configuration.as_parameter(found)


def models_of_methods(system):
    """Method -> names of the models that it needs."""
    methods = RESOLVED[system]["methods"]
    return {name: list(methods[name]["models"].values()) for name in forecasters(system)}


def learnt_from(system):
    """Trajectories that training has seen."""
    return [path for split in ("train", "validation") for path in trajectory_files(system, split)]


def notes_of_models(system):
    """Model -> the JSON beside it."""
    return {model: f"{RESULTS}/{system}/models/{model}.json" for model in models_used(system)}


rule rollout_grids:
    input:
        manifest=manifest,
        initial=ancient(lambda wildcards: trajectory_files(wildcards.system, "test")),
    output:
        f"{RESULTS}/{{system}}/cost/grids.nc",
    log:
        f"{RESULTS}/{{system}}/logs/rollout_grids.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=asked("rollout_grids", "mem_mb"),
        runtime=asked("rollout_grids", "runtime"),
        gpu=gpus(),
    params:
        grids=lambda wildcards: str(grids(wildcards.system)),
        finest=finest,
        starts=part("metrics", "ensemble", "starts"),
        members=part("metrics", "ensemble", "members"),
        leads=part("metrics", "ensemble", "leads"),
        disturbance=part("metrics", "ensemble", "disturbance"),
        rolled=part("rollout", "members"),
        steps=part("metrics", "cost", "spectrum_steps"),
        every=part("rollout", "frame_stride"),
        seed=config["seed"],
        device=config["device"],
        code=code("rollout_grids"),
    shell:
        stage("rollout_grids")
        + "--manifest {input.manifest:q} --initial {input.initial:q} --grids {params.grids:q} --finest {params.finest}"
        " --starts {params.starts} --members {params.members} --leads {params.leads:q} --disturbance {params.disturbance}"
        " --rolled {params.rolled} --steps {params.steps} --every {params.every} --seed {params.seed}"
        " --device {params.device} --output {output:q}"


rule measure_cost:
    input:
        manifest=manifest,
        initial=ancient(lambda wildcards: trajectory_files(wildcards.system, "test")),
        grids=f"{RESULTS}/{{system}}/cost/grids.nc",
        models=lambda wildcards: [
            f"{RESULTS}/{wildcards.system}/models/{model}.safetensors" for model in models_used(wildcards.system)
        ],
    output:
        f"{RESULTS}/{{system}}/cost/measured.json",
    log:
        f"{RESULTS}/{{system}}/logs/measure_cost.log",
    conda:
        ENVIRONMENT
    threads: whole_machine
    resources:
        mem_mb=asked("measure_cost", "mem_mb"),
        runtime=asked("measure_cost", "runtime"),
        gpu=gpus(),
    params:
        methods=timed_methods,
        members=part("rollout", "members"),
        steps=part("metrics", "cost", "steps"),
        repeats=part("metrics", "cost", "repeats"),
        seconds=part("metrics", "cost", "seconds"),
        seed=config["seed"],
        device=config["device"],
        precision=config["precision"],
        code=code("measure_cost"),
    shell:
        stage("measure_cost", threads=1)
        + "--methods {params.methods:q} --manifest {input.manifest:q} --initial {input.initial:q} --grids {input.grids:q}"
        " --members {params.members} --steps {params.steps} --repeats {params.repeats} --seconds {params.seconds}"
        " --seed {params.seed} --device {params.device} --precision {params.precision} --output {output:q}"


rule tabulate_cost:
    input:
        measured=f"{RESULTS}/{{system}}/cost/measured.json",
        grids=f"{RESULTS}/{{system}}/cost/grids.nc",
        ensemble=f"{RESULTS}/{{system}}/ensembles/solver.nc",
        scorecard=f"{RESULTS}/{{system}}/scorecard.csv",
        reference=f"{RESULTS}/{{system}}/metrics/reference.nc",
        data=ancient(lambda wildcards: learnt_from(wildcards.system)),
        notes=lambda wildcards: list(notes_of_models(wildcards.system).values()),
    output:
        f"{RESULTS}/{{system}}/cost.csv",
    log:
        f"{RESULTS}/{{system}}/logs/tabulate_cost.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        notes=lambda wildcards: configuration.as_parameter(notes_of_models(wildcards.system)),
        models=lambda wildcards: configuration.as_parameter(models_of_methods(wildcards.system)),
        shells=part("metrics", "shells"),
        code=code("tabulate_cost"),
    shell:
        stage("tabulate_cost") + "--measured {input.measured:q} --grids {input.grids:q} --ensemble {input.ensemble:q}"
        " --scorecard {input.scorecard:q} --reference {input.reference:q} --data {input.data:q} --notes {params.notes:q}"
        " --models {params.models:q} --system {wildcards.system} --shells {params.shells:q} --output {output:q}"
