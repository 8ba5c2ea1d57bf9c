rule calibrate_refinement:
    input:
        manifest=get_manifest,
        shards=get_shards,
        models=lambda wildcards: list(get_model_roles(wildcards.system, wildcards.method).values()),
    output:
        output=f"{RESULTS}/{{system}}/calibrations/{{method}}.json",
    log:
        f"{RESULTS}/{{system}}/logs/calibrate_{{method}}.log",
    priority: 1
    conda:
        ENVIRONMENT
    resources:
        **small_job(mem_mb=2000, runtime=60),
        gpu=count_gpus(),
    params:
        **parameters(
            "calibrate_refinement",
            user_code=get_method_class,
            **{
                **METHOD,
                "models": lambda wildcards: get_model_roles(wildcards.system, wildcards.method),
            },
        ),
    shell:
        command("calibrate_refinement")
