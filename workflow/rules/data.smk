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
            frames=lambda wildcards: get_split(wildcards.system, wildcards.split)["frames"],
            spin_up=config_slice("data", "spin_up"),
            seed=config["seed"],
            device=config["hardware"]["device"],
        ),
    shell:
        command("simulate_trajectories")


rule check_stationarity:
    input:
        manifest=get_manifest,
        trajectories=ancient(files_of(get_trajectories)),
    output:
        output=f"{RESULTS}/{{system}}/data/stationarity.csv",
    log:
        f"{RESULTS}/{{system}}/logs/stationarity.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("compute_reference"),
    params:
        **parameters(
            "check_stationarity",
            trajectories=get_trajectories,
            spin_up=config_slice("data", "spin_up"),
            required=config_slice("data", "require_stationary"),
        ),
    shell:
        command("check_stationarity")


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
