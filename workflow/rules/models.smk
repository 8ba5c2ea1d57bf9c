rule train_model:
    input:
        manifest=get_manifest,
    output:
        output=f"{RESULTS}/{{system}}/models/{{model}}.safetensors",
        note=f"{RESULTS}/{{system}}/models/{{model}}.json",
        history=f"{RESULTS}/{{system}}/models/{{model}}.csv",
    log:
        f"{RESULTS}/{{system}}/logs/train_{{model}}.log",
    conda:
        ENVIRONMENT
    threads: config["devices"]
    resources:
        **resources_of("train_model"),
        gpu=count_gpus(config["devices"]),
    params:
        **parameters(
            "train_model",
            processes=config["devices"],
            name=lambda wildcards: wildcards.model,
            spec=config_slice("models", "{model}"),
            seed=config["seed"],
            device=config["device"],
            precision=config["precision"],
            compile=config["compile"],
        ),
    shell:
        # The processes that torchrun starts share one standard input, so the arguments cannot come from there.
        command("train_model", stdin=False)
