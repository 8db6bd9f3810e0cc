#!/usr/bin/env bash
# Trains on a Cloud TPU slice. Creates the slice if needed, copies this tree to every worker, installs it and trains.
# After a preemption it repeats this, until the run is finished.
#
#   launch/tpu_pod.sh run    --name NAME --zone ZONE --type TYPE [options] CONFIG [anything that jclip train takes]
#   launch/tpu_pod.sh logs   --name NAME --zone ZONE --logs DIR     every worker's log, as DIR/0.log, DIR/1.log, ...
#   launch/tpu_pod.sh stop   --name NAME --zone ZONE                the run saves and stops
#   launch/tpu_pod.sh delete --name NAME --zone ZONE [--queued]
#
#   --name, --zone    name and zone of the TPU node
#   --project ID      project, if it is not gcloud's default
#   --type TYPE       accelerator type: v4-64, v5litepod-64, v5p-64, v6e-64, ...
#   --runtime NAME    software version of the VMs; by default that of the type
#   --spot            spot capacity: cheaper, may be preempted at any time
#   --queued          wait in the queue for capacity (queued resources) instead of failing when there is none
#   --bucket BUCKET   Cloud Storage bucket, mounted on every worker as the working folder; relative paths in CONFIG
#                     (data/, bundles/, runs/) are relative to it
#   --setup COMMAND   instead of --bucket: a command that mounts a shared disk at ~/work on every worker
#   --repo URL, --ref REF   install this git repository at this branch, tag or commit, instead of copying this tree
#   --restarts N      give up after N crashes (10); preemptions do not count
#   --delete          delete the node after the run has finished, failed or been stopped
#   --dry-run         print the commands, run nothing
#   --help
#
# CONFIG is a recipe's name (altclip/vit_l_14) or the path of a file from the top of this tree. After Ctrl-C the run
# continues; the same command returns to it.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/common.sh
. "$here/common.sh"

POLL=${JCLIP_POLL_SECONDS:-30} # between two queries to gcloud

verb=${1-}
case $verb in
  run | logs | stop | delete) shift ;;
  --help) show_help && exit ;;
  *) die "give a command: run, logs, stop or delete; see --help" ;;
esac
name='' zone='' type='' runtime='' bucket='' setup='' repo='' ref='' logs=''
spot=0 queued=0 delete=0 restarts=10
everywhere=()
while (($#)); do
  case $1 in
    --name) take "$@" && name=$value && shift 2 ;;
    --zone) take "$@" && zone=$value && shift 2 ;;
    --project) take "$@" && everywhere+=("--project=$value") && shift 2 ;;
    --type) take "$@" && type=$value && shift 2 ;;
    --runtime) take "$@" && runtime=$value && shift 2 ;;
    --bucket) take "$@" && bucket=${value#gs://} && shift 2 ;;
    --setup) take "$@" && setup=$value && shift 2 ;;
    --repo) take "$@" && repo=$value && shift 2 ;;
    --ref) take "$@" && ref=$value && shift 2 ;;
    --logs) take "$@" && logs=$value && shift 2 ;;
    --restarts) take "$@" && restarts=$value && shift 2 ;;
    --spot) spot=1 && shift ;;
    --queued) queued=1 && shift ;;
    --delete) delete=1 && shift ;;
    --dry-run) DRY_RUN=1 && shift ;;
    --help) show_help && exit ;;
    -*) die "unknown option $1: see --help" ;;
    *) break ;;
  esac
done
require --name "$name"
require --zone "$zone"
whole_number --restarts "$restarts"
need_tool gcloud "install the Google Cloud CLI: https://cloud.google.com/sdk/docs/install"
everywhere+=("--zone=$zone")

gcloud_tpu() { do_or_show gcloud compute tpus "$@" "${everywhere[@]}"; }

# on_workers COMMAND [FLAG...]: runs a shell command on every worker; the first that failed gives the exit code.
on_workers() { gcloud_tpu tpu-vm ssh "$name" --worker=all "--command=$1" "${@:2}"; }

# Prints the state of the node or of its request in the queue; nothing if there is none, or in a dry run.
state_of() {
  ((!DRY_RUN)) || return 0
  gcloud compute tpus "$1" describe "$2" "--format=value($3)" "${everywhere[@]}" 2>/dev/null || :
}
node_state() { state_of tpu-vm "$name" state; }
queue_state() { state_of queued-resources "$name" state.state; }

delete_node() {
  if ((queued)); then
    gcloud_tpu queued-resources delete "$name" --force --quiet
  else
    gcloud_tpu tpu-vm delete "$name" --quiet
  fi
}

default_runtime() {
  case $type in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    *) die "no runtime known for --type $type: name one with --runtime" ;;
  esac
}

