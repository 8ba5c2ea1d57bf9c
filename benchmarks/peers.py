"""Worker for the peers, run by the interpreter of each: `python peers.py jax_cfd [one_thread]` or `python peers.py pyqg`.

`one_thread` keeps jax to one thread; without it, jax uses every core of the process's affinity.
"""

import os
import sys

from serve import serve


def jax_cfd(case: dict):
    """Kolmogorov flow by jax-cfd's spectral solver, jit-compiled, `batch` trajectories by vmap, float32. A unit is a step."""
    import jax
    import jax.numpy as jnp
    import jax_cfd.base as cfd
    import jax_cfd.spectral as spectral

    n, batch = case["resolution"], case["batch"]
    grid = cfd.grids.Grid((n, n), domain=((0, 2 * jnp.pi), (0, 2 * jnp.pi)))
    equation = spectral.equations.ForcedNavierStokes2D(1e-3, grid, smooth=True)
    step = spectral.time_stepping.crank_nicolson_rk4(equation, 1e-3)
    velocity = cfd.initial_conditions.filtered_velocity_field(jax.random.PRNGKey(0), grid, 7.0, 4)
    start = jnp.fft.rfftn(cfd.finite_differences.curl_2d(velocity).data)
    if batch > 1:
        start, step = jnp.stack([start] * batch), jax.vmap(step)
    # The loop is compiled too, with its length as an argument.
    run = jax.jit(lambda state, count: jax.lax.fori_loop(0, count, lambda _, x: step(x), state))
    return lambda count: jax.block_until_ready(run(start, count))


def pyqg(case: dict):
    """One trajectory of pyqg's two-layer model, float64. A unit is a step."""
    import pyqg

    model = pyqg.QGModel(nx=case["resolution"], dt=3600.0, tmax=1e12, twrite=10**9, log_level=0, ntd=1)

    def work(count):
        for _ in range(count):
            model._step_forward()

    return work


if __name__ == "__main__":
    if "one_thread" in sys.argv:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    serve({"jax_cfd": jax_cfd, "pyqg": pyqg}[sys.argv[1]])
