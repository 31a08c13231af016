import jax
import pytest
from flax import nnx

from configs import clip
from contrastive_jax.models.clip import Clip
from contrastive_jax.models.keys import ParameterKeys
from contrastive_jax.training import build


@pytest.mark.parametrize('traced', [False, True])
def test_keys_are_those_of_nnx(traced):
  def draw(key):
    streams = ParameterKeys(key), nnx.Rngs(params=key)
    return [[jax.random.key_data(stream.params()) for _ in range(3)] for stream in streams]

  ours, theirs = (jax.jit(draw) if traced else draw)(jax.random.key(7))
  assert [key.tolist() for key in ours] == [key.tolist() for key in theirs]


def test_a_key_is_one_operation_of_a_trace():
  draw = lambda key: [keys.params() for keys in [ParameterKeys(key)] for _ in range(3)]  # noqa: E731
  fold = lambda key: jax.random.fold_in(key, 0)  # noqa: E731
  key = jax.random.key(0)
  operations = [len(jax.make_jaxpr(f)(key).eqns) for f in (draw, fold)]
  assert operations[0] == 3 * operations[1]


def test_one_trace_of_a_model_serves_its_runs(monkeypatch):
  """For its structure and its parameters."""
  traces, construct = [], Clip.__init__
  monkeypatch.setattr(
    Clip, '__init__', lambda self, *args, **fields: traces.append(construct(self, *args, **fields))
  )
  config = clip.get_config('smoke')
  config.model.image.width = 48  # a model of this test alone
  config.optimizer.layer_decay = 0.9
  for seed in (0, 1):
    config.seed = seed
    run = build.build(config, jax.devices()[:1])
    run.create_state.lower(0)
  assert len(traces) == 1
