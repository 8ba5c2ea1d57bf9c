# Results of another run that are copied instead of made (`reuse` in the configuration), or linked (to another run of a sweep): of
# all rules that could make a file, these do. Without any such result, the rules are not there.
import re

if REUSED:

    ruleorder:
        take_result
        > simulate_trajectories
        > read_source
        > shard_dataset
        > check_stationarity
        > train_model
        > calibrate_refinement
        > rollout_segment
        > rollout_reference
        > rollout_ensemble
        > compute_reference
        > diagnose_denoiser

    rule take_result:
        input:
            file=Path(config["reuse"]["folder"], "{name}"),
            listing=Path(config["reuse"]["folder"], "given.json"),
        output:
            output=f"{RESULTS}/{{name}}",
        log:
            f"{RESULTS}/logs/reuse/{{name}}.log",
        wildcard_constraints:
            name="|".join(map(re.escape, REUSED)),
        localrule: True
        conda:
            ENVIRONMENT
        params:
            **parameters("take_result", name=lambda wildcards: wildcards.name),
        shell:
            command("take_result")


if LINKED:

    ruleorder:
        link_result
        > simulate_trajectories
        > read_source
        > shard_dataset
        > check_stationarity
        > train_model
        > calibrate_refinement
        > rollout_segment
        > rollout_reference
        > rollout_ensemble

    rule link_result:
        input:
            source=lambda wildcards: maker_of(wildcards.name, LINKED),
        output:
            output=f"{RESULTS}/{{name}}",
        log:
            f"{RESULTS}/logs/link/{{name}}.log",
        wildcard_constraints:
            name="|".join(LINKED),
        localrule: True
        conda:
            ENVIRONMENT
        params:
            **parameters("link_result"),
        shell:
            command("link_result")


if REUSED and LINKED:

    ruleorder: link_result > take_result
