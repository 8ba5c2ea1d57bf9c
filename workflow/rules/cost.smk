# What a method costs, beside the solver on other grids. Seconds depend on the machine: they are measured again where models,
# methods or code changed, as anything else is, and not for another machine.


rule rollout_grids:
    input:
        manifest=get_manifest,
        initial=ancient(get_test_trajectories),
    output:
        output=f"{RESULTS}/{{system}}/cost/grids.nc",
    log:
        f"{RESULTS}/{{system}}/logs/rollout_grids.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("rollout_grids"),
        gpu=count_gpus(),
    params:
        **parameters(
            "rollout_grids",
            grids=lambda wildcards: configuration.solver_grids(RESOLVED[wildcards.system]),
            finest=get_finest_grid,
            starts=config_slice("metrics", "ensemble", "starts"),
            members=config_slice("metrics", "ensemble", "members"),
            leads=config_slice("metrics", "ensemble", "leads"),
            disturbance=config_slice("metrics", "ensemble", "disturbance"),
            rolled=config_slice("rollout", "members"),
            steps=config_slice("metrics", "cost", "spectrum_steps"),
            every=config_slice("rollout", "frame_stride"),
            seed=config["seed"],
            device=config["hardware"]["device"],
        ),
    shell:
        command("rollout_grids")


rule measure_cost:
    input:
        manifest=get_manifest,
        shards=get_shards,
        initial=ancient(get_test_trajectories),
        grids=f"{RESULTS}/{{system}}/cost/grids.nc",
        models=get_timed_files,
    output:
        output=f"{RESULTS}/{{system}}/cost/measured.json",
    log:
        f"{RESULTS}/{{system}}/logs/measure_cost.log",
    conda:
        ENVIRONMENT
    threads: count_cores
    resources:
        **resources_of("measure_cost"),
        gpu=count_gpus(),
    params:
        **parameters(
            "measure_cost",
            user_code=get_timed_classes,
            methods=get_timed_methods,
            members=config_slice("rollout", "members"),
            steps=config_slice("metrics", "cost", "steps"),
            repeats=config_slice("metrics", "cost", "repeats"),
            seconds=config_slice("metrics", "cost", "seconds"),
            seed=config["seed"],
            device=config["hardware"]["device"],
            precision=config["hardware"]["precision"],
            compile=config["hardware"]["compile"],
        ),
    shell:
        command("measure_cost", threads=1)


rule tabulate_cost:
    input:
        measured=f"{RESULTS}/{{system}}/cost/measured.json",
        grids=f"{RESULTS}/{{system}}/cost/grids.nc",
        ensemble=f"{RESULTS}/{{system}}/ensembles/solver.nc",
        scorecard=f"{RESULTS}/{{system}}/scorecard.csv",
        reference=get_reference,
        floors=get_floors,
        # Trajectories that training has seen: what they cost is part of what a model costs.
        data=ancient(
            lambda wildcards: [
                path for split in ("train", "validation") for path in list_trajectories(wildcards.system, split)
            ]
        ),
        notes=files_of(get_notes),
    output:
        output=f"{RESULTS}/{{system}}/cost.csv",
    log:
        f"{RESULTS}/{{system}}/logs/tabulate_cost.log",
    conda:
        ENVIRONMENT
    resources:
        **small_job(),
    params:
        **parameters(
            "tabulate_cost",
            system=lambda wildcards: wildcards.system,
            notes=get_notes,
            models=get_models_of_methods,
            shells=config_slice("metrics", "shells"),
            resolution=lambda wildcards: list(
                grid_shape(RESOLVED[wildcards.system]["system"]["parameters"]["resolution"])
            ),
        ),
    shell:
        command("tabulate_cost")
