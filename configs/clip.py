"""CLIP: contrastive pretraining of an image and a text tower with InfoNCE.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
On the emoji, the terms of configs/methods/cuaxu.py join it, which gain six points of recall, see
experiments/confirmation; `--config.objective='{"info_nce": 1.0}'` is InfoNCE alone.

  python launch.py --config=configs/clip.py             the included emoji, on two cores
  python launch.py --config=configs/clip.py:smoke       two tiny steps, within a minute
  python launch.py --config=configs/clip.py:validation  the default without the held-out splits, to
      choose hyperparameters
  python launch.py --config=configs/clip.py:vit_b16 --config.data.name=NAME    the paper's recipe,
      on data with the fields `image` and `caption`; also vit_b32, vit_l14 and rn50
"""

from ml_collections import ConfigDict

SHARED = ('default', 'smoke', 'validation')  # also in configs/methods/
PAPER = ('vit_b32', 'vit_b16', 'vit_l14')
VARIANTS = (*SHARED, *PAPER, 'rn50')
# Beside InfoNCE in configs/methods/cuaxu.py, and on the emoji here.
CUAXU = {'uniformity': 1.0, 'alignment': 1.0, 'cross_uniformity': 1.0}


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = recipe(variant)
  if variant in ('default', 'validation'):
    config.objective.update(CUAXU)
  return config


