#!/usr/bin/env bash
# Trains on one machine with several GPUs, and restarts the run until it is finished.
#
#   launch/multi_gpu.sh [options] CONFIG [anything that jclip train takes]
#
#   --processes N   split the GPUs among N processes; by default one process uses all of them
#   --restarts N    give up after N crashes (10); restarts after exit code 75 (saved) do not count
#   --dry-run       print the commands, run nothing
#   --help
#
# CONFIG is a recipe's name (altclip/vit_l_14) or a file. Its relative paths (data/, bundles/, runs/) are relative to
# the current folder. SIGTERM and Ctrl-C are passed on: the run saves and stops, this script exits with 75, and the same
# command resumes.

set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

GRACE=120 # seconds for the other processes to end after the first

processes=1
restarts=10
while (($#)); do
  case $1 in
    --processes) take "$@" && processes=$value && shift 2 ;;
    --restarts) take "$@" && restarts=$value && shift 2 ;;
    --dry-run) DRY_RUN=1 && shift ;;
    --help) show_help && exit ;;
    -*) die "unknown option $1: see --help" ;;
    *) break ;;
  esac
done
one_or_more --processes "$processes"
whole_number --restarts "$restarts"
require CONFIG "${1-}"
recipe "$1" || [[ -f $1 ]] || die "$1 $NO_CONFIG"
need_tool jclip "install it: pip install -e '.[cuda]'"

# Prints the numbers of the visible GPUs.
visible_gpus() {
  if [[ -n ${CUDA_VISIBLE_DEVICES-} ]]; then
    tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES"
  elif command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=index --format=csv,noheader
  fi
}

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 10000)) # below the system's ephemeral ports
    (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

share=0
if ((processes > 1)); then
  mapfile -t gpus < <(visible_gpus)
  ((${#gpus[@]})) || die "no GPU found by nvidia-smi or CUDA_VISIBLE_DEVICES: omit --processes"
  ((${#gpus[@]} % processes == 0)) || die "${#gpus[@]} GPUs cannot be split among $processes processes evenly"
  share=$((${#gpus[@]} / processes))
fi

# command_of PROCESS PORT ARGUMENTS: sets `line` to the command of one process.
command_of() {
  line=(jclip train "${@:3}")
  ((processes > 1)) || return 0
  local mine
  mine=$(IFS=, && echo "${gpus[*]:$1 * share:share}")
  line=(env "CUDA_VISIBLE_DEVICES=$mine" "JCLIP_COORDINATOR=127.0.0.1:$2"
    "JCLIP_PROCESSES=$processes" "JCLIP_PROCESS=$1" "${line[@]}")
}

pids=()
stopped=0
pass_on() {
  stopped=1
  kill -TERM "${pids[@]}" 2>/dev/null || :
}

# Runs all processes to their end. The first that fails sets the exit code. The others are then terminated: they would
# wait for it forever.
run_once() {
  local index port code=0 status pid left deadline=0
  port=$(free_port)
  pids=()
  set -m # one process group each: Ctrl-C reaches only this script, which passes it on once
  for ((index = 0; index < processes; index++)); do
    command_of "$index" "$port" "$@"
    "${line[@]}" &
    pids+=($!)
  done
  set +m
  ((!stopped)) || pass_on # a signal that came while processes were being started has not reached all of them
  left=("${pids[@]}")
  while ((${#left[@]})); do
    local running=()
    for pid in "${left[@]}"; do
      if kill -0 "$pid" 2>/dev/null; then
        running+=("$pid")
        continue
      fi
      status=0
      wait "$pid" || status=$?
      if ((status && !code)); then
        code=$status
        deadline=$((SECONDS + GRACE))
        ((status == 75)) || kill -TERM "${pids[@]}" 2>/dev/null || :
      fi
    done
    left=(${running[@]+"${running[@]}"})
    if ((deadline && SECONDS >= deadline && ${#left[@]})); then
      say "killing ${#left[@]} processes that still run $GRACE s after the first ended"
      kill -KILL "${left[@]}" 2>/dev/null || :
    fi
    ((${#left[@]} == 0)) || sleep 0.2
  done
  return "$code"
}

if ((DRY_RUN)); then
  port=$(free_port)
  for ((index = 0; index < processes; index++)); do
    command_of "$index" "$port" "$@"
    show "${line[@]}"
  done
  exit
fi

trap pass_on TERM INT HUP
crashes=0
code=75
while :; do
  ((!stopped)) || exit "$code" # a signal came while nothing ran
  code=0
  run_once "$@" || code=$?
  ((!stopped)) || exit "$code"
  case $(after "$code") in
    finished | stopped) exit "$code" ;;
    again) say "the run has saved and stopped: starting it again" ;;
    crashed)
      ((++crashes <= restarts)) || { say "exit code $code: $restarts restarts did not help" && exit "$code"; }
      say "exit code $code: restart $crashes of $restarts"
      ;;
    error)
      say "exit code $code: an error that a restart would repeat; see above"
      exit "$code"
      ;;
  esac
done
