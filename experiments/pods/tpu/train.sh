#!/usr/bin/env bash
# Trains on a slice of a TPU pod, and asks for another slice when that one is taken away.
#
#   ZONE=us-west4-a SHARE=10.0.0.2:/share RUN=clip \
#     experiments/pods/tpu/train.sh --config=configs/clip.py:vit_b16
#
# To be started in a clone of the repository; its last commit is what runs. A slice that is there
# under the same name is taken; one that the script made is deleted when the run is finished.
set -euo pipefail
name=${NAME:-contrastive}                    # of the queued resource and of its slice
zone=${ZONE:?set ZONE, such as us-west4-a}
share=${SHARE:?set SHARE, the ADDRESS:/EXPORT of an NFS server}
run=${RUN:?set RUN, the name of the folder of the run below /mnt/share/runs}
accelerator=${ACCELERATOR:-v5litepod-16}
runtime=${RUNTIME:-v2-alpha-tpuv5-lite}
pricing=${PRICING:---spot}                   # or --reserved, --guaranteed
pause=${PAUSE:-60}                           # seconds between two looks at the slice

# The program may outlive a connection that broke; it saves and leaves before the next one starts.
# The pattern is of this run alone, and its brackets keep it from matching the shell that holds it.
workdir=/mnt/share/runs/$run
stop="while pkill -f '[l]aunch\.py --workdir=$workdir( |\$)'; do sleep 1; done"
setup="set -e; $stop; rm -rf code; mkdir code; tar -xzf code.tar.gz -C code
code/experiments/pods/tpu/worker.sh $share"
train="$stop; cd code; export WORKDIR=$workdir PYTHON=.venv/bin/python
experiments/pods/run.sh"
[[ $# == 0 ]] || train+=$(printf ' %q' "$@")

tpus() { gcloud compute tpus "$1" "$2" "${@:3}" --zone="$zone"; }
state() { tpus queued-resources describe "$name" --format='value(state.state)' 2>/dev/null; }
delete() { tpus queued-resources delete "$name" --force --quiet; }

made=false
take() {
  while true; do
    case $(state || echo ABSENT) in
      ACTIVE) return ;;
      ABSENT)
        made=true
        tpus queued-resources create "$name" --node-id="$name" --accelerator-type="$accelerator" \
          --runtime-version="$runtime" "$pricing" ;;
      SUSPENDED | FAILED) delete ;;
      *) sleep "$pause" ;;
    esac
  done
}

attempt() {
  tpus tpu-vm scp "$archive" "$name:code.tar.gz" --worker=all &&
    tpus tpu-vm ssh "$name" --worker=all --command="$setup" &&
    tpus tpu-vm ssh "$name" --worker=all --command="$train"
}

archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --output="$archive" HEAD
while true; do
  take
  status=0
  attempt || status=$?
  [[ $status != 0 ]] || break
  sleep "$pause" # a slice that is being taken away is still called ACTIVE at first
  # 75: stopped and saved; 255: the connection broke; else it is an error, unless the slice is gone.
  if [[ $status != 75 && $status != 255 && $(state) == ACTIVE ]]; then
    exit "$status"
  fi
done
[[ $made == false ]] || delete
