#!/usr/bin/env bash
# Runs one process of launch.py, and says whether the run is finished.
#
#   WORKDIR=/share/runs/clip experiments/pods/run.sh --config=configs/clip.py:vit_b16
#
# Ends with 0 if the run is finished, with 75 (sysexits' EX_TEMPFAIL) if it was stopped and the same
# command goes on with it, else with launch.py's status. launch.py itself ends with 0 after a
# SIGTERM too, which a scheduler would take for the end of the run.
set -euo pipefail
: "${WORKDIR:?set WORKDIR, the folder of the run, which all processes must see, or gs://… or s3://…}"
python=${PYTHON:-python}
launch=$(dirname "$0")/../../launch.py
results=$WORKDIR/results.json

finished() {
  if [[ $results != *://* ]]; then
    [[ -f $results ]]
    return
  fi
  "$python" -c 'import sys, fsspec
system, path = fsspec.url_to_fs(sys.argv[1])
sys.exit(not system.exists(path))' "$results"
}

if finished; then
  echo "$results is there: the run is finished"
  exit 0
fi
stopped=false
"$python" "$launch" --workdir="$WORKDIR" "$@" &
child=$!
# A container's first process gets the signal alone, and the shell would keep it.
trap 'stopped=true; kill -TERM "$child" 2>/dev/null || true' TERM
# A signal ends `wait` too.
while kill -0 "$child" 2>/dev/null; do
  wait "$child" || true
done
status=0
wait "$child" || status=$?
if [[ $status == 0 ]] && finished; then
  exit 0
fi
if [[ $status == 0 || $stopped == true ]]; then
  exit 75
fi
exit "$status"
