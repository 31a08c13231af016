"""The notebook runs from top to bottom, as it is."""

import json
import os
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / 'experiments'


@pytest.mark.slow
def test_every_cell_runs(tmp_path):
  nbformat = pytest.importorskip('nbformat', reason='pip install -e .[notebook]')
  nbclient = pytest.importorskip('nbclient', reason='pip install -e .[notebook]')
  pytest.importorskip('ipykernel', reason='pip install -e .[notebook]')
  notebook = nbformat.read(FOLDER / 'colab.ipynb', as_version=4)
  client = nbclient.NotebookClient(notebook, resources={'metadata': {'path': str(FOLDER)}})
  # The tests' flags make slow programs; the notebook's runs go to a folder of their own.
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  client.execute(env=environment | {'TMPDIR': str(tmp_path)})
  outputs = [o for cell in notebook.cells for o in cell.get('outputs', [])]
  pictures = [o for o in outputs if 'image/png' in o.get('data', {})]
  said = ''.join(o.get('text', '') for o in outputs)
  assert len(pictures) == 7
  assert 'heldout_style/image_to_text_recall@1' in said and 'caption_' in said
  assert "image features differ from open_clip's" in said


def test_the_notebook_as_it_is_kept_is_whole_and_small():
  path = FOLDER / 'colab.ipynb'
  assert path.stat().st_size < 250_000
  cells = [cell for cell in json.loads(path.read_text())['cells'] if cell['cell_type'] == 'code']
  assert [cell['execution_count'] for cell in cells] == [*range(1, len(cells) + 1)]
  kinds = [output['output_type'] for cell in cells for output in cell['outputs']]
  assert 'display_data' in kinds or 'execute_result' in kinds
  assert 'error' not in kinds
