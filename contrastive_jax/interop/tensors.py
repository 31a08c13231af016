"""Reads and writes safetensors, single files or shards; refuses pickles."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import safetensors.numpy

# Suffix of the index of a sharded file, from save_pretrained.
INDEX = '.index.json'
# Dtypes that NumPy supports, with bfloat16 from JAX.
_INTEGERS = ('I8', 'I16', 'I32', 'I64', 'U8', 'U16', 'U32', 'U64')
_DTYPES = ('F64', 'F32', 'F16', 'BF16', 'BOOL', *_INTEGERS)
_PICKLES = ('.bin', '.pt', '.pth', '.ckpt', '.pkl')


def find(folder: str | pathlib.Path, names: Sequence[str]) -> pathlib.Path:
  """Finds the first of `names` in a folder, or the first index of their shards.

  Raises:
    ValueError: if there is none; for a pickle, says how to convert it.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise ValueError(f'{folder} is no folder')
  for name in (*names, *(f'{name}{INDEX}' for name in names)):
    if (folder / name).is_file():
      return folder / name
  for path in sorted(folder.iterdir()):
    refuse_pickle(path)
  shards = ', '.join(path.name for path in sorted(folder.glob('*-of-*.safetensors')))
  lacking = f'; its shards {shards} need their index, {names[-1]}{INDEX}' if shards else ''
  raise ValueError(f'{folder} holds no {" and no ".join(names)}{lacking}')


def refuse_pickle(path: pathlib.Path) -> None:
  """Refuses a pickle by its name.

  Raises:
    ValueError: says how to convert it.
  """
  if path.suffix in _PICKLES:
    raise ValueError(
      f'{path} is a pickle, which can run any code when it is opened, and is not read here. '
      'Convert it where you trust it, in an environment with PyTorch: '
      'import safetensors.torch, torch; '
      f'weights = torch.load({path.name!r}, map_location="cpu", weights_only=True); '
      "weights = weights.get('state_dict', weights); "
      "weights = {name.removeprefix('module.'): tensor.contiguous() for name, tensor in "
      'weights.items()}; '
      f'safetensors.torch.save_file(weights, {path.with_suffix(".safetensors").name!r}). '
      "For OpenAI's own files, weights = torch.jit.load(...).state_dict()"
    )


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the tensors of a .safetensors file, or of all shards of an index, by name.

  Raises:
    ValueError: if a file is missing, incomplete, or of another format; if NumPy lacks the dtype of
      a tensor, such as float8; if the shards differ from their index.
  """
  if path.name.endswith(INDEX):
    return _read_shards(path)
  refuse_pickle(path)
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
      for name, dtype in dtypes.items():
        if dtype not in _DTYPES:
          raise ValueError(
            f'{path}: {name} is {dtype}, which is not read; write its tensors as F32, F16 or BF16, '
            'times their scales where they are quantized'
          )
      return {name: file.get_tensor(name) for name in dtypes}
  except (OSError, safetensors.SafetensorError) as error:
    raise ValueError(
      f'{path} ({path.stat().st_size if path.exists() else 0} bytes) is no whole .safetensors '
      f'file: {error}; fetch it again'
    ) from error


def _read_shards(index: pathlib.Path) -> dict[str, np.ndarray]:
  shard_of = read_json(index).get('weight_map')
  if not isinstance(shard_of, dict) or not shard_of:
    raise ValueError(f'{index} has no weight_map from tensors to shards; fetch it again')
  shards = {}
  for name, shard in shard_of.items():
    shards.setdefault(str(shard), set()).add(name)
  missing = [
    shard
    for shard in sorted(shards)
    if pathlib.PurePath(shard).name != shard or not (index.parent / shard).is_file()
  ]
  if missing:
    raise ValueError(f'{index.parent} holds no {" and no ".join(missing)}, of {index.name}')
  found = {}
  for shard, names in sorted(shards.items()):
    tensors = read(index.parent / shard)
    if differing := sorted(tensors.keys() ^ names):
      raise ValueError(
        f'{index} and {shard} do not agree on {", ".join(differing)}; fetch both again'
      )
    found |= tensors
  return found


def write(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
  """Writes floats as float32, and integers as they are; creates the folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays = {
    name: np.asarray(
      tensor, None if np.issubdtype(np.asarray(tensor).dtype, np.integer) else np.float32, order='C'
    )
    for name, tensor in tensors.items()
  }
  safetensors.numpy.save_file(arrays, path, metadata={'format': 'pt'})


def read_json(path: pathlib.Path) -> dict:
  """Reads an object from a JSON file.

  Raises:
    ValueError: if the file is missing or holds no object.
  """
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise ValueError(f'{path} is missing') from None
  except ValueError as error:
    raise ValueError(f'{path} is no JSON: {error}') from error
  if not isinstance(found, dict):
    raise ValueError(f'{path} holds a {type(found).__name__}; it should hold an object')
  return found


def write_json(path: pathlib.Path, content: dict) -> None:
  """Writes an object to a JSON file; creates the folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
