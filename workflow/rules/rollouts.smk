rule rollout_segment:
    input:
        manifest=get_manifest,
        shards=get_shards,
        # The manifest vouches for their content; Snakemake would compare such large files by their dates alone.
        initial=ancient(get_test_trajectories),
        models=get_model_files,
        previous=get_restart,
    output:
        output=f"{RESULTS}/{{system}}/rollouts/{{method}}/{{group}}/segment_{{index}}.nc",
        restart=f"{RESULTS}/{{system}}/rollouts/{{method}}/{{group}}/restart_{{index}}.safetensors",
    log:
        f"{RESULTS}/{{system}}/logs/rollout_{{method}}_{{group}}_{{index}}.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("rollout_segment"),
        gpu=count_gpus(),
    params:
        **parameters(
            "rollout_segment",
            user_code=get_method_class,
            **METHOD,
            compile=network_setting("compile", without=False),
            first_step=lambda wildcards: get_span(wildcards)[0],
            steps=lambda wildcards: get_span(wildcards)[1],
            members=lambda wildcards: configuration.members_of(wildcards.group),
            frame_stride=config_slice("rollout", "frame_stride"),
            block=config_slice("rollout", "block_steps"),
            lags=config_slice("rollout", "lags"),
        ),
    shell:
        command("rollout_segment")


rule rollout_reference:
    input:
        manifest=get_manifest,
        initial=lambda wildcards: list_trajectories(wildcards.system, ENSEMBLE),  # the manifest does not hold them
        test=ancient(get_test_trajectories),
        previous=get_restart,
        recorded=get_recorded_file,
    output:
        output=f"{RESULTS}/{{system}}/{ENSEMBLE}/{{group}}/segment_{{index}}.nc",
        restart=f"{RESULTS}/{{system}}/{ENSEMBLE}/{{group}}/restart_{{index}}.safetensors",
    log:
        f"{RESULTS}/{{system}}/logs/reference_{{group}}_{{index}}.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("rollout_segment"),
        gpu=count_gpus(),
    params:
        **parameters(
            "rollout_reference",
            first_step=lambda wildcards: get_reference_span(wildcards)[0],
            steps=lambda wildcards: get_reference_span(wildcards)[1],
            members=lambda wildcards: configuration.members_of(wildcards.group),
            block=config_slice("rollout", "block_steps"),
            lags=config_slice("rollout", "lags"),
            seed=config["seed"],
            device=config["hardware"]["device"],
        ),
    shell:
        command("rollout_reference")


rule rollout_ensemble:
    input:
        manifest=get_manifest,
        shards=get_shards,
        initial=ancient(get_test_trajectories),
        models=get_model_files,
    output:
        output=f"{RESULTS}/{{system}}/ensembles/{{method}}.nc",
    log:
        f"{RESULTS}/{{system}}/logs/ensemble_{{method}}.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("rollout_ensemble"),
        gpu=count_gpus(),
    params:
        **parameters(
            "rollout_ensemble",
            user_code=get_method_class,
            **METHOD,
            compile=network_setting("compile", without=False),
            starts=config_slice("metrics", "ensemble", "starts"),
            members=config_slice("metrics", "ensemble", "members"),
            leads=get_leads,
            disturbance=config_slice("metrics", "ensemble", "disturbance"),
        ),
    shell:
        command("rollout_ensemble")
