"""Ranges of the numbers of a config."""

import math
import numbers
from typing import Any, NamedTuple


class Rule(NamedTuple):
  """Range of a field; only finite numbers are accepted.

  Attributes:
    low: lower bound.
    high: upper bound.
    open_low: exclude `low`.
    open_high: exclude `high`.
    integer: accept integers only.
    each: the field is a sequence whose elements follow the rule.
    off: further accepted values, which disable the feature.
  """

  low: float = -math.inf
  high: float = math.inf
  open_low: bool = False
  open_high: bool = False
  integer: bool = False
  each: bool = False
  off: tuple[float | None, ...] = ()

  def accepts(self, value: Any) -> bool:
    """Whether a value is of the right type and in the range."""
    if value is None:
      return None in self.off
    if self.each:
      return isinstance(value, (list, tuple)) and all(map(self._replace(each=False).accepts, value))
    kind: Any = numbers.Integral if self.integer else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind):
      return False
    if value in self.off:
      return True
    above = value > self.low if self.open_low else value >= self.low
    below = value < self.high if self.open_high else value <= self.high
    return math.isfinite(value) and above and below

  def __str__(self) -> str:
    """Describes the accepted values, as in 'a number in (0, 1]'."""
    article, kind = ('an', 'integer') if self.integer else ('a', 'number')
    left = '(' if self.open_low or math.isinf(self.low) else '['
    right = ')' if self.open_high or math.isinf(self.high) else ']'
    words = f'a tuple of {kind}s' if self.each else f'{article} {kind}'
    words += f' in {left}{self.low:.10g}, {self.high:.10g}{right}'
    return words + (f', or {" or ".join(map(repr, self.off))} to do without' if self.off else '')


COUNT = Rule(1, integer=True)
NATURAL = Rule(0, integer=True)
NOT_NEGATIVE = Rule(0)
POSITIVE = Rule(0, open_low=True)
_SHARE = Rule(0, 1, open_low=True)
_DECAY = Rule(0, 1, open_high=True)
_PROBABILITY = Rule(0, 1)
_ANY = Rule()

