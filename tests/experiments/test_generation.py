import jax

from contrastive_jax.models.generation import Rules
from experiments.generation import run


def test_both_ways_caption_with_the_model_of_today():
  definition = run.define_model(3, scan=True)
  images = jax.ShapeDtypeStruct((2, 64, 64, 3), float)
  rules = Rules(start_id=1, end_id=2, max_length=3, min_length=3)
  parameters = definition.shapes
  one, other = (
    jax.eval_shape(lambda p, i, way=way: way(definition.bind(p), i, rules), parameters, images)
    for way in (run.cached, run.uncached)
  )
  assert one == other
