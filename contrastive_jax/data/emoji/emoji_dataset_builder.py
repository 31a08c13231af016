"""Emoji in seven styles, with names in ten languages, as a tensorflow-datasets builder.

The packages hold images (Noto, Twemoji, Fluent), SVG icons (Noto's blobs, EmojiOne 2, Firefox OS,
OpenMoji) and names (Emojibase). Fetch them into a folder:

    npm pack emoji-datasource-google@16.0.0
    npm pack emoji-datasource-twitter@16.0.0
    npm pack @lobehub/fluent-emoji-3d@1.1.0
    npm pack @iconify-json/noto-v1@1.2.5
    npm pack @iconify-json/emojione@1.2.3
    npm pack @iconify-json/fxemoji@1.2.2
    npm pack @iconify-json/openmoji@1.2.29
    npm pack emojibase-data@17.0.0
    for archive in *.tgz; do
      mkdir "${archive%.tgz}" && tar -xzf "$archive" -C "${archive%.tgz}"
    done

Then `python -m contrastive_jax.data.emoji.build --source=FOLDER --target=FOLDER` prepares the set;
it renders with resvg-py 0.5.0, which requirements.txt installs.

Splits go by emoji and skin tone, never by file:

    train                Noto, Twemoji, Noto's blobs, EmojiOne 2 and Firefox OS, but for the pairs
                         held out below. The last three draw no emoji that the first two do not, and
                         of pictures that they repeat only the first.
    openmoji             OpenMoji, likewise: a file of its own, under its own share-alike license.
    heldout_style        Fluent, a style never seen: every concept, without skin tones, and without
                         flags, which are the same in every style.
    heldout_composition  Noto and Twemoji: of every concept that comes in skin tones, one tone is
                         kept back in all styles. The concept and the tone are in train, the pair
                         not.
"""

import collections
import dataclasses
import hashlib
import inspect
import io
import json
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any

import tensorflow_datasets as tfds
from PIL import Image, ImageOps
from tensorflow_datasets.proto import tf_example_pb2

from contrastive_jax.data.emoji import vector
from contrastive_jax.data.emoji.vector import spelling

SIZE = 64
_RENDERED_SIZE = 256  # of icons, before they are scaled like images
LANGUAGES = ('de', 'es', 'fr', 'it', 'ja', 'ko', 'pt', 'ru', 'zh')
SKIN_TONES = ('light', 'medium-light', 'medium', 'medium-dark', 'dark')
NAMES = 'emojibase-data@17.0.0'
PICTURES = {
  'noto': ('emoji-datasource-google@16.0.0', 'img/google/64'),
  'twemoji': ('emoji-datasource-twitter@16.0.0', 'img/twitter/64'),
  'fluent': ('@lobehub/fluent-emoji-3d@1.1.0', 'assets'),
}
# Styles that the held-out splits do not know: SVG icons.
DRAWINGS = {
  'blobs': '@iconify-json/noto-v1@1.2.5',
  'emojione': '@iconify-json/emojione@1.2.3',
  'firefox': '@iconify-json/fxemoji@1.2.2',
  'openmoji': '@iconify-json/openmoji@1.2.29',
}
LICENSE = """\
Pictures by vendor, composited over white and encoded as WebP:
  noto: Noto Emoji, copyright Google, Apache License 2.0, https://github.com/googlefonts/noto-emoji
  twemoji: Twemoji, copyright Twitter, Inc. and other contributors, CC-BY 4.0,
    https://creativecommons.org/licenses/by/4.0, https://github.com/jdecked/twemoji
  fluent: Fluent Emoji, copyright Microsoft, MIT License, https://github.com/microsoft/fluentui-emoji,
    packaged by LobeHub, MIT License, https://github.com/lobehub/fluent-emoji
  blobs: Noto Emoji before Android O, copyright Google, Apache License 2.0,
    https://github.com/googlefonts/noto-emoji, packaged by Iconify
  emojione: EmojiOne 2, copyright EmojiOne, CC-BY 4.0, https://github.com/EmojiTwo/emojitwo,
    packaged by Iconify
  firefox: FxEmojis, copyright Mozilla, Apache License 2.0, https://github.com/mozilla/fxemoji,
    packaged by Iconify
  openmoji: OpenMoji, CC-BY-SA 4.0, https://openmoji.org, packaged by Iconify. Its split, the file
    emoji-openmoji.array_record-00000-of-00001, is under the same license,
    https://creativecommons.org/licenses/by-sa/4.0/
Names, tags and groups: Emojibase, copyright Miles Johnson, MIT License,
  https://github.com/milesj/emojibase
"""


