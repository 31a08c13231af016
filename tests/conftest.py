"""Eight simulated devices for all tests."""

import jax

# Before any computation: the count is fixed once the backend starts.
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
