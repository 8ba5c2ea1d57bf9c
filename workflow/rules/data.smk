rule simulate_trajectories:
    output:
        f"{RESULTS}/{{system}}/data/{{split}}{{members}}.nc",
    log:
        f"{RESULTS}/{{system}}/logs/simulate_{{split}}{{members}}.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=asked("simulate_trajectories", "mem_mb"),
        runtime=asked("simulate_trajectories", "runtime"),
        gpu=gpus(),
    params:
        system=part("system"),
        emulator=part("emulator"),
        spin_up=part("data", "spin_up"),
        members=lambda wildcards: len(members_simulated(wildcards)),
        first_member=first_member,
        frames=part("data", "splits", "{split}", "frames"),
        seed=config["seed"],
        device=config["hardware"]["device"],
        code=code("simulate_trajectories"),
    shell:
        stage("simulate_trajectories")
        + "--system {params.system:q} --emulator {params.emulator:q} --split {wildcards.split}"
        " --members {params.members} {params.first_member} --frames {params.frames} --spin-up {params.spin_up} --seed {params.seed}"
        " --device {params.device} --output {output:q}"


rule shard_dataset:
    input:
        lambda wildcards: [path for split in SPLITS for path in trajectory_files(wildcards.system, split)],
    output:
        f"{RESULTS}/{{system}}/shards/manifest.json",
    log:
        f"{RESULTS}/{{system}}/logs/shard.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=asked("shard_dataset", "mem_mb"),
        runtime=asked("shard_dataset", "runtime"),
    params:
        shard_members=part("data", "shard_members"),
        code=code("shard_dataset"),
    shell:
        stage("shard_dataset") + "--trajectories {input:q} --shard-members {params.shard_members}"
        " --output {output:q}"
