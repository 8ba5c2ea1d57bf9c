"""Self-refining neural surrogates: systems, diffusion, networks, rollouts and metrics.

The floors of the house, ground floor first. A room is a module or a package of `sns_core`; it imports only from rooms on
lower floors. tests/unit/test_house.py reads this table and holds the code to it.

    0  errors, catalogue, stages
    1  files, plugins, runtime
    2  systems, record
    3  data
    4  diffusion, metrics
    5  networks, figures
    6  training, theory
    7  rollout
    8  report, gallery, __main__
"""

__version__ = "0.1.0"
