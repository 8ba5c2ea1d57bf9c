rule rollout_segment:
    input:
        manifest=manifest,
        # Their content is vouched for by the manifest; as large files they would be compared by their dates alone.
        initial=ancient(lambda wildcards: trajectory_files(wildcards.system, "test")),
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
        mem_mb=asked("rollout_segment", "mem_mb"),
        runtime=asked("rollout_segment", "runtime"),
        gpu=gpus(),
    params:
        method=method_options,
        models=model_roles,
        first_step=lambda wildcards: plan(wildcards.system, wildcards.method)[int(wildcards.index)][0],
        steps=lambda wildcards: plan(wildcards.system, wildcards.method)[int(wildcards.index)][1],
        members=lambda wildcards: str(configuration.members_of(wildcards.group)),
        frame_stride=part("rollout", "frame_stride"),
        block=part("rollout", "block_steps"),
        lags=part("rollout", "lags"),
        previous=lambda wildcards, input: f"--previous {input.previous}" if input.previous else "",
        seed=config["seed"],
        device=config["hardware"]["device"],
        precision=config["hardware"]["precision"],
        compile=configuration.as_parameter(config["hardware"]["compile"]),
        code=code("rollout_segment", own_stepper),
    shell:
        stage("rollout_segment") + "--name {wildcards.method} --method {params.method:q} --models {params.models:q}"
        " --manifest {input.manifest:q} --initial {input.initial:q} {params.previous} --first-step {params.first_step}"
        " --steps {params.steps} --members {params.members:q} --seed {params.seed} --frame-stride {params.frame_stride}"
        " --block {params.block} --lags {params.lags} --device {params.device} --precision {params.precision}"
        " --compile {params.compile} --output {output.segment:q} --restart {output.restart:q}"


rule rollout_ensemble:
    input:
        manifest=manifest,
        initial=ancient(lambda wildcards: trajectory_files(wildcards.system, "test")),
        models=model_files,
    output:
        f"{RESULTS}/{{system}}/ensembles/{{method}}.nc",
    log:
        f"{RESULTS}/{{system}}/logs/ensemble_{{method}}.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=asked("rollout_ensemble", "mem_mb"),
        runtime=asked("rollout_ensemble", "runtime"),
        gpu=gpus(),
    params:
        method=method_options,
        models=model_roles,
        starts=part("metrics", "ensemble", "starts"),
        members=part("metrics", "ensemble", "members"),
        leads=leads,
        disturbance=part("metrics", "ensemble", "disturbance"),
        seed=config["seed"],
        device=config["hardware"]["device"],
        precision=config["hardware"]["precision"],
        compile=configuration.as_parameter(config["hardware"]["compile"]),
        code=code("rollout_ensemble", own_stepper),
    shell:
        stage("rollout_ensemble") + "--name {wildcards.method} --method {params.method:q} --models {params.models:q}"
        " --manifest {input.manifest:q} --initial {input.initial:q} --starts {params.starts} --members {params.members}"
        " --leads {params.leads:q} --disturbance {params.disturbance} --seed {params.seed} --device {params.device}"
        " --precision {params.precision} --compile {params.compile} --output {output:q}"
