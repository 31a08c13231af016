"""Writes small files in the forms that users bring, without the libraries that define them."""

import io
import json
import tarfile

import pyarrow as pa

FOLDERS = ('clip_benchmark', 'datasets', 'grouped', 'imagefolder')


def write_images(folder, examples):
  for i, example in enumerate(examples):
    (folder / f'{i}.png').write_bytes(example['image'])


def hugging_face_table(examples, features=None):
  """A table of examples with images as structs of bytes and path, and types as JSON if given."""
  columns = {name: [e.get(name) for e in examples] for name in examples[0] if name != 'image'}
  kind = pa.struct({'bytes': pa.binary(), 'path': pa.string()})
  pictures = [{'bytes': e['image'], 'path': f'{i}.png'} for i, e in enumerate(examples)]
  table = pa.table({'image': pa.array(pictures, kind), **columns})
  if features is None:
    return table
  return table.replace_schema_metadata(
    {'huggingface': json.dumps({'info': {'features': features}})}
  )


def write_saved(folder, *tables, split='train', batch=7):
  """Writes tables as the Arrow streams of a folder of save_to_disk."""
  folder.mkdir(parents=True, exist_ok=True)
  names = [f'data-{i:05}-of-{len(tables):05}.arrow' for i in range(len(tables))]
  for name, table in zip(names, tables, strict=True):
    with pa.ipc.new_stream(folder / name, table.schema) as stream:
      stream.write_table(table, max_chunksize=batch)
  state = {'_data_files': [{'filename': name} for name in names], '_split': split}
  (folder / 'state.json').write_text(json.dumps(state))


def write_benchmark(folder, split, samples, size=10):
  """Writes samples, {ending: bytes}, as a split of CLIP_benchmark's WebDatasets."""
  (folder / split).mkdir(parents=True)
  for shard, start in enumerate(range(0, len(samples), size)):
    with tarfile.open(folder / split / f'{shard}.tar', 'w') as archive:
      for row, sample in enumerate(samples[start : start + size], start):
        for ending, content in sample.items():
          member = tarfile.TarInfo(f's{row:07}.{ending}')
          member.size = len(content)
          archive.addfile(member, io.BytesIO(content))
  (folder / split / 'nshards.txt').write_text(f'{-(-len(samples) // size)}\n')


def write_folder(style, folder, examples):
  """Writes examples with captions in a form that is read from a folder; returns its name."""
  own = [{'image': e['image'], 'caption': e['caption']} for e in examples]
  if style == 'datasets':
    write_saved(folder, hugging_face_table(own[:9]), hugging_face_table(own[9:]))
  if style == 'imagefolder':
    write_images(folder, own)
    rows = [{'file_name': f'{i}.png', 'text': e['caption']} for i, e in enumerate(own)]
    (folder / 'metadata.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  if style == 'clip_benchmark':
    samples = [{'webp': e['image'], 'txt': e['caption'].encode()} for e in own]
    write_benchmark(folder, 'train', samples)
  if style == 'grouped':
    write_images(folder, own)
    rows = [(f'{i}.png', text) for text in ('one', 'two') for i in range(len(own))]
    text = 'image,caption\n' + ''.join(f'{image},{text}\n' for image, text in rows)
    (folder / 'pairs.csv').write_text(text)
    return f'grouped:csv:{folder}/pairs.csv'
  return f'{style}:{folder}'
