"""Files of tensors: safetensors in and out, whole or in shards; pickles refused."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import safetensors.numpy

# Ends the name of a file that says which shard holds which tensor, as save_pretrained writes it.
INDEX = '.index.json'
# NumPy has no others; bfloat16 it has from JAX.
_INTEGERS = ('I8', 'I16', 'I32', 'I64', 'U8', 'U16', 'U32', 'U64')
_DTYPES = ('F64', 'F32', 'F16', 'BF16', 'BOOL', *_INTEGERS)
_PICKLES = ('.bin', '.pt', '.pth', '.ckpt', '.pkl')


def find(folder: str | pathlib.Path, names: Sequence[str]) -> pathlib.Path:
  """The first of `names` that the folder holds, or else the first index of shards of that name.

  Raises:
    ValueError: if it holds none; where it holds a pickle, tells how to convert it.
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
    ValueError: tells how to convert it.
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
  """The tensors of a .safetensors file by name, or of all shards of an index.

  Raises:
    ValueError: if a file is missing, not whole, or no .safetensors file; if a tensor has a dtype
      that NumPy lacks, such as float8; if the shards do not hold what their index says.
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
  """Writes tensors as float32; makes the folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  whole = {name: np.asarray(tensor, np.float32, order='C') for name, tensor in tensors.items()}
  safetensors.numpy.save_file(whole, path, metadata={'format': 'pt'})


def read_json(path: pathlib.Path) -> dict:
  """The object in a JSON file.

  Raises:
    ValueError: if it is missing, or holds no object.
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
  """Writes an object; makes the folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
