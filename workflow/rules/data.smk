rule simulate_trajectories:
    output:
        output=f"{RESULTS}/{{system}}/data/{{split}}{{members}}.nc",
    log:
        f"{RESULTS}/{{system}}/logs/simulate_{{split}}{{members}}.log",
    wildcard_constraints:
        system=any_of(name for name in SYSTEMS if name not in SOURCED),
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


# Trajectories that somebody else simulated, of systems with a `source`. `continued`: the test trajectories from the frames on
# from which rollouts start, where the frames before are the reference.
rule read_source:
    input:
        files=get_source_files,
    output:
        output=f"{RESULTS}/{{system}}/data/{{split}}.nc",
    log:
        f"{RESULTS}/{{system}}/logs/read_{{split}}.log",
    wildcard_constraints:
        system=any_of(SOURCED),
        split="|".join((*SPLITS, "continued")),
    conda:
        ENVIRONMENT
    resources:
        **resources_of("shard_dataset"),
    params:
        **parameters(
            "read_source",
            source=config_slice("source"),
            system=config_slice("system"),
            emulator=config_slice("emulator"),
            split=lambda wildcards: wildcards.split,
            members=lambda wildcards: get_recorded(wildcards)["members"],
            frames=lambda wildcards: get_recorded(wildcards)["frames"],
        ),
    shell:
        command("read_source")


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
        # Outputs cannot depend on the system, so in a storage all systems of a run must have as many shards.
        shards=sorted(
            {f"{RESULTS}/{{system}}/shards/{Path(path).name}" for system in SYSTEMS for path in list_shards(system)}
        ),
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