create_node() {
  # The scope lets the workers read and write the bucket.
  local flags=("--accelerator-type=$type" --scopes=https://www.googleapis.com/auth/cloud-platform)
  ((!spot)) || flags+=(--spot)
  if ((!queued)); then
    gcloud_tpu tpu-vm create "$name" "--version=$runtime" "${flags[@]}"
    return
  fi
  [[ -n $(queue_state) ]] ||
    gcloud_tpu queued-resources create "$name" "--node-id=$name" "--runtime-version=$runtime" "${flags[@]}" || return
  ((!DRY_RUN)) || return 0
  local state
  while state=$(queue_state) && [[ $state != ACTIVE ]]; do
    [[ $state != FAILED && -n $state ]] || { say "the queued request is ${state:-gone}" && return 1; }
    say "waiting in the queue: $state"
    sleep "$POLL"
  done
}

# Creates the node unless it is ready, after deleting a preempted or failed one.
make_ready() {
  local state request=''
  state=$(node_state)
  made=0
  [[ $state != READY ]] || return 0
  made=1
  ((!queued)) || request=$(queue_state)
  if [[ -n $state || $request == SUSPENDED || $request == FAILED ]]; then
    say "$name is ${state:-$request}: deleting and creating it again"
    delete_node || return
  fi
  create_node
}

# Copies, installs and mounts. A run that is still training, as after Ctrl-C, is left alone.
prepare_workers() {
  if ((!made)) && on_workers "jclip/launch/tpu_worker.sh runs" >/dev/null 2>&1; then
    say "$name is training already: returning to it"
    return
  fi
  if [[ -n $repo ]]; then
    on_workers "rm -rf jclip && git clone --quiet $repo jclip && git -C jclip checkout --quiet $ref" || return
  else
    local bundle=jclip-source-$name.tar.gz
    do_or_show tar -czf "/tmp/$bundle" -C "$here/.." --exclude=__pycache__ pyproject.toml README.md LICENSE \
      jclip configs conversion launch || return
    gcloud_tpu tpu-vm scp "/tmp/$bundle" "$name:$bundle" --worker=all || return
    on_workers "rm -rf jclip && mkdir jclip && tar -xzf $bundle -C jclip" || return
  fi
  on_workers "jclip/launch/tpu_worker.sh install" || return
  if [[ -n $bucket ]]; then
    on_workers "jclip/launch/tpu_worker.sh mount $bucket"
  else
    on_workers "$setup"
  fi
}

case $verb in
  logs)
    require --logs "$logs"
    do_or_show mkdir -p "$logs"
    on_workers "jclip/launch/tpu_worker.sh log" "--output-directory=$logs"
    exit
    ;;
  stop) on_workers "jclip/launch/tpu_worker.sh stop" && exit ;;
  delete) delete_node && exit ;;
esac

require --type "$type"
require CONFIG "${1-}"
[[ -z $bucket || -z $setup ]] || die "--bucket or --setup, not both: each mounts the disk at ~/work; leave one out"
[[ -n $bucket || -n $setup ]] || die "give --bucket, or --setup with a command that mounts a shared disk at ~/work"
if [[ -n $repo || -n $ref ]]; then
  require --repo "$repo"
  require --ref "$ref"
else
  recipe "$1" || [[ -f $here/../$1 ]] || die "$1 is neither a recipe nor a file in this tree, from its top"
fi
[[ -n $runtime ]] || runtime=$(default_runtime)

trap 'say "the run continues: the same command returns to it, stop ends it" && exit 130' INT
arguments=$(printf ' %q' "$@")
crashes=0
prepared=0
for ((attempt = 1; ; attempt++)); do
  code=0
  if ((!prepared)); then
    make_ready || die "could not create $name: see gcloud's message above; --queued waits for capacity"
    prepare_workers || code=$?
    prepared=$((code == 0))
  fi
  # gcloud repeats a command when a connection breaks. The attempt's name lets a worker recognise the repetition.
  ((code)) || on_workers "jclip/launch/tpu_worker.sh train $(date +%s)-$attempt$arguments" || code=$?
  outcome=$(after "$code")
  if [[ $outcome == @(crashed|error) && $(node_state) != READY ]]; then
    say "$name was lost, probably preempted: starting again on a new node"
    prepared=0
    continue
  fi
  case $outcome in
    finished) break ;;
    stopped) say "stopped by request and saved: the same command resumes" && break ;;
    again) say "the run has saved and stopped: starting it again" ;;
    crashed)
      ((++crashes <= restarts)) || { say "exit code $code: $restarts restarts did not help" && break; }
      say "exit code $code: restart $crashes of $restarts"
      ;;
    error) say "exit code $code: an error that a restart would repeat; see above" && break ;;
  esac
done
((!delete)) || delete_node || say "could not delete $name: delete it by hand, it is still billed"
exit "$code"
