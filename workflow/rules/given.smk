# Results of another run that are copied instead of made (`reuse` in the configuration): of all rules that could make a file, this one
# does. Without any, it is not there.
import re

if GIVEN:

    ruleorder:
        take_result
        > simulate_trajectories
        > shard_dataset
        > train_model
        > rollout_segment
        > rollout_ensemble
        > compute_reference
        > diagnose_denoiser

    rule take_result:
        input:
            file=Path(config["reuse"]["folder"], "{given}"),
            listing=Path(config["reuse"]["folder"], "given.json"),
        output:
            f"{RESULTS}/{{given}}",
        log:
            f"{RESULTS}/logs/given/{{given}}.log",
        wildcard_constraints:
            given="|".join(map(re.escape, GIVEN)),
        localrule: True
        conda:
            ENVIRONMENT
        threads: 1
        params:
            code=fingerprint("take_result"),
        shell:
            stage("take_result") + "--listing {input.listing:q} --name {wildcards.given:q} --output {output:q}"