@dataclasses.dataclass(frozen=True)
class Emoji:
  """An emoji, apart from its images; the fields are features of the dataset."""

  hexcode: str
  concept: str
  caption: str
  tags: tuple[str, ...]
  names: Mapping[str, str]
  group: str
  subgroup: str
  skin_tone: str


def find_packages(source: pathlib.Path) -> dict[str, pathlib.Path]:
  """Finds the unpacked npm packages anywhere below a folder.

  Args:
    source: the folder.

  Returns:
    The folder of each package, by its 'name@version'.

  Raises:
    ValueError: if a package is missing.
  """
  found = {}
  for path in source.rglob('package.json'):
    package = json.loads(path.read_text(encoding='utf-8'))
    found[f'{package.get("name")}@{package.get("version")}'] = path.parent
  wanted = [NAMES, *(name for name, _ in PICTURES.values()), *DRAWINGS.values()]
  if missing := [name for name in wanted if name not in found]:
    raise ValueError(
      f'source = {source} holds no unpacked {", ".join(missing)}; fetch with `npm pack` as '
      f'{__name__} says. Found: {", ".join(sorted(found)) or "no package"}'
    )
  return {name: found[name] for name in wanted}


def read_emoji(package: pathlib.Path) -> dict[str, Emoji]:
  """Reads Emojibase, by spelling, without modifiers such as flag letters and skin tones."""

  def read(name):
    return json.loads((package / f'{name}.json').read_text(encoding='utf-8'))

  def with_skins(records):
    return ((base, variant) for base in records for variant in (base, *base.get('skins', ())))

  names = collections.defaultdict(lambda: dict.fromkeys(LANGUAGES, ''))
  for language in LANGUAGES:
    for _, variant in with_skins(read(f'{language}/data')):
      names[variant['hexcode']][language] = variant['label']
  meta = read('meta/groups')
  emoji = {}
  for base, variant in with_skins(read('en/data')):
    group = meta['groups'].get(str(base.get('group')), '')
    subgroup = meta['subgroups'].get(str(base.get('subgroup')), '')
    if subgroup in ('', 'skin-tone'):
      continue
    tones = variant.get('tone', ())
    tones = (tones,) if isinstance(tones, int) else tones
    emoji[spelling(variant['hexcode'])] = Emoji(
      hexcode=variant['hexcode'],
      concept=base['hexcode'],
      caption=variant['label'],
      tags=tuple(base.get('tags', ())),
      names=names[variant['hexcode']],
      group=group,
      subgroup=subgroup,
      skin_tone=', '.join(SKIN_TONES[tone - 1] for tone in tones),
    )
  return emoji


def encode(file: pathlib.Path | IO[bytes]) -> bytes:
  """Composites an image over white and encodes it as WebP, 64x64."""
  with Image.open(file) as picture:
    picture = picture.convert('RGBA')
  # Compositing precedes resampling, so that the color of transparent pixels does not bleed in.
  flat = Image.alpha_composite(Image.new('RGBA', picture.size, 'white'), picture).convert('RGB')
  flat = ImageOps.pad(flat, (SIZE, SIZE), Image.Resampling.LANCZOS, color='white')
  buffer = io.BytesIO()
  flat.save(buffer, 'WEBP', quality=85, method=6)
  return buffer.getvalue()


def read_pictures(
  folder: pathlib.Path, emoji: Mapping[str, Emoji], *, plain: bool = False
) -> dict[str, bytes]:
  """Reads the images of a vendor.

  Args:
    folder: PNG or WebP files, named by hexcode.
    emoji: the emoji by spelling; files of other names are left out.
    plain: whether to skip flags and emoji with a skin tone.

  Returns:
    The encoded images, by spelling. Of two files of one emoji, the first by name counts.
  """
  pictures = {}
  for path in sorted(folder.iterdir()):
    match = emoji.get(spelling(path.stem))
    if match is None or spelling(path.stem) in pictures:
      continue
    if not (plain and (match.skin_tone or match.group == 'flags')):
      pictures[spelling(path.stem)] = encode(path)
  return pictures


