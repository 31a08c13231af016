"""Eight simulated devices for all tests."""

import jax
import pytest

# Before any computation: the count is fixed once the backend starts.
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)


@pytest.fixture(scope='session', autouse=True)
def compile_once(tmp_path_factory):
  """Tests that build the same program share its compilation."""
  jax.config.update('jax_compilation_cache_dir', str(tmp_path_factory.mktemp('compiled')))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
