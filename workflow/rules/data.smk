rule simulate_trajectories:
    output:
        output=f"{RESULTS}/{{system}}/data/{{split}}{{members}}.nc",
    log:
        f"{RESULTS}/{{system}}/logs/simulate_{{split}}{{members}}.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("simulate_trajectories"),
        gpu=count_gpus(),
    params:
        **parameters(
            "simulate_trajectories",
            system=config_slice("system"),
            emulator=config_slice("emulator"),
            split=lambda wildcards: wildcards.split,
            members=lambda wildcards: len(get_members(wildcards)),
            first_member=lambda wildcards: get_members(wildcards)[0],
            frames=config_slice("data", "splits", "{split}", "frames"),
            spin_up=config_slice("data", "spin_up"),
            seed=config["seed"],
            device=config["hardware"]["device"],
        ),
    shell:
        command("simulate_trajectories")


rule shard_dataset:
    input:
        trajectories=files_of(get_trajectories),
    output:
        output=f"{RESULTS}/{{system}}/shards/manifest.json",
    log:
        f"{RESULTS}/{{system}}/logs/shard.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("shard_dataset"),
    params:
        **parameters("shard_dataset", shard_members=config_slice("data", "shard_members")),
    shell:
        command("shard_dataset")
