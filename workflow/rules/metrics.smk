# The rows of the tables follow the order of the methods, which Snakemake does not see in a set of files.
ORDER = f"order of methods: {', '.join(METHODS)}"


rule compute_reference:
    input:
        manifest=get_manifest,
        trajectories=ancient(get_test_trajectories),
        ensemble=get_ensemble_of_reference,
    output:
        output=f"{RESULTS}/{{system}}/metrics/reference.nc",
    log:
        f"{RESULTS}/{{system}}/logs/reference.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("compute_reference"),
    params:
        **parameters(
            "compute_reference",
            user_code=get_user_metrics,
            lags=config_slice("rollout", "lags"),
            frame_stride=config_slice("rollout", "frame_stride"),
            map_lags=config_slice("metrics", "map_lags"),
            user_metrics=get_user_metrics,
        ),
    shell:
        command("compute_reference")


rule draw_floors:
    input:
        ensemble=get_reference_segments,
    output:
        output=f"{RESULTS}/{{system}}/metrics/floors.csv",
    log:
        f"{RESULTS}/{{system}}/logs/floors.log",
    conda:
        ENVIRONMENT
    resources:
        **small_job(mem_mb=2000, runtime=30),
    params:
        **parameters(
            "draw_floors",
            members=config_slice("rollout", "members"),
            steps=get_lengths,
            window=config_slice("metrics", "window"),
            shells=config_slice("metrics", "shells"),
        ),
    shell:
        command("draw_floors")


rule diagnose_denoiser:
    input:
        manifest=get_manifest,
        shards=get_shards,
        models=get_model_files,
        segments=lambda wildcards: list_segments(
            wildcards.system, get_surrogate_method(wildcards.system, wildcards.method)
        ),
    output:
        output=f"{RESULTS}/{{system}}/diagnostics/{{method}}.nc",
    log:
        f"{RESULTS}/{{system}}/logs/diagnose_{{method}}.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("diagnose_denoiser"),
        gpu=count_gpus(),
    params:
        **parameters(
            "diagnose_denoiser",
            user_code=get_method_class,
            **METHOD,
            pairs=config_slice("metrics", "diagnose", "pairs"),
            levels=config_slice("metrics", "diagnose", "levels"),
        ),
    shell:
        command("diagnose_denoiser")


rule compute_metrics:
    input:
        manifest=get_manifest,
        reference=get_reference,
        segments=lambda wildcards: list_segments(wildcards.system, wildcards.method),
        solver=lambda wildcards: list_segments(wildcards.system, "solver"),
    output:
        output=f"{RESULTS}/{{system}}/metrics/{{method}}.nc",
        output_windows=f"{RESULTS}/{{system}}/metrics/{{method}}_windows.csv",
    log:
        f"{RESULTS}/{{system}}/logs/metrics_{{method}}.log",
    conda:
        ENVIRONMENT
    threads: count_dask_cores
    resources:
        mem_mb=get_dask_memory,
        runtime=resource("compute_metrics", "runtime"),
    params:
        **parameters(
            "compute_metrics",
            user_code=get_user_metrics,
            window=config_slice("metrics", "window"),
            shells=config_slice("metrics", "shells"),
            map_lags=config_slice("metrics", "map_lags"),
            user_metrics=get_user_metrics,
        ),
        # A function of `output`, so Snakemake does not compare it: the numbers do not depend on where dask computes.
        dask=lambda wildcards, output: configuration.as_parameter(RESOLVED[wildcards.system]["metrics"]["dask"]),
    shell:
        command("compute_metrics")


rule aggregate_metrics:
    input:
        reference=get_reference,
        floors=get_floors,
        metrics=files_of(get_metrics),
        windows=expand(f"{RESULTS}/{{{{system}}}}/metrics/{{method}}_windows.csv", method=METHODS),
    output:
        output=f"{RESULTS}/{{system}}/metrics.csv",
        output_windows=f"{RESULTS}/{{system}}/windows.csv",
    log:
        f"{RESULTS}/{{system}}/logs/aggregate.log",
    conda:
        ENVIRONMENT
    resources:
        **small_job(),
    params:
        **parameters(
            "aggregate_metrics",
            system=lambda wildcards: wildcards.system,
            shells=config_slice("metrics", "shells"),
            user_metrics=get_user_metrics,
        ),
        order=ORDER,
    shell:
        command("aggregate_metrics")


rule score_methods:
    input:
        reference=get_reference,
        floors=get_floors,
        metrics=files_of(get_metrics),
        ensembles=lambda wildcards: [
            f"{RESULTS}/{wildcards.system}/ensembles/{method}.nc" for method in get_forecast_methods(wildcards.system)
        ],
    output:
        output=f"{RESULTS}/{{system}}/scorecard.csv",
    log:
        f"{RESULTS}/{{system}}/logs/scorecard.log",
    conda:
        ENVIRONMENT
    resources:
        **small_job(mem_mb=2000, runtime=30),
    params:
        **parameters(
            "score_methods",
            system=lambda wildcards: wildcards.system,
            window=config_slice("metrics", "window"),
            shells=config_slice("metrics", "shells"),
        ),
        order=ORDER,
    shell:
        command("score_methods")


rule compare_held_out:
    input:
        diagnostics=files_of(get_diagnostics),
        metrics=f"{RESULTS}/{{system}}/metrics.csv",
    output:
        output=f"{RESULTS}/{{system}}/held_out.csv",
        output_agreement=f"{RESULTS}/{{system}}/held_out_agreement.csv",
    log:
        f"{RESULTS}/{{system}}/logs/held_out.log",
    conda:
        ENVIRONMENT
    resources:
        **small_job(),
    params:
        **parameters("compare_held_out", diagnostics=get_diagnostics),
    shell:
        command("compare_held_out")
