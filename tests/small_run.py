"""A finished run of a few small files, as far as programs that read finished runs look: records, tables, pictures."""

from pathlib import Path

import pandas as pd

from sns_core.files import sha256, write_json
from sns_core.record import FORMAT, RUN_FORMAT, record_path

CONFIGURATION = {
    "run": "a",
    "results": "results",
    "rollout": {"members": 2, "steps": 60},
    "seed": 0,
    "use": {"systems": ["flow"], "methods": ["solver", "sns"]},
    "systems": {"flow": {"viscosity": 1e-3, "solver": {"class": "KolmogorovFlow"}}, "unused": {"viscosity": 1.0}},
    "methods": {"solver": {"kind": "solver"}, "sns": {"kind": "refinement", "label": "SNS"}},
}
SCORES = [
    ("solver", "spectrum_error", "", None, 0.01, 0.0, 0.02),
    ("sns", "spectrum_error", "", None, 0.03, 0.02, 0.04),
    ("sns", "crps", "", 5, 0.2, 0.1, 0.3),
    ("sns", "seconds_per_step", "", None, 0.1, 0.1, 0.1),
]


def make_run(folder: Path, configuration=CONFIGURATION, scores=SCORES, picture=b"picture", shard="a", code="c") -> Path:
    """Write the files of a finished run that a comparison reads."""
    record = {
        "format": RUN_FORMAT,
        "configuration": configuration,
        "seed": configuration["seed"],
        "systems": {"flow": {"models": {"denoiser": {"sha256": "0" * 64}}}},
        "code_of_results": [{"commit": "1" * 40, "dirty": False}],
        "host": {"name": "here"},
        "device": "cpu",
        "versions": {"torch": "2.13.0"},
    }
    write_json(folder / "provenance.json", record)
    write_json(folder / "flow/shards/manifest.json", {"splits": {"train": [{"sha256": shard}]}})
    columns = ["method", "score", "layer", "lead", "value", "low", "high"]
    pd.DataFrame(scores, columns=columns).to_csv(folder / "flow/scorecard.csv", index=False)
    (folder / "flow/figures").mkdir()
    (folder / "flow/figures/fields.png").write_bytes(picture)
    (folder / "flow/metrics").mkdir()
    for name in ("sns", "solver"):
        result, manifest = folder / f"flow/metrics/{name}.nc", folder / "flow/shards/manifest.json"
        result.write_text(name)
        made_by = {
            "format": FORMAT,
            "stage": "compute_metrics",
            "fingerprint": code if name == "sns" else "c",
            "configuration": {"window": 500, "output": str(result)},
            "wall_seconds": 2.0,
            "inputs": {f"results/{configuration['run']}/flow/shards/manifest.json": sha256(manifest)},
            "outputs": {result.name: {"sha256": sha256(result), "bytes": len(name), "modified_ns": 10**18}},
        }
        write_json(record_path(result), made_by)
    return folder
