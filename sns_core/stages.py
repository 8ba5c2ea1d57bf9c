"""Where each stage lives: the workflow's rules, the command line and the code fingerprints read this one table."""

STAGES = {
    "simulate_trajectories": "sns_core.data.trajectories",
    "shard_dataset": "sns_core.data.shards",
    "train_model": "sns_core.training.train",
    "rollout_segment": "sns_core.rollout.segment",
    "diagnose_denoiser": "sns_core.rollout.diagnose",
    "compute_reference": "sns_core.metrics.compute",
    "compute_metrics": "sns_core.metrics.compute",
    "aggregate_metrics": "sns_core.metrics.aggregate",
    "plot_fields": "sns_core.figures.fields",
    "plot_condition_error": "sns_core.figures.condition_error",
    "plot_temporal": "sns_core.figures.temporal",
    "plot_levels": "sns_core.figures.levels",
    "plot_spin_up": "sns_core.figures.spin_up",
    "plot_zonal": "sns_core.figures.zonal",
    "plot_error": "sns_core.figures.error",
    "plot_spectra": "sns_core.figures.spectra",
    "write_report": "sns_core.report",
    "record_provenance": "sns_core.report",
}
