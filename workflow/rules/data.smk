rule simulate_trajectories:
    output:
        f"{RESULTS}/{{system}}/data/{{split}}.nc",
    log:
        f"{RESULTS}/{{system}}/logs/simulate_{{split}}.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
        gpu=gpus(),
    params:
        system=part("system"),
        emulator=part("emulator"),
        spin_up=part("data", "spin_up"),
        members=part("data", "splits", "{split}", "members"),
        frames=part("data", "splits", "{split}", "frames"),
        seed=config["seed"],
        device=config["device"],
        code=code("simulate_trajectories"),
    shell:
        stage("simulate_trajectories")
        + "--system {params.system:q} --emulator {params.emulator:q} --split {wildcards.split}"
        " --members {params.members} --frames {params.frames} --spin-up {params.spin_up} --seed {params.seed}"
        " --device {params.device} --output {output:q}"


rule shard_dataset:
    input:
        expand(f"{RESULTS}/{{{{system}}}}/data/{{split}}.nc", split=["train", "validation", "test"]),
    output:
        f"{RESULTS}/{{system}}/shards/manifest.json",
    log:
        f"{RESULTS}/{{system}}/logs/shard.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        shard_members=part("data", "shard_members"),
        code=code("shard_dataset"),
    shell:
        stage("shard_dataset") + "--trajectories {input:q} --shard-members {params.shard_members}"
        " --output {output:q}"
