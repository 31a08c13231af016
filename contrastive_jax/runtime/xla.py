"""Named sets of XLA's flags."""

import os

# Flags by platform; those of TPUs are libtpu's. Both are known to the versions in requirements.txt.
_OVERLAP_TPU = (
  '--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true',
  '--xla_tpu_enable_async_collective_fusion_multiple_steps=true',
  '--xla_tpu_overlap_compute_collective_tc=true',
  '--xla_tpu_enable_data_parallel_all_reduce_opt=true',
  '--xla_tpu_data_parallel_opt_different_sized_ops=true',
)
_OVERLAP_GPU = (
  '--xla_gpu_enable_latency_hiding_scheduler=true',
  '--xla_gpu_enable_pipelined_all_gather=true',
  '--xla_gpu_enable_pipelined_reduce_scatter=true',
  '--xla_gpu_enable_pipelined_all_reduce=true',
  '--xla_gpu_all_gather_combine_threshold_bytes=134217728',
  '--xla_gpu_reduce_scatter_combine_threshold_bytes=134217728',
  '--xla_gpu_all_reduce_combine_threshold_bytes=134217728',
)
_VMEM_TPU = ('--xla_tpu_scoped_vmem_limit_kib=98304',)

# Flags by the name of the set, for TPUs and for GPUs: 'overlap' overlaps collectives with compute;
# 'vmem' gives fusions of TPUs 96 MiB of their vector memory.
FLAG_SETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
  'overlap': (_OVERLAP_TPU, _OVERLAP_GPU),
  'vmem': (_VMEM_TPU, ()),
}


def set_flags(names: str) -> None:
  """Sets flags for TPUs and GPUs, if called before JAX's first computation.

  Flags in the environment take precedence. Other platforms ignore them.

  Args:
    names: names of `FLAG_SETS`, joined by commas; '' for none.

  Raises:
    ValueError: if a name is unknown.
  """
  for name in filter(None, names.split(',')):
    if name not in FLAG_SETS:
      raise ValueError(f'config.xla_flags = {names!r}: {name!r} is unknown; use {[*FLAG_SETS]}')
    for variable, flags in zip(('LIBTPU_INIT_ARGS', 'XLA_FLAGS'), FLAG_SETS[name], strict=True):
      given = os.environ.get(variable, '')
      # The last of equal flags counts.
      os.environ[variable] = ' '.join([*flags, given]).strip()
