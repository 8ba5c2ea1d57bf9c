"""The Python code behind the workflow's rules: configuration, commands, fingerprints, inspection of runs.

Nothing here computes science (`sns_core` does), and what the Snakefile imports loads no torch, since every job reads
the Snakefile again.
"""