# Rules by field, where '*' matches one name.
RULES: dict[str, Rule] = {
  'seed': Rule(0, 2**31 - 1, integer=True),
  'data.size': COUNT,
  'data.crop': _SHARE._replace(each=True),
  'data.mean': Rule(each=True),
  'data.std': POSITIVE._replace(each=True),
  'data.sequence_lengths': COUNT._replace(each=True),
  'data.patch_sizes': COUNT._replace(each=True),
  'data.batch_multiple': COUNT,
  'data.subset': _SHARE,
  'data.shuffle_buffer': COUNT,
  'data.text_augmentation.drop_stop_words': _PROBABILITY,
  'data.text_augmentation.synonyms': _PROBABILITY,
  'data.text_augmentation.swap': _PROBABILITY,
  'data.text_augmentation.delete': _PROBABILITY,
  'data.voices': COUNT,
  'data.audio_seconds': POSITIVE,
  'data.workers': Rule(-1, integer=True),
  'augmentation.*': NOT_NEGATIVE,
  'view_augmentation.*.*': NOT_NEGATIVE,
  'model.embed': COUNT,
  'model.projector': COUNT._replace(each=True),
  'model.scale': POSITIVE,
  'model.bias': _ANY._replace(off=(None,)),
  'model.queries': COUNT,
  'model.pooler_heads': COUNT,
  'model.audio.size': Rule(1, 128, integer=True),
  'model.audio.patch': COUNT,
  'model.audio.stem_blocks': Rule(0, integer=True, each=True, off=(None,)),
  'model.image.size': COUNT,
  'model.image.patch': COUNT,
  'model.image.patch_dropout': _DECAY,
  'model.image.registers': NATURAL,
  'model.image.rope_grid': COUNT._replace(off=(None,)),
  'model.image.pool_heads': COUNT._replace(off=(None,)),
  'model.image.pool_mlp_ratio': POSITIVE._replace(off=(None,)),
  'model.image.stem_angles': COUNT._replace(off=(None,)),
  'model.image.stem_blocks': Rule(0, integer=True, each=True, off=(None,)),
  'model.text.vocabulary': COUNT,
  'model.text.length': Rule(3, integer=True),
  'model.text.positions': COUNT._replace(off=(None,)),
  'model.text.pad_id': NATURAL,
  'model.decoder.mlps': Rule(1, 2, integer=True),
  'model.*.width': COUNT,
  'model.*.layers': NATURAL,
  'model.*.heads': COUNT,
  'model.*.head_width': COUNT._replace(off=(None,)),
  'model.*.mlp_ratio': POSITIVE,
  'model.*.epsilon': POSITIVE,
  'model.*.layer_scale': POSITIVE._replace(off=(None,)),
  'model.*.dropout': _DECAY,
  'model.*.drop_path': _DECAY,
  # Options that methods share; a method checks the others itself.
  'objective.*': NOT_NEGATIVE,
  'objective.*.weight': NOT_NEGATIVE,
  'objective.*.scale': POSITIVE,
  'objective.*.temperature': POSITIVE,
  'objective.*.sharpness': POSITIVE,
  'objective.*.burn_in': NATURAL,
  'objective.*.k': COUNT,
  'objective.*.groups': COUNT,
  'objective.*.hidden': COUNT,
  'objective.*.outputs': COUNT,
  'objective.*.predictor_hidden': COUNT,
  'objective.*.projectors': COUNT,
  'objective.*.temperature_hidden': COUNT,
  'objective.*.steepness': POSITIVE,
  'objective.*.length': COUNT,
  'objective.*.local_hidden': COUNT,
  'objective.*.local_scale': POSITIVE,
  'objective.*.smoothing': _PROBABILITY,
  'objective.*.label_smoothing': _DECAY,
  'objective.*.prior': _DECAY,
  'objective.multi_similarity.alpha': POSITIVE,
  'objective.multi_similarity.beta': POSITIVE,
  'objective.*.beta': NOT_NEGATIVE,
  'objective.*.alpha': Rule(0, 1),
  'objective.*.target_scale': POSITIVE._replace(off=(None,)),
  'objective.*.contrastive': NOT_NEGATIVE,
  'objective.*.matching': NOT_NEGATIVE,
  'objective.*.correlation': NOT_NEGATIVE,
  'objective.*.off_diagonal': NOT_NEGATIVE,
  'objective.*.invariance': NOT_NEGATIVE,
  'objective.*.variance': NOT_NEGATIVE,
  'objective.*.covariance': NOT_NEGATIVE,
  'objective.*.assignment': NOT_NEGATIVE,
  'objective.*.epsilon': POSITIVE,
  'objective.*.iterations': COUNT,
  'objective.*.simclr': NOT_NEGATIVE,
  'objective.*.logits': NOT_NEGATIVE,
  'objective.*.features': NOT_NEGATIVE,
  'objective.*.interactive': NOT_NEGATIVE,
  'objective.*.momentum': Rule(0, 1, off=(None,)),
  'objective.*.final_momentum': Rule(0, 1, off=(None,)),
  'objective.*.bottleneck': COUNT,
  'objective.*.prototypes': COUNT,
  'objective.*.target_temperature': POSITIVE,
  'objective.*.center_momentum': _DECAY,
  'objective.*.ratio': _SHARE,
  'objective.*.ranking': NOT_NEGATIVE,
  'objective.*.hard': Rule(0, 1),
  'objective.*.inter': Rule(0, 1),
  'objective.*.clusters': Rule(2, integer=True),
  'objective.*.cluster_every': NATURAL,
  'objective.*.negatives': COUNT,
  'objective.*.nearest': NATURAL,
  'objective.*.margin': _ANY,
  'objective.*.view': NATURAL,
  'objective.*.p': NOT_NEGATIVE,
  'objective.*.pos_ratio': POSITIVE,
  'objective.*.transform_layers': NATURAL,
  'objective.*.instance': NOT_NEGATIVE,
  'objective.*.widths': COUNT._replace(each=True),
  'objective.*.permutations': Rule(2, 72, integer=True),
  'objective.*.latent': COUNT,
  'objective.*.width': COUNT,
  'objective.*.layers': NATURAL,
  'objective.*.attention_heads': COUNT,
  'objective.*.patch': COUNT,
  'objective.*.contrast': NOT_NEGATIVE,
  'objective.*.reconstruction': NOT_NEGATIVE,
  'views': COUNT,
  'texts': COUNT,
  'data.examples': NATURAL,
  'data.negatives': NATURAL,
  'data.classes': Rule(2, integer=True, off=(0,)),
  'total_steps': COUNT,
  'unmasked_fraction': _DECAY,
  'batch_size': COUNT,
  'micro_batches': COUNT,
  'gather_bytes': NATURAL,
  'bad_steps.spike': Rule(1, open_low=True, off=(0,)),
  'optimizer.learning_rate': NOT_NEGATIVE,
  'optimizer.warmup_fraction': _DECAY,
  'optimizer.cooldown_fraction': _DECAY,
  'optimizer.timescale': COUNT,
  'optimizer.b1': _DECAY,
  'optimizer.b2': _DECAY,
  'optimizer.epsilon': POSITIVE,
  'optimizer.weight_decay': NOT_NEGATIVE,
  'optimizer.clip_norm': POSITIVE._replace(off=(None, 0)),
  'optimizer.max_scale': Rule(1, off=(0,)),
  'optimizer.layer_decay': _SHARE,
  'average_decay': _DECAY,
  'log_every': COUNT,
  'checkpoint_every': COUNT,
  'keep_checkpoints': COUNT,
  'evaluate_every': COUNT,
  'profile': NATURAL,
  'evaluation.batch_size': COUNT,
  'evaluation.sequence_length': NATURAL,
  'evaluation.captions.beams': COUNT,
  'evaluation.captions.length_penalty': NOT_NEGATIVE,
}


def rule_of(field: str, value: Any = None) -> Rule | None:
  """Rule of a field such as 'model.image.width'; without a rule, floats must be finite."""
  if field == 'model.image.layers' and isinstance(value, (list, tuple)):
    return COUNT._replace(each=True)  # of each stage of a convolutional tower
  parts = field.split('.')
  for pattern, rule in RULES.items():
    names = pattern.split('.')
    if len(names) == len(parts) and all(n in ('*', p) for n, p in zip(names, parts, strict=True)):
      return rule
  return _ANY if isinstance(value, float) else None