def read_styles(
  packages: Mapping[str, pathlib.Path],
  emoji: Mapping[str, Emoji],
  trained: Collection[str],
  held_out: Collection[str],
  known: Collection[bytes],
) -> dict[str, dict[str, bytes]]:
  """Renders the styles of SVG icons for training, each image once.

  Args:
    packages: the folders of the packages.
    emoji: the emoji by spelling.
    trained: spellings of the emoji in train; others are left out.
    held_out: spellings of held-out emoji; an image of one is left out under every name.
    known: encoded images of other styles; left out too.

  Returns:
    The encoded images by spelling, by style. An image of several emoji counts for the first one
    without a skin tone.
  """
  shortcodes = vector.read_shortcodes(packages[NAMES])
  index = vector.index_names(
    {key: (each.caption, *shortcodes.get(key, ())) for key, each in emoji.items()}
  )
  wanted = [key for key in emoji if key in trained or key in held_out]
  wanted.sort(key=lambda key: bool(emoji[key].skin_tone))
  known, styles = set(known), {}
  for vendor, package in DRAWINGS.items():
    icons = vector.read_icons(packages[package], emoji, index)
    drawn = {
      key: encode(vector.render(icons[key], _RENDERED_SIZE)) for key in wanted if key in icons
    }
    known |= {picture for key, picture in drawn.items() if key in held_out}
    styles[vendor] = {}
    for key, picture in drawn.items():
      if picture not in known:
        known.add(picture)
        styles[vendor][key] = picture
  return styles


def hold_out(emoji: Mapping[str, Emoji], *vendors: Mapping[str, bytes]) -> frozenset[str]:
  """Holds out one skin tone per concept, chosen by a hash.

  A tone that some vendor draws like another emoji is never held out: training would see its image.

  Args:
    emoji: the emoji by spelling.
    *vendors: the encoded images of each vendor, by spelling.

  Returns:
    The spellings of the held-out emoji.
  """
  copies = collections.Counter(picture for pictures in vendors for picture in pictures.values())
  tones = collections.defaultdict(list)
  for key in set.intersection(*(set(pictures) for pictures in vendors)):
    unique = all(copies[pictures[key]] == 1 for pictures in vendors)
    if unique and emoji[key].skin_tone in SKIN_TONES:
      tones[emoji[key].concept].append(key)
  return frozenset(
    min(keys, key=lambda key: hashlib.sha256(key.encode()).digest()) for keys in tones.values()
  )


class DeterministicWriter(tfds.core.ExampleWriter):
  """Writes equal examples as equal bytes; TFDS writes their features in random order."""

  def write(self, path, examples):
    """Writes the examples with their features in order."""

    def in_order():
      for key, example in examples:
        example = tf_example_pb2.Example.FromString(example)
        yield key, example.SerializeToString(deterministic=True)

    return super().write(path, in_order())


class Builder(tfds.core.GeneratorBasedBuilder):
  """Emoji in seven styles, with names in ten languages.

  Two held-out splits ask for what training never shows: one of the styles, and pairs of a concept
  and a skin tone that never met.
  """

  VERSION = tfds.core.Version('2.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = __doc__

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    return tfds.core.DatasetInfo(
      builder=self,
      description=inspect.cleandoc(Builder.__doc__),
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(SIZE, SIZE, 3)),
          'vendor': text,
          'hexcode': text,
          'concept': text,
          'caption': text,
          'tags': tfds.features.Sequence(text),
          'names': dict.fromkeys(LANGUAGES, text),
          'group': text,
          'subgroup': text,
          'skin_tone': text,
        }
      ),
      supervised_keys=('image', 'caption'),
      license=LICENSE,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    packages = find_packages(pathlib.Path(dl_manager.manual_dir))
    emoji = read_emoji(packages[NAMES])
    pictures = {
      vendor: read_pictures(packages[package] / folder, emoji, plain=vendor == 'fluent')
      for vendor, (package, folder) in PICTURES.items()
    }
    style = pictures.pop('fluent')
    composition = hold_out(emoji, *pictures.values())
    train, held_out = (
      {
        vendor: {
          key: picture for key, picture in drawn.items() if (key in composition) == kept_back
        }
        for vendor, drawn in pictures.items()
      }
      for kept_back in (False, True)
    )
    trained = set().union(*train.values())
    known = {picture for drawn in (style, *pictures.values()) for picture in drawn.values()}
    train |= read_styles(packages, emoji, trained, composition, known)
    openmoji = train.pop('openmoji')
    return {
      'train': self._generate_examples(emoji, train),
      'openmoji': self._generate_examples(emoji, {'openmoji': openmoji}),
      'heldout_style': self._generate_examples(emoji, {'fluent': style}),
      'heldout_composition': self._generate_examples(emoji, held_out),
    }

  def _example_writer(self) -> DeterministicWriter:
    return DeterministicWriter(self.info.file_format)

  def _generate_examples(
    self, emoji: Mapping[str, Emoji], vendors: Mapping[str, Mapping[str, bytes]]
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    for vendor, pictures in vendors.items():
      for key, picture in pictures.items():
        features = {'image': picture, 'vendor': vendor}
        yield f'{vendor} {key}', features | dataclasses.asdict(emoji[key])
