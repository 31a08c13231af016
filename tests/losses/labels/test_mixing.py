import jax
import numpy as np

from contrastive_jax.losses.labels.mixing import draw_partners


def test_partners_are_a_permutation_of_other_classes():
  draw = jax.jit(lambda key: draw_partners(key, 4, 3))
  for seed in range(5):
    partners = np.asarray(draw(jax.random.key(seed)))
    assert sorted(partners) == list(range(12))
    assert np.all(partners // 3 != np.arange(12) // 3)
