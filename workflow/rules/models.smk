rule train_model:
    input:
        manifest=manifest,
    output:
        model=f"{RESULTS}/{{system}}/models/{{model}}.safetensors",
        note=f"{RESULTS}/{{system}}/models/{{model}}.json",
        history=f"{RESULTS}/{{system}}/models/{{model}}.csv",
    log:
        f"{RESULTS}/{{system}}/logs/train_{{model}}.log",
    conda:
        ENVIRONMENT
    threads: config["hardware"]["devices"]
    resources:
        mem_mb=asked("train_model", "mem_mb"),
        runtime=asked("train_model", "runtime"),
        gpu=gpus(config["hardware"]["devices"]),
        launcher=launcher(),
    params:
        spec=part("models", "{model}"),
        seed=config["seed"],
        device=config["hardware"]["device"],
        precision=config["hardware"]["precision"],
        compile=configuration.as_parameter(config["hardware"]["compile"]),
        code=code("train_model"),
    shell:
        stage("train_model", "{resources.launcher}")
        + "--name {wildcards.model} --spec {params.spec:q} --manifest {input.manifest:q} --seed {params.seed}"
        " --device {params.device} --precision {params.precision} --compile {params.compile}"
        " --output {output.model:q} --history {output.history:q}"
