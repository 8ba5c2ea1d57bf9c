rule compute_reference:
    input:
        manifest=manifest,
        trajectories=ancient(lambda wildcards: trajectory_files(wildcards.system, "test")),
    output:
        f"{RESULTS}/{{system}}/metrics/reference.nc",
    log:
        f"{RESULTS}/{{system}}/logs/reference.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=asked("compute_reference", "mem_mb"),
        runtime=asked("compute_reference", "runtime"),
    params:
        lags=part("rollout", "lags"),
        frame_stride=part("rollout", "frame_stride"),
        map_lags=part("metrics", "map_lags"),
        extra=own_measures,
        code=code("compute_reference", own_measures),
    shell:
        stage("compute_reference")
        + "--trajectories {input.trajectories:q} --manifest {input.manifest:q} --lags {params.lags}"
        " --frame-stride {params.frame_stride} --map-lags {params.map_lags} --extra {params.extra:q}"
        " --output {output:q}"


rule diagnose_denoiser:
    input:
        manifest=manifest,
        models=model_files,
        segments=lambda wildcards: segment_files(
            wildcards.system, surrogate_rollout(wildcards.system, wildcards.method)
        ),
    output:
        f"{RESULTS}/{{system}}/diagnostics/{{method}}.nc",
    log:
        f"{RESULTS}/{{system}}/logs/diagnose_{{method}}.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=asked("diagnose_denoiser", "mem_mb"),
        runtime=asked("diagnose_denoiser", "runtime"),
        gpu=gpus(),
    params:
        method=method_options,
        models=model_roles,
        pairs=part("metrics", "diagnose", "pairs"),
        grid=part("metrics", "diagnose", "levels"),
        seed=config["seed"],
        device=config["hardware"]["device"],
        precision=config["hardware"]["precision"],
        code=code("diagnose_denoiser"),
    shell:
        stage("diagnose_denoiser") + "--name {wildcards.method} --method {params.method:q} --models {params.models:q}"
        " --manifest {input.manifest:q} --segments {input.segments:q} --seed {params.seed} --pairs {params.pairs}"
        " --grid {params.grid} --device {params.device} --precision {params.precision}"
        " --output {output:q}"


rule compute_metrics:
    input:
        manifest=manifest,
        reference=f"{RESULTS}/{{system}}/metrics/reference.nc",
        segments=lambda wildcards: segment_files(wildcards.system, wildcards.method),
        solver=lambda wildcards: segment_files(wildcards.system, "solver"),
    output:
        metrics=f"{RESULTS}/{{system}}/metrics/{{method}}.nc",
        windows=f"{RESULTS}/{{system}}/metrics/{{method}}_windows.csv",
    log:
        f"{RESULTS}/{{system}}/logs/metrics_{{method}}.log",
    conda:
        ENVIRONMENT
    threads: lambda wildcards: dask_cores(wildcards)
    resources:
        mem_mb=lambda wildcards, attempt: dask_memory(wildcards) * attempt,
        runtime=asked("compute_metrics", "runtime"),
        # No parameter, since the numbers are the same whoever computes them.
        dask=lambda wildcards: part("metrics", "dask")(wildcards),
    params:
        window=part("metrics", "window"),
        shells=part("metrics", "shells"),
        map_lags=part("metrics", "map_lags"),
        extra=own_measures,
        code=code("compute_metrics", own_measures),
    shell:
        stage("compute_metrics")
        + "--segments {input.segments:q} --solver {input.solver:q} --reference {input.reference:q}"
        " --dask {resources.dask:q}"
        " --manifest {input.manifest:q} --window {params.window} --shells {params.shells:q} --map-lags {params.map_lags}"
        " --extra {params.extra:q} --output {output.metrics:q} --output-windows {output.windows:q}"


rule aggregate_metrics:
    input:
        reference=f"{RESULTS}/{{system}}/metrics/reference.nc",
        metrics=expand(f"{RESULTS}/{{{{system}}}}/metrics/{{method}}.nc", method=METHODS),
        windows=expand(f"{RESULTS}/{{{{system}}}}/metrics/{{method}}_windows.csv", method=METHODS),
    output:
        metrics=f"{RESULTS}/{{system}}/metrics.csv",
        windows=f"{RESULTS}/{{system}}/windows.csv",
    log:
        f"{RESULTS}/{{system}}/logs/aggregate.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        shells=part("metrics", "shells"),
        extra=own_measures,
        code=code("aggregate_metrics"),
    shell:
        stage("aggregate_metrics")
        + "--metrics {input.metrics:q} --windows {input.windows:q} --reference {input.reference:q}"
        " --system {wildcards.system} --shells {params.shells:q} --extra {params.extra:q} --output {output.metrics:q}"
        " --output-windows {output.windows:q}"


rule score_methods:
    input:
        reference=f"{RESULTS}/{{system}}/metrics/reference.nc",
        metrics=expand(f"{RESULTS}/{{{{system}}}}/metrics/{{method}}.nc", method=METHODS),
        ensembles=lambda wildcards: [
            f"{RESULTS}/{wildcards.system}/ensembles/{method}.nc" for method in forecasters(wildcards.system)
        ],
    output:
        f"{RESULTS}/{{system}}/scorecard.csv",
    log:
        f"{RESULTS}/{{system}}/logs/scorecard.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        window=part("metrics", "window"),
        shells=part("metrics", "shells"),
        code=code("score_methods"),
    shell:
        stage("score_methods") + "--metrics {input.metrics:q} --ensembles {input.ensembles:q}"
        " --reference {input.reference:q} --system {wildcards.system} --window {params.window} --shells {params.shells:q}"
        " --output {output:q}"


rule compare_held_out:
    input:
        diagnostics=lambda wildcards: method_diagnostics(wildcards),
        metrics=f"{RESULTS}/{{system}}/metrics.csv",
    output:
        table=f"{RESULTS}/{{system}}/held_out.csv",
        agreement=f"{RESULTS}/{{system}}/held_out_agreement.csv",
    log:
        f"{RESULTS}/{{system}}/logs/held_out.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        diagnostics=lambda wildcards: by_method(method_diagnostics, refinements)(wildcards),
        code=code("compare_held_out"),
    shell:
        stage("compare_held_out") + "--diagnostics {params.diagnostics:q} --metrics {input.metrics:q}"
        " --output {output.table:q} --output-agreement {output.agreement:q}"
