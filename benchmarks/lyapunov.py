"""Lyapunov exponents of the Kuramoto-Sivashinsky equation: python benchmarks/lyapunov.py --length 22

Prints the largest exponents and their standard errors. Known for a circle of length 22: 0.043 to 0.048, then three that are
nearly zero, then about -0.19 (Cvitanovic, Davidchack and Siminos, SIAM J. Appl. Dyn. Syst. 9, 2010; Edson et al., ANZIAM J.
61, 2019). Longer circles come near 0.09.
"""

import argparse

from sns_core.device import use_threads
from sns_core.evaluation.lyapunov import lyapunov_exponents
from sns_core.streams import generator
from sns_core.systems.kuramoto_sivashinsky import KuramotoSivashinsky

SPIN_UP = 500.0  # time units before the first stretch
STRETCH = 2.0  # time units between two orthogonalisations


def main() -> None:
    """Read the arguments, integrate and print one line per exponent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=float, default=22.0, help="of the circle")
    parser.add_argument("--resolution", type=int, default=32, help="points")
    parser.add_argument("--dt", type=float, default=0.25, help="time step")
    parser.add_argument("--count", type=int, default=6, help="number of exponents")
    parser.add_argument("--duration", type=float, default=5000.0, help="time units that are averaged over")
    parser.add_argument("--seed", type=int, default=0, help="of the start and of the disturbances")
    arguments = parser.parse_args()
    use_threads(1)
    flow = KuramotoSivashinsky((1, arguments.resolution), arguments.dt, arguments.length)
    start = flow.initial_state(1, generator(arguments.seed, "lyapunov", "start"))
    state = flow.advance(start, round(SPIN_UP / flow.dt))[0]
    steps = round(STRETCH / flow.dt)
    exponents, errors = lyapunov_exponents(
        lambda states: flow.advance(states, steps),
        state,
        arguments.count,
        round(arguments.duration / STRETCH),
        steps * flow.dt,
        generator(arguments.seed, "lyapunov", "disturbances"),
        settling=50,
    )
    for number, (exponent, error) in enumerate(zip(exponents.tolist(), errors.tolist(), strict=True), 1):
        print(f"{number:3d}  {exponent:8.4f} +- {error:.4f}")


if __name__ == "__main__":
    main()
