#!/usr/bin/env bash
# Readies one worker of a slice: mounts the share, and installs what a run needs.
#
#   experiments/pods/tpu/worker.sh 10.0.0.2:/share
#
# train.sh starts it on all of them, in the code that it copied there.
set -euo pipefail
share=${1:?ADDRESS:/EXPORT of an NFS server}
cd "$(dirname "$0")/../../.."

sudo mkdir -p /mnt/share
if ! mountpoint -q /mnt/share; then
  sudo apt-get install -qy nfs-common
  sudo mount "$share" /mnt/share
fi
sudo install -d -m 1777 /mnt/share/runs

# The TPU images' own Python is older than 3.11; uv brings one.
python3 -m pip install --quiet --user uv
python3 -m uv venv --quiet --clear --python 3.12 .venv
python3 -m uv pip install --quiet --python .venv -r requirements.txt 'jax[tpu]'
