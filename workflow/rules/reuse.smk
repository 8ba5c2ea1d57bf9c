# Results of another run that are copied instead of made (`reuse` in the configuration): of all rules that could make a file,
# this one does. Without any, the rule is not there.
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