def recipe(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant with InfoNCE alone, on which other configs build."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/clip.py has no variant {variant!r}; use one of {VARIANTS}')
  config = emoji()
  config.variant = variant
  if variant == 'smoke':
    make_tiny(config)
    styles = 'train[vendor=noto|twemoji'
    config.data.split = f'{styles},skin_tone=]+{styles},skin_tone=]+{styles}]'
  elif variant == 'validation':
    # Trains on all styles but one and validates on that; the held-out splits stay unseen.
    plain = 'train[vendor!=twemoji,skin_tone=]+openmoji[skin_tone=]'
    config.data.split = f'{plain}+{plain}+train[vendor!=twemoji]'
    config.evaluation.splits = ('train[vendor=twemoji,skin_tone=,group!=flags]',)
    config.evaluation.probe_split = 'train[vendor=noto,skin_tone=,group!=flags]'
    config.evaluation.pairs = ()
  elif variant != 'default':
    make_paper(config, variant)
  return config


def for_method(
  name: str, variant: str, variants: tuple[str, ...] = SHARED, base=recipe
) -> ConfigDict:
  """Returns the config of a variant for configs/methods/NAME.py.

  Args:
    name: name of the method.
    variant: the variant.
    variants: the variants that the method has.
    base: variant -> the config that the method builds on.
  """
  if variant not in variants:
    raise ValueError(f'configs/methods/{name}.py has no variant {variant!r}; use one of {variants}')
  config = base(variant)
  config.name = name
  return config


def emoji() -> ConfigDict:
  """Small towers on the included emoji."""
  config = ConfigDict()
  config.name = 'clip'
  config.variant = 'default'
  config.seed = 0

  config.data = ConfigDict()
  # Or 'tfds:NAME', 'webdataset:/data/{split}-{00000..00099}.tar', 'jsonl:…', 'csv:…',
  # 'arrayrecord:…', 'parquet:…', 'imagefolder:…' and others, or a mixture, 'A*0.7+B*0.3'; see
  # data/sources/opening.py
  config.data.name = 'emoji'
  config.data.folder = ''  # folder of prepared TFDS datasets; '' for TFDS's default
  # Nearly half of them repeat people in five skin tones; all other emoji count three times, those
  # of OpenMoji twice.
  plain = 'train[skin_tone=]+openmoji[skin_tone=]'
  config.data.split = f'{plain}+{plain}+train'
  config.data.tokenizer = 'emoji'
  # A field, from whose texts one is drawn; or fields by weight: 'caption*0.7+join(tags)*0.3'. With
  # several texts, config.texts, also a tuple with the fields of each: ('caption', 'join(tags)')
  config.data.captions = 'caption'
  config.data.prompts = ()  # templates drawn at random if captions are names: ('a photo of {}', …)
  config.data.negatives = 0  # wrong captions per example, for losses with hard negatives
  config.data.negative_captions = ''  # field with wrong captions, before those of the rules
  config.data.negative_rules = ()  # by which they are made, see data/text/negatives.py; () for all
  # Probabilities of editing the texts of an example, all but the first of `texts`: of dropping the
  # stop words, and then of one edit; see data/text/augmentation.py
  config.data.text_augmentation = ConfigDict(
    {
      'drop_stop_words': 0.0,
      'synonyms': 0.0,  # of one word
      'swap': 0.0,  # of two words
      'delete': 0.0,  # of some words
      'synonyms_from': 'wordnet',  # or 'emoji', or a file with lines `word: synonym, synonym`
      'first': 'none',  # 'stop_words' may drop those of the first text, 'all' edits it too
    }
  )
  config.data.second_captions = ''  # like captions, for models of text pairs
  config.data.numbers = ()  # fields, for models that read numbers
  config.data.nodes = ()  # fields of integers, for models of graphs
  # Fields with paths of sounds, for models of sounds, which read so many of them per example, cut
  # or padded to a duration
  config.data.audio = ()
  config.data.voices = 1
  config.data.audio_seconds = 2.0
  config.data.labels = ''  # field with the class of an example, for losses with labels
  # Number of these classes, for losses with classifiers; 0 leaves them without numbers
  config.data.classes = 0
  config.data.number = ''  # field with a number of an example, for losses of regression
  config.data.examples = 0  # rows of tables with a row per example; 0 to count the examples
  config.data.size = 40  # side of the images in a batch, before augmentation
  config.data.crop = ()  # min and max area of random crops, as fractions; () for no crop
  # Normalization of pixels from 0 to 1, a number per channel; () for CLIP's. SigLIP's weights have
  # (0.5, 0.5, 0.5) for both.
  config.data.mean = ()
  config.data.std = ()
  # NaFlex, images as patches at their own aspect: patches per image, of which each batch has one
  # number; () for square images. batch_size is then that of the longest; see docs/naflex.md
  config.data.sequence_lengths = ()
  config.data.patch_sizes = ()  # sides of these patches, FlexiViT; () for model.image.patch
  config.data.batch_multiple = 8  # of which batches of shorter sequences have a multiple of images
  config.data.subset = 1.0  # fraction of the examples drawn per round (RS2); 1 for full epochs
  config.data.replacement = True  # whether examples of earlier rounds may be drawn again
  # 'global' shuffles all examples and reads each by itself; 'shards' shuffles files and, within a
  # buffer of so many examples of all processes, what they hold: for buckets; see docs/data.md
  config.data.shuffle = 'global'
  config.data.shuffle_buffer = 65_536
  # Processes that prepare batches; 0 for threads of this process. -1 is 0 on CPUs and for data in
  # memory; on accelerators it is this process's share of the host's cores, less two, at most 32.
  config.data.workers = -1

  # Augmentation resizes images from data.size to model.image.size; see data/augmentation/
  config.augment_on = 'device'  # or 'host', if it has idle cores
  config.augmentation = ConfigDict(
    {
      'degrees': 10.0,
      'shear': 8.0,
      'translate': 0.08,
      'zoom': 0.3,
      'stretch': 0.15,
      'brightness': 0.2,
      'contrast': 0.2,
      'saturation': 0.5,
      'hue': 0.08,
      'grey': 0.1,
      'erase': 0.0,
    }
  )

  # Strengths in place of these for a view and those after it, as in {'1': {...}, '3': {...}}
  config.view_augmentation = ConfigDict()

  config.model = ConfigDict()
  config.model.name = 'clip'
  config.model.embed = 128
  config.model.scale = 1 / 0.07
  # rematerialization: 'dots', 'full' and 'pairs' take ever less memory, and more time
  config.model.remat = 'none'
  # 'xla', or a fused kernel: 'cudnn' on GPUs, 'splash' on TPUs; 'auto' selects by shape in bfloat16
  config.model.attention = 'auto'
  config.model.dtype = 'float32'  # or 'bfloat16', faster on CPUs with bfloat16 instructions
  config.model.image = ConfigDict()
  config.model.image.size = 32
  config.model.image.patch = 8
  # A small ResNet: on few images it generalizes to new styles sooner than a transformer.
  config.model.image.stem = 'convolution'
  config.model.image.stem_blocks = (0, 1, 1)
  config.model.image.width = 128
  config.model.image.layers = 0
  config.model.image.heads = 4
  config.model.image.pre_norm = False
  config.model.image.pooling = 'mean'
  config.model.text = ConfigDict()
  config.model.text.vocabulary = 4096
  config.model.text.length = 16
  config.model.text.width = 128
  config.model.text.layers = 1
  config.model.text.heads = 4

  config.init_from = ''  # folder of initial weights; see interop/
  config.init_towers = ()  # towers to take from it, such as ('image',); () for the whole model
  # Methods by name: a weight, or a dict of the weight and options, {'weight': 1.0, 'scale': 10.0}
  config.objective = ConfigDict({'info_nce': 1.0})
  config.views = 1  # augmented views per image; the first is paired with the text
  config.texts = 1  # texts per example; the first is paired with the image

  config.total_steps = 1500
  # Of all steps, at the end, without model.image.patch_dropout: FLIP's unmasked tuning
  config.unmasked_fraction = 0.0
  config.batch_size = 256
  # Micro-batches (gradient caching); the loss still sees the whole batch.
  config.micro_batches = 1
  # A step is bad if its loss or gradient is not finite, or if its gradient norm exceeds `spike`
  # times the moving average (0: no bound). Bad steps stop the run; with 'skip' they are skipped.
  config.bad_steps = ConfigDict({'action': 'stop', 'spike': 0.0})
  config.optimizer = ConfigDict()
  config.optimizer.name = 'muon'  # or 'adafactor', 'adamw', 'lars', 'lion', 'sgd'
  config.optimizer.learning_rate = 4e-3
  config.optimizer.warmup_fraction = 0.05
  # After the warmup: 'constant', 'cosine', 'linear', 'rsqrt', or 'wsd', which needs a cooldown
  config.optimizer.decay = 'cosine'
  config.optimizer.cooldown_fraction = 0.0  # of all steps; the learning rate then falls to 0
  config.optimizer.timescale = 10_000  # of 'rsqrt', in steps
  config.optimizer.b1 = 0.9
  config.optimizer.b2 = 0.98
  config.optimizer.epsilon = 1e-6
  config.optimizer.weight_decay = 0.5
  config.optimizer.clip_norm = 1.0  # maximum global gradient norm; 0 or None for no clipping
  config.optimizer.max_scale = 100.0  # upper bound of the scale (lower bound 1); 0 for no bounds
  # (path pattern, learning rate multiplier): (('image/.*', 0.0),) freezes the image tower
  config.optimizer.rates = ()
  config.optimizer.layer_decay = 1.0  # learning rate decay per layer, from the top of each tower
  # For methods that read a teacher: the workdir of a run, a folder of weights, or their table;
  # 'untrained' to try them. For those of momentum 1: weights of this model. See docs/train.md
  config.teacher = ''
  config.evaluate_target = ''  # target to evaluate, by its momentum, such as '0.99'; '' for none
  config.average_decay = 0.0  # of the moving average of parameters, for evaluation; 0 for none

  config.mesh = 'data:-1'
  # Bytes per device for gathering embeddings, so that groups of devices shorten the ring of the
  # loss. A hop between the cores of a host costs nothing.
  config.gather_bytes = 0
  # Precision of a model's float32 products. 'highest' is exact; 'high' and 'default' are faster on
  # accelerators.
  config.matmul_precision = 'highest'
  config.xla_flags = ''  # sets of flags: 'overlap' of collectives, 'vmem'; see runtime/xla.py
  config.sharding = ConfigDict({'embed': 'fsdp', 'mlp': 'tensor', 'heads': 'tensor'})

  config.log_every = 50
  config.checkpoint_every = 500
  config.keep_checkpoints = 2  # number of the newest checkpoints to keep
  # Also keeps the checkpoint with the highest metric, such as
  # 'heldout_style/image_to_text_recall@1', and saves every evaluated step; '' for none.
  config.keep_best = ''
  config.profile = 0  # number of steps to trace, for xprof and Perfetto
  # Experiment tracker beside metrics.jsonl: 'wandb', 'mlflow', or 'module:function'; '' for none
  config.tracker = ''
  config.tracker_options = ConfigDict()  # such as project and mode; see docs/train.md
  config.evaluate_every = 500
  config.evaluation = ConfigDict()
  # Splits of the data, or other datasets as NAME=SOURCE: 'stamps=jsonl:/data/stamps.jsonl'
  config.evaluation.splits = ('heldout_style', 'heldout_composition')
  config.evaluation.batch_size = 256
  # Patches per image (NaFlex); 0 for the longest of data.sequence_lengths, or square images
  config.evaluation.sequence_length = 0
  # Fields for retrieval: a text, several, texts by language, or one language, 'names.zh'. Only the
  # final evaluation uses all fields; others use the first.
  config.evaluation.texts = ('caption',)
  config.evaluation.second_texts = ()  # the same, for the second text of a pair
  # Fields with a class, or FIELD=NAMES: 'label=imagenet', or a file with the names of the labels
  config.evaluation.zero_shot = ('group', 'subgroup')
  # Prompt templates; or ('imagenet',) for the 80 of CLIP, or a file
  config.evaluation.templates = ('{}', 'an emoji of {}', 'a picture of {}', '{} symbol')
  # Probes on the frozen encoder for the same classes, in the final evaluation: k-NN and few-shot,
  # trained on probe_split
  config.evaluation.probes = ('neighbours', 'prototypes')  # and 'linear', which is slow
  config.evaluation.probe_split = 'train[vendor=noto|twemoji,skin_tone=,group!=flags]'
  # Fields of numbers, such as ('ink',) of 'measured:emoji', for ridge regressions in the final
  # evaluation, trained on probe_split
  config.evaluation.numbers = ()
  # Winoground-style pairs: an example and a partner with equal values in these fields
  config.evaluation.pairs = ('vendor', 'concept')
  # Image − word + word, which retrieves an example whose caption differs in the word, and which has
  # equal values in these fields, such as ('vendor',)
  config.evaluation.arithmetic = ()
  # Partners of the pairs, and further images of the arithmetic; '' for the split itself
  config.evaluation.partners = 'train[vendor=noto|twemoji,skin_tone!=]'
  config.evaluation.captions = ConfigDict()  # options of models/generation.py, for captioners
  return config


def make_tiny(config: ConfigDict) -> None:
  """Two steps of a tiny model, each logged."""
  config.optimizer.update({'name': 'adamw', 'learning_rate': 1e-3})
  config.total_steps = 2
  config.batch_size = 16
  config.log_every = 1
  config.checkpoint_every = 1
  config.evaluate_every = 1_000_000
  config.evaluation.probes = config.evaluation.pairs = ()
  config.model.embed = 16
  for name in ('image', 'text'):
    if tower := config.model.get(name):
      tower.width, tower.layers, tower.heads = 32, 1, 2
  if 'image' in config.model:
    config.model.image.stem_blocks = (0, 0, 1)


def make_paper(config: ConfigDict, variant: str) -> None:
  """The paper's models and hyperparameters: 32 epochs of 400 million pairs."""
  # (patch, image width, layers, heads, text width, text heads, D, learning rate)
  sizes = {
    'vit_b32': (32, 768, 12, 12, 512, 8, 512, 5e-4),
    'vit_b16': (16, 768, 12, 12, 512, 8, 512, 5e-4),
    'vit_l14': (14, 1024, 24, 16, 768, 12, 768, 4e-4),
    'rn50': (32, 64, (3, 4, 6, 3), 32, 512, 8, 1024, 5e-4),
  }
  patch, width, layers, heads, text_width, text_heads, embed, learning_rate = sizes[variant]
  config.data.name = 'laion400m'
  config.data.split = 'train'
  config.data.tokenizer = 'clip'
  config.data.captions = 'caption'
  config.data.size = 224
  config.data.crop = (0.9, 1.0)
  config.augmentation = ConfigDict()
  config.model.embed = embed
  config.model.dtype = 'bfloat16'
  config.model.image = ConfigDict(
    {
      'size': 224,
      'patch': patch,
      'stem': 'patch',
      'width': width,
      'layers': layers,
      'heads': heads,
      'pooling': 'class',
      'scan': True,
    }
  )
  if variant == 'rn50':
    resnet = {'tower': 'resnet', 'size': 224, 'width': width, 'layers': layers, 'heads': heads}
    config.model.image = ConfigDict(resnet)
    config.model.image_projection = 'affine'
  config.model.text = ConfigDict(
    {
      'vocabulary': 49_408,
      'length': 77,
      'width': text_width,
      'layers': 12,
      'heads': text_heads,
      'scan': True,
    }
  )
  config.batch_size = 32_768
  config.gather_bytes = 64 * 2**20
  config.total_steps = 390_625
  config.optimizer.update({'name': 'adamw', 'learning_rate': learning_rate})
  config.optimizer.weight_decay = 0.2
  config.optimizer.warmup_fraction = 2_000 / 390_625
  config.log_every = 100
  config.checkpoint_every = 1_000
  config.evaluate_every = 10_000
  config.evaluation.splits = ('validation',)
  config.evaluation.zero_shot = ()
  config.evaluation.pairs = ()


def make_yfcc15m(config: ConfigDict, epochs: int) -> None:
  """The recipe of SLIP and of CLIP-rocket: augmented views of YFCC15M, in batches of 4,096."""
  config.data.name = 'yfcc15m'
  config.data.crop = ()
  # The authors' strong augmentation, except for the crop: they use 0.92, and 0.5 for the view that
  # is paired with the text.
  config.augmentation = ConfigDict(
    {'brightness': 0.4, 'contrast': 0.4, 'saturation': 0.4, 'hue': 0.1, 'grey': 0.2, 'crop': 0.5}
  )
  config.augmentation.update({'blur': 0.5, 'flip': 0.5})
  config.batch_size = 4096
  config.total_steps = epochs * 15_000_000 // config.batch_size
  config.optimizer.update({'name': 'adamw', 'learning_rate': 3e-3, 'epsilon': 1e-8})
  config.optimizer.weight_decay = 0.1
  config.optimizer.warmup_fraction = 1 / epochs
