"""Classification by a trained encoder: zero-shot, probes, finetuning.

  python -m experiments.probes.run --workdir=runs/clip-default

Writes results.json and prints its table.
"""

import pathlib

import jax
import numpy as np
from absl import app, flags

from contrastive_jax import data
from contrastive_jax.data.augmentation import augment
from contrastive_jax.data.images import normalizer
from contrastive_jax.evaluation import finetuning
from contrastive_jax.evaluation.evaluator import Evaluator
from contrastive_jax.evaluation.zero_shot import read_classes
from contrastive_jax.training import restore, workdir
from contrastive_jax.training.optimizer import make_optimizer, make_schedule
from contrastive_jax.training.rates import frozen, parameter_rates
from experiments import records

WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a finished run.', required=True)
SPLIT = flags.DEFINE_string('split', 'heldout_style', 'Split of its data to test on.')
FASHION = flags.DEFINE_string(
  'fashion_mnist', None, 'Folder in which TFDS has fashion_mnist prepared; tests on that instead.'
)
STEPS = flags.DEFINE_integer('steps', 1500, 'Updates of each classifier.', lower_bound=1)
OUTPUT = flags.DEFINE_string(
  'output', str(pathlib.Path(__file__).with_name('results.json')), 'Output file.'
)

BATCH = 128
POOLER_HEADS = 4  # over towers without heads
OPTIMIZER = {'b1': 0.9, 'b2': 0.98, 'epsilon': 1e-6, 'weight_decay': 0.05, 'clip_norm': 1.0}
# Rates of the same classifier: the probe freezes the tower, finetuning slows its deep layers.
METHODS = {
  'attentional': {'learning_rate': 1e-3, 'rates': (('image/.*', 0.0),), 'layer_decay': 1.0},
  'finetuned': {'learning_rate': 3e-4, 'rates': (), 'layer_decay': 0.75},
}


def open_task(config):
  """Opens the training examples, the test splits, and the fields of classes."""
  if FASHION.value:
    train, test = (data.open_source('fashion_mnist', s, FASHION.value) for s in ('train', 'test'))
    return train, {'fashion_mnist': test}, ('label',)

  def open_split(split):
    return data.open_source(config.data.name, split, config.data.folder or None)

  split = config.evaluation.probe_split
  return open_split(split), {SPLIT.value: open_split(SPLIT.value)}, config.evaluation.zero_shot


def evaluate(run, parameters, train, tests, fields) -> dict[str, float]:
  """Returns the accuracies without a trained classifier; zero-shot if the data have captions."""
  evaluator = Evaluator(
    run.definition,
    run.tokenizer,
    tests,
    run.mesh,
    image_size=run.config.model.image.size,
    batch_size=run.config.evaluation.batch_size,
    classes=dict(read_classes(field, train.values) for field in fields),
    templates=run.config.evaluation.templates,
    probes=('linear',),
    probe_source=train,
    normalize=normalizer(run.config.data.mean, run.config.data.std),
  )
  return ({} if FASHION.value else evaluator(parameters)) | evaluator.probing.probe(parameters)


def trained_accuracy(run, parameters, train, test, field, learning_rate, rates, layer_decay):
  """Trains a classifier, augmented as the run was, and tests it."""
  config, size = run.config, run.config.model.image.size
  labels = train.values(field)
  classes = sorted(set(labels))
  heads = config.model.image.get('heads', POOLER_HEADS)
  classifier = finetuning.define_classifier(run.definition, len(classes), heads)
  # The heads are initialized, the tower is the run's.
  start = jax.jit(classifier.init)(jax.random.key(0)) | {'image': parameters['image']}
  multipliers = parameter_rates(classifier, rates, layer_decay)
  schedule = make_schedule(
    learning_rate=learning_rate, warmup_fraction=0.05, total_steps=STEPS.value
  )
  strengths = config.augmentation.to_dict()
  normalize = normalizer(config.data.mean, config.data.std)
  trained = finetuning.fit(
    frozen(classifier, multipliers),
    start,
    make_optimizer(schedule, **OPTIMIZER, rates=multipliers),
    data.evaluation_images(train, config.data.size),
    np.array([classes.index(label) for label in labels]),
    steps=STEPS.value,
    batch_size=BATCH,
    mesh=run.mesh,
    augment=lambda keys, images: augment(keys, images, size, strengths),
    normalize=normalize,
  )
  predicted = finetuning.classify(
    classifier,
    trained,
    data.evaluation_images(test, size),
    batch_size=config.evaluation.batch_size,
    mesh=run.mesh,
    normalize=normalize,
  )
  pairs = zip(predicted, test.values(field), strict=True)
  return float(np.mean([classes[k] == label for k, label in pairs]))


def main(_):
  """Writes and prints accuracies by class field and method."""
  folder = pathlib.Path(WORKDIR.value)
  run = restore.open_run(workdir.read_config(folder), folder)
  parameters = restore.restore_parameters(run, folder).parameters
  train, tests, fields = open_task(run.config)
  ((split, test),) = tests.items()
  metrics = evaluate(run, parameters, train, tests, fields)
  results = {}
  for field in fields:
    results[field] = {
      'zero-shot': metrics.get(f'{split}/zero_shot_{field}_accuracy@1'),
      'linear': metrics[f'{split}/{field}_linear_probe_accuracy'],
    }
    for method, settings in METHODS.items():
      results[field][method] = trained_accuracy(run, parameters, train, test, field, **settings)
  records.write(pathlib.Path(OUTPUT.value), {split: results})
  columns = list(results[fields[0]])
  rows = (
    [field, *('' if row[c] is None else f'{row[c]:.1%}' for c in columns)]
    for field, row in results.items()
  )
  print(records.markdown('l' + 'r' * len(columns), [split, *columns], rows))


if __name__ == '__main__':
  app.run(main)
