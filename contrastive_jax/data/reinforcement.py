"""Dataset reinforcement [1]: embeddings of teachers, stored once for some views and all captions.

A folder holds

  table.json    what the table is of, see `Table`, and how many rows are written
  seeds.npy     int32 [N, A]       seed of each view's crop and augmentation; −1 for a bad example
  images.npy    float16 [N, A, W]  embeddings of the views
  starts.npy    int64 [N + 1]      where the texts of each example begin
  texts.npy     float16 [M, W]     embeddings of the texts

with N rows of the data, A views of each, M texts in all, and W the sum of the teachers' widths. The
files are read in place, a row per example of a batch.

References:
  [1] Vasu et al., MobileCLIP: Fast Image-Text Models through Multi-Modal Reinforced Training, 2024,
    https://arxiv.org/abs/2311.17049
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contrastive_jax.data.captions import is_joined, texts_of

INDEX = 'table.json'
_ARRAYS = ('seeds', 'images', 'starts', 'texts')


def is_table(folder: str | pathlib.Path) -> bool:
  """Whether a folder holds a table."""
  return (pathlib.Path(folder) / INDEX).is_file()


class Table:
  """A complete table, as a reader of examples, see `readers`.

  Attributes:
    folder: the folder.
    index: of the table: `examples` N, `views` A, `teachers` (folder, width and scale of each),
      `drawing` (what views and texts depend on, by field of the config) and `captions`, the fields
      of the texts in order.
  """

  def __init__(self, folder: str | pathlib.Path):
    """Opens a table.

    Raises:
      ValueError: if it is incomplete.
    """
    self.folder = pathlib.Path(folder)
    self.index = json.loads((self.folder / INDEX).read_text())
    if self.index['done'] < self.index['examples']:
      raise ValueError(
        f'the table in {folder} holds {self.index["done"]} of {self.index["examples"]} examples; '
        'give the command that writes it again, which resumes'
      )
    self._open()

  def _open(self) -> None:
    arrays = {name: np.load(self.folder / f'{name}.npy', mmap_mode='r') for name in _ARRAYS}
    self._seeds, self._images, self._starts, self._texts = arrays.values()

  def __getstate__(self) -> dict[str, Any]:
    # Another process opens the files anew.
    return {'folder': self.folder, 'index': self.index}

  def __setstate__(self, state: dict[str, Any]):
    vars(self).update(state)
    self._open()

  @property
  def widths(self) -> list[int]:
    """Widths of the teachers' embeddings."""
    return [teacher['width'] for teacher in self.index['teachers']]

  @property
  def scales(self) -> list[float]:
    """Inverse temperatures of the teachers."""
    return [teacher['scale'] for teacher in self.index['teachers']]

  @property
  def columns(self) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape per example and dtype of what batches hold of it, by name."""
    width = (sum(self.widths),)
    half = np.dtype('float16')
    own = {'teacher_image': (width, half), 'teacher_text': (width, half)}
    return {'seed': ((), np.dtype('int32')), **own}

  def part(self, embeddings: Any) -> tuple[Any, ...]:
    """The embeddings [..., W] of each teacher, float32."""
    ends = np.cumsum(self.widths)
    spans = zip(ends - self.widths, ends, strict=True)
    return tuple(embeddings[..., start:end].astype('float32') for start, end in spans)

  def check_use(self, drawing: Mapping[str, Any], examples: int | None) -> None:
    """Checks that a run has the data, the views and the texts of the table.

    Args:
      drawing: of the run.
      examples: rows of its data; None if they are not opened.

    Raises:
      ValueError: names the field, its value, and that of the table.
    """
    if examples is not None and examples != self.index['examples']:
      raise ValueError(
        f'config.teacher = {str(self.folder)!r} is a table of {self.index["examples"]} examples, '
        f'and the data has {examples}; write one of this data'
      )
    given = json.loads(json.dumps(drawing))  # lists for tuples
    for field, value in self.index['drawing'].items():
      if given.get(field) != value:
        raise ValueError(
          f'config.{field} = {given.get(field)!r}, and the table config.teacher = '
          f'{str(self.folder)!r} is of {value!r}, to which its embeddings belong; use the same'
        )

  def check(self, example: Mapping[str, Any]) -> None:
    """Checks that a good example has the texts of the table."""
    self._row_of_text(example, texts_of_example(example, self.index['captions'])[0])

  def draw(
    self, example: Mapping[str, Any], rng: np.random.Generator, readers: Mapping[str, Any]
  ) -> dict[str, Any]:
    """Draws what all readers read, with one of the views that the table has.

    Args:
      example: the example.
      rng: draws the view and the texts.
      readers: by name, the table among them as 'teacher'.

    Raises:
      ValueError: if the table has no view of the example, or another text.
    """
    row, view = example['id'], int(rng.integers(self.index['views']))
    seed = int(self._seeds[row, view])
    if seed < 0:
      raise ValueError(f'the table {self.folder} has no view of it: it was bad')
    parts = {}
    for name, reader in readers.items():
      if name != 'teacher':
        parts[name] = reader.draw(example, crop_rng(seed) if name == 'image' else rng)
    texts = [self._row_of_text(example, text) for text in parts['tokens'][0]]
    return parts | {'teacher': (row, view, seed, texts)}

  def _row_of_text(self, example: Mapping[str, Any], text: str) -> int:
    texts = texts_of_example(example, self.index['captions'])
    start, end = self._starts[example['id'] : example['id'] + 2]
    if text not in texts or len(texts) != end - start:
      raise ValueError(f'the table {self.folder} has other texts than {texts}')
    return int(start) + texts.index(text)

  def arrays(self, drawn: Sequence[Any]) -> dict[str, np.ndarray]:
    """Returns the columns; texts [b, K, W] of several texts."""
    rows, views, seeds, texts = zip(*drawn, strict=True)
    of_texts = self._texts[np.array(texts)]
    return {
      'seed': np.array(seeds, np.int32),
      'teacher_image': self._images[np.array(rows), np.array(views)],
      'teacher_text': of_texts[:, 0] if of_texts.shape[1] == 1 else of_texts,
    }


def texts_of_example(example: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
  """Returns the texts of some fields, each once, in their order.

  Raises:
    ValueError: if there are none, or one holds something other than text.
  """
  texts = list(dict.fromkeys(texts_of(example, fields)))
  if not texts:
    raise ValueError(f'the caption is empty (fields {sorted(fields)})')
  return texts


def check_fields(captions: Sequence[Mapping[str, float]], prompts: Sequence[str]) -> list[str]:
  """Returns the fields of the texts that a run may draw.

  Args:
    captions: weights of the fields of each text, see `draw_caption`.
    prompts: see `prompt_caption`.

  Raises:
    ValueError: if a table cannot hold all of them.
  """
  fields = [field for own in captions for field, weight in own.items() if weight]
  if prompts or any(map(is_joined, fields)):
    raise ValueError(
      f'config.data.captions = {[*map(dict, captions)]} with config.data.prompts = '
      f'{tuple(prompts)} draws texts that no table can hold; use fields without join(), and no '
      'prompts'
    )
  return list(dict.fromkeys(fields))


def crop_rng(seed: int) -> np.random.Generator:
  """The generator of the crop of a view."""
  return np.random.default_rng(seed)


def seeds_of(seed: int, row: int, views: int) -> np.ndarray:
  """The seeds of the views of a row, int32 [A]."""
  drawn = np.random.SeedSequence([seed, row]).generate_state(views)
  return (drawn & 0x7FFFFFFF).astype(np.int32)


class Writer:
  """Writes a table, and resumes one that was begun with the same index."""

  def __init__(self, folder: str | pathlib.Path, index: Mapping[str, Any], counts: Sequence[int]):
    """Creates the files, or opens those of an earlier call.

    Args:
      folder: of the table; created if missing.
      index: see `Table`.
      counts: the number of texts of each row.

    Raises:
      ValueError: if the folder holds another table.
    """
    self.folder = pathlib.Path(folder)
    self._index = json.loads(json.dumps(index))
    width = sum(teacher['width'] for teacher in index['teachers'])
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    size = index['examples'], index['views']
    shapes = {'seeds': (size, np.int32), 'images': ((*size, width), np.float16)}
    shapes['texts'] = (int(starts[-1]), width), np.float16
    self.done = 0
    if is_table(folder):
      found = json.loads((self.folder / INDEX).read_text())
      self.done = found.pop('done')
      if found != self._index:
        raise ValueError(f'{folder} holds the table of another command; use another folder')
    self.folder.mkdir(parents=True, exist_ok=True)
    mode: Any = 'r+' if self.done else 'w+'
    self._arrays = {
      name: np.lib.format.open_memmap(
        self.folder / f'{name}.npy', mode=mode, dtype=dtype, shape=shape
      )
      for name, (shape, dtype) in shapes.items()
    }
    np.save(self.folder / 'starts.npy', starts)
    self._starts = starts

  def write(self, seeds: np.ndarray, images: np.ndarray, texts: np.ndarray) -> None:
    """Writes the next rows.

    Args:
      seeds: [n, A], −1 for a bad example.
      images: [n, A, W].
      texts: [m, W], of these rows.
    """
    rows = slice(self.done, self.done + len(seeds))
    self._arrays['seeds'][rows], self._arrays['images'][rows] = seeds, images
    self._arrays['texts'][self._starts[rows.start] : self._starts[rows.stop]] = texts
    for array in self._arrays.values():
      array.flush()
    self.done = rows.stop
    partial = self.folder / f'{INDEX}.partial'
    partial.write_text(json.dumps(self._index | {'done': self.done}, indent=1))
    partial.rename(self.folder / INDEX)
