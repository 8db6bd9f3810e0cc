#!/usr/bin/env bash
# Commands that tpu_pod.sh runs on each worker of a slice. Do not call it by hand.
#
#   tpu_worker.sh install                     uv, a Python that is new enough, jclip
#   tpu_worker.sh mount BUCKET                at ~/work
#   tpu_worker.sh train ATTEMPT CONFIG ...    start the run or return to it, with its output and its exit code
#   tpu_worker.sh runs                        succeeds while it trains
#   tpu_worker.sh log | stop

set -euo pipefail
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$HOME/.jclip-venv
state=$HOME/.jclip-run # attempt, pid, log, code; stopped
STOPPED=130 # exit code of `train` after `stop`, as after Ctrl-C: the launcher does not start it again
mkdir -p "$state"

install() {
  # The VMs have Python 3.10, which is too old; uv installs a newer one.
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
  # Without a metadata cache, the others see a new file at once.
  mountpoint -q "$HOME/work" || gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 "$1" "$HOME/work"
}

runs() { [[ -e $state/pid && ! -e $state/code ]] && kill -0 "$(cat "$state/pid")" 2>/dev/null; }

# The run is a separate process that survives a broken connection. Returning to it prints its output from the beginning.
train() {
  if ! runs && [[ $(cat "$state/attempt" 2>/dev/null) != "$1" ]]; then
    rm -f "$state/pid" "$state/code" "$state/stopped"
    echo "$1" >"$state/attempt"
    local config=$2 # a recipe's name, or a file in the tree
    [[ ! -f $tree/$2 ]] || config=$tree/$2
    cd "$HOME/work"
    # shellcheck disable=SC2016 # expanded by the inner shell
    nohup setsid bash -c '"${@:2}" & echo $! >"$1/pid"; wait $!; echo $? >"$1/code"' - "$state" \
      "$venv/bin/jclip" train "$config" "${@:3}" --distributed >"$state/log" 2>&1 </dev/null &
    while [[ ! -e $state/pid ]]; do sleep 0.1; done
  fi
  tail -n +1 -f "--pid=$(cat "$state/pid")" "$state/log"
  for _ in {1..50}; do
    [[ ! -e $state/code ]] || break
    sleep 0.1
  done
  local code
  code=$(cat "$state/code" || echo 137) # no exit code: it was killed
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
  *) echo "tpu_worker.sh: unknown command '${1-}'" >&2 && exit 2 ;;
esac
