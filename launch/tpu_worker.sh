#!/usr/bin/env bash
# What tpu_pod.sh does on each worker of a slice; not meant to be called by hand.
#
#   tpu_worker.sh install                     uv, a Python that is new enough, jclip
#   tpu_worker.sh mount BUCKET                at ~/work
#   tpu_worker.sh train ATTEMPT CONFIG ...    start the run, or come back to it; its output, and its exit code
#   tpu_worker.sh runs                        is it training?
#   tpu_worker.sh log | stop

set -euo pipefail
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$HOME/.jclip-venv
state=$HOME/.jclip-run # attempt, pid, log, code; stopped
STOPPED=130 # what `train` ends with after `stop`, as after Ctrl-C: not to be started again
mkdir -p "$state"

install() {
  # The VMs bring Python 3.10, which is too old; uv fetches a newer one.
  python3 -m pip install --quiet --user uv
  [[ -d $venv ]] || python3 -m uv venv --quiet --python 3.12 "$venv"
  python3 -m uv pip install --quiet --python "$venv/bin/python" -e "${tree}[tpu]"
}

mount() {
  if ! command -v gcsfuse >/dev/null; then
    curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg |
      sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
    echo "deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt" \
      "gcsfuse-$(lsb_release -cs) main" | sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get -qq update && sudo apt-get -qq install -y gcsfuse
  fi
  mkdir -p "$HOME/work"
  # No metadata is kept: a file that one worker has written is there for the others at once.
  mountpoint -q "$HOME/work" || gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 "$1" "$HOME/work"
}

runs() { [[ -e $state/pid && ! -e $state/code ]] && kill -0 "$(cat "$state/pid")" 2>/dev/null; }

# The run is a process of its own that a broken connection does not end. Coming back to it shows its output from the
# start again.
train() {
  if ! runs && [[ $(cat "$state/attempt" 2>/dev/null) != "$1" ]]; then
    rm -f "$state/pid" "$state/code" "$state/stopped"
    echo "$1" >"$state/attempt"
    cd "$HOME/work"
    # shellcheck disable=SC2016 # expanded by the inner shell
    nohup setsid bash -c '"${@:2}" & echo $! >"$1/pid"; wait $!; echo $? >"$1/code"' - "$state" \
      "$venv/bin/jclip" train "$tree/$2" "${@:3}" --distributed >"$state/log" 2>&1 </dev/null &
    while [[ ! -e $state/pid ]]; do sleep 0.1; done
  fi
  tail -n +1 -f "--pid=$(cat "$state/pid")" "$state/log"
  for _ in {1..50}; do
    [[ ! -e $state/code ]] || break
    sleep 0.1
  done
  local code
  code=$(cat "$state/code" || echo 137) # ended without a word: as if it had been killed
  [[ $code != 75 || ! -e $state/stopped ]] || code=$STOPPED
  exit "$code"
}

stop() {
  runs || return 0
  touch "$state/stopped"
  kill -TERM "$(cat "$state/pid")"
}

log() { cat "$state/log"; }

case ${1-} in
  install | mount | runs | train | log | stop) "$@" ;;
  *) echo "tpu_worker.sh: '${1-}' is not something it does" >&2 && exit 2 ;;
esac
