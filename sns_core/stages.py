"""The module of each stage and command. The rules, the command line and the code fingerprints read these tables."""

STAGES = {
    "simulate_trajectories": "sns_core.data.trajectories",
    "shard_dataset": "sns_core.data.shards",
    "train_model": "sns_core.training.train",
    "calibrate_refinement": "sns_core.evaluation.calibration",
    "rollout_segment": "sns_core.rollout.segment",
    "rollout_ensemble": "sns_core.rollout.ensemble",
    "rollout_grids": "sns_core.evaluation.coarse_solver",
    "measure_cost": "sns_core.evaluation.timing",
    "diagnose_denoiser": "sns_core.evaluation.denoiser_diagnosis",
    "compute_reference": "sns_core.metrics.reference",
    "compute_metrics": "sns_core.metrics.rollout_metrics",
    "aggregate_metrics": "sns_core.metrics.aggregate",
    "compare_seeds": "sns_core.metrics.seeds",
    "compare_held_out": "sns_core.metrics.held_out",
    "score_methods": "sns_core.metrics.scorecard",
    "tabulate_cost": "sns_core.metrics.cost",
    "compute_theory": "sns_core.theory.compute",
    "plot_theory": "sns_core.figures.theory",
    "plot_phase_space": "sns_core.figures.phase_space",
    "plot_ablation": "sns_core.figures.ablation",
    "plot_fields": "sns_core.figures.fields",
    "plot_condition_error": "sns_core.figures.condition_error",
    "plot_temporal": "sns_core.figures.temporal",
    "plot_levels": "sns_core.figures.levels",
    "plot_spin_up": "sns_core.figures.spin_up",
    "plot_zonal": "sns_core.figures.zonal",
    "plot_error": "sns_core.figures.error",
    "plot_spectra": "sns_core.figures.spectra",
    "plot_distributions": "sns_core.figures.distributions",
    "plot_scorecard": "sns_core.figures.scorecard",
    "plot_held_out": "sns_core.figures.held_out",
    "plot_cost": "sns_core.figures.cost",
    "plot_calibration": "sns_core.figures.calibration",
    "plot_movie": "sns_core.figures.movie",
    "write_explorer": "sns_core.figures.explorer.write",
    "write_report": "sns_core.report",
    "record_provenance": "sns_core.record",
    "collect_run": "sns_core.gallery",
    "take_result": "sns_core.gallery",
}

# Commands that a person gives on finished runs. No rule calls them. They write no records and return the
# text that is printed.
COMMANDS = {
    "compare": "sns_core.comparison",
}
