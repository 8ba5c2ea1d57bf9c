rule rollout_segment:
    input:
        manifest=manifest,
        # Its content is vouched for by the manifest; as a large file it would be compared by its date alone.
        initial=ancient(f"{RESULTS}/{{system}}/data/test.nc"),
        models=model_files,
        previous=restart_before,
    output:
        segment=f"{RESULTS}/{{system}}/rollouts/{{method}}/{{group}}/segment_{{index}}.nc",
        restart=f"{RESULTS}/{{system}}/rollouts/{{method}}/{{group}}/restart_{{index}}.safetensors",
    log:
        f"{RESULTS}/{{system}}/logs/rollout_{{method}}_{{group}}_{{index}}.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
        gpu=gpus(),
    params:
        method=method_options,
        models=model_roles,
        first_step=lambda wildcards: plan(wildcards.system, wildcards.method)[int(wildcards.index)][0],
        steps=lambda wildcards: plan(wildcards.system, wildcards.method)[int(wildcards.index)][1],
        members=lambda wildcards: str(configuration.members_of(wildcards.group)),
        frame_stride=part("rollout", "frame_stride"),
        block=part("rollout", "block"),
        lags=part("rollout", "lags"),
        previous=lambda wildcards, input: f"--previous {input.previous}" if input.previous else "",
        seed=config["seed"],
        device=config["device"],
        precision=config["precision"],
        code=code("rollout_segment", own_stepper),
    shell:
        stage("rollout_segment") + "--name {wildcards.method} --method {params.method:q} --models {params.models:q}"
        " --manifest {input.manifest:q} --initial {input.initial:q} {params.previous} --first-step {params.first_step}"
        " --steps {params.steps} --members {params.members:q} --seed {params.seed} --frame-stride {params.frame_stride}"
        " --block {params.block} --lags {params.lags} --device {params.device} --precision {params.precision}"
        " --output {output.segment:q} --restart {output.restart:q}"
