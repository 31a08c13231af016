"""Files of tensors: safetensors in and out, pickles refused."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import safetensors.numpy

_PICKLES = ('.bin', '.pt', '.pth', '.ckpt', '.pkl')


def find(folder: str | pathlib.Path, names: Sequence[str]) -> pathlib.Path:
  """The first of `names` that the folder holds.

  Raises:
    ValueError: if it holds none; where it holds a pickle, tells how to convert it.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise ValueError(f'{folder} is no folder')
  for name in names:
    if (folder / name).is_file():
      return folder / name
  for path in sorted(folder.iterdir()):
    refuse_pickle(path)
  raise ValueError(f'{folder} holds no {" and no ".join(names)}')


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
  """The tensors of a .safetensors file by name.

  Raises:
    ValueError: if the file is not whole, or is no .safetensors file.
  """
  refuse_pickle(path)
  try:
    return safetensors.numpy.load_file(path)
  except (OSError, safetensors.SafetensorError) as error:
    raise ValueError(
      f'{path} ({path.stat().st_size if path.exists() else 0} bytes) is no whole .safetensors '
      f'file: {error}; fetch it again'
    ) from error


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
