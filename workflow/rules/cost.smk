# What a method costs, beside the solver on other grids. Seconds depend on the machine: they are measured again where
# models, methods or code changed, as anything else is, and not for another machine.
include: "timed.smk"


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
        device=config["hardware"]["device"],
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
        device=config["hardware"]["device"],
        precision=config["hardware"]["precision"],
        compile=configuration.as_parameter(config["hardware"]["compile"]),
        code=code("measure_cost", own_steppers),
    shell:
        stage("measure_cost", threads=1)
        + "--methods {params.methods:q} --manifest {input.manifest:q} --initial {input.initial:q} --grids {input.grids:q}"
        " --members {params.members} --steps {params.steps} --repeats {params.repeats} --seconds {params.seconds}"
        " --seed {params.seed} --device {params.device} --precision {params.precision} --compile {params.compile}"
        " --output {output:q}"


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
