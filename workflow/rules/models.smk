# Jobs of a higher priority start first. Trainings, and the calibration that waits for one of them, are the longest chain of the
# demo, and the movie is its longest figure: without priorities, one of two cores is idle for half a minute at the end.
rule train_model:
    input:
        manifest=get_manifest,
        shards=get_shards,
        stationary=get_required_check,
        models=files_of(get_teachers),
    output:
        output=f"{RESULTS}/{{system}}/models/{{model}}.safetensors",
        note=f"{RESULTS}/{{system}}/models/{{model}}.json",
        history=f"{RESULTS}/{{system}}/models/{{model}}.csv",
    log:
        f"{RESULTS}/{{system}}/logs/train_{{model}}.log",
    priority: 1
    conda:
        ENVIRONMENT
    threads: config["hardware"]["devices"]
    resources:
        **resources_of("train_model"),
        gpu=count_gpus(config["hardware"]["devices"]),
    params:
        **parameters(
            "train_model",
            user_code=get_objective_class,
            processes=config["hardware"]["devices"],
            name=lambda wildcards: wildcards.model,
            spec=config_slice("models", "{model}"),
            models=get_teachers,
            seed=config["seed"],
            device=config["hardware"]["device"],
            precision=config["hardware"]["precision"],
            compile=config["hardware"]["compile"],
        ),
        # Functions of `output`, so Snakemake does not compare them: the model does not depend on them.
        checkpoint_minutes=lambda wildcards, output: config["hardware"]["checkpoint_minutes"],
        loggers=lambda wildcards, output: configuration.as_parameter(config["loggers"]),
    shell:
        # The processes that torchrun starts share one standard input, so the arguments cannot come from there.
        command("train_model", stdin=False)
