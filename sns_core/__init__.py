"""Self-refining neural surrogates: systems, diffusion, networks, rollouts and metrics.

Rooms, ground floor first; each imports only from floors under it: `device`, `streams`, `processes`, `progress` and `files`, `systems`,
`data`, `diffusion`, `networks`, `training`, `metrics`, `rollout`, `figures`.
"""

__version__ = "0.1.0"
