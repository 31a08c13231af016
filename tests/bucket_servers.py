"""Servers of S3 and of Google Cloud Storage in this process; `pip install .[buckets]`."""

import contextlib
import http
import socket
import urllib.request

import fsspec
import pytest
from etils import epath


@contextlib.contextmanager
def serve_s3():
  """Yields the address of a server of S3."""
  pytest.importorskip('s3fs')
  server = pytest.importorskip('moto.server').ThreadedMotoServer(port=0, verbose=False)
  server.start()
  address = 'http://{}:{}'.format(*server.get_host_and_port())
  # Buckets of earlier servers stay in the process.
  urllib.request.urlopen(f'{address}/moto-api/reset', data=b'').close()
  yield address
  server.stop()


@contextlib.contextmanager
def serve_gs():
  """Yields the address of a server of Google Cloud Storage."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  with pytest.MonkeyPatch.context() as patch:
    # gcsfs, once imported, would ask for the kind of bucket over gRPC, which the server lacks.
    patch.setenv('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')
    pytest.importorskip('gcsfs')
    emulator = pytest.importorskip('gcp_storage_emulator.server')
    _add_generations(emulator, patch)
    server = emulator.create_server('localhost', port, in_memory=True)
    server.start()
    yield f'http://localhost:{port}'
    server.stop()


def _add_generations(emulator, patch):
  """Adds what the emulator lacks: generations of downloads, and uploads that depend on them."""
  objects = emulator.objects
  download, insert = objects.download, objects.insert

  def generation(storage, bucket, name):
    try:
      return storage.get_file_obj(bucket, name)['generation']
    except objects.NotFound:
      return '0'

  def download_with_generation(request, response, storage, *arguments, **options):
    params = request.params
    found = generation(storage, params['bucket_name'], params['object_id'])
    response['x-goog-generation'] = found
    download(request, response, storage, *arguments, **options)

  def insert_if(request, response, storage, *arguments, **options):
    if expected := request.query.get('ifGenerationMatch'):
      name = request.query.get('name') or [request.data['meta']['name']]
      if generation(storage, request.params['bucket_name'], name[0]) != expected[0]:
        response.status = http.HTTPStatus.PRECONDITION_FAILED
        return
    insert(request, response, storage, *arguments, **options)

  patch.setattr(objects, 'download', download_with_generation)
  for _, handlers in emulator.HANDLERS:
    for method, handler in handlers.items():
      if handler in (download, insert):
        replaced = download_with_generation if handler is download else insert_if
        patch.setitem(handlers, method, replaced)


@contextlib.contextmanager
def bucket(scheme):
  """Yields the address of an empty bucket, for this process and those that it starts."""
  variables = {
    's3': lambda address: {
      'AWS_ENDPOINT_URL': address,
      'AWS_ACCESS_KEY_ID': 'anyone',
      'AWS_SECRET_ACCESS_KEY': 'anything',
    },
    'gs': lambda address: {'STORAGE_EMULATOR_HOST': address},
  }
  with {'s3': serve_s3, 'gs': serve_gs}[scheme]() as address, pytest.MonkeyPatch.context() as patch:
    for name, value in variables[scheme](address).items():
      patch.setenv(name, value)
    patch.setattr(fsspec.config, 'conf', {})
    forget(scheme)
    fsspec.filesystem(scheme).mkdir('bucket')
    yield f'{scheme}://bucket'
    forget(scheme)


def forget(scheme):
  """Drops the file systems of earlier servers."""
  fsspec.get_filesystem_class(scheme).clear_instance_cache()
  epath.backend.fsspec_backend._get_filesystem.cache_clear()
