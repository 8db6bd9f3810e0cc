#!/usr/bin/env bash
# Submits a run to Slurm. After a preemption or at the time limit the job is queued again, until the run is finished.
#
#   launch/slurm.sh [options] CONFIG [anything that jclip train takes]
#
#   --nodes N         nodes (1)
#   --gpus N          GPUs of each node (8); 0 for nodes without GPUs
#   --per-gpu         one process for each GPU; by default one process for each node uses all its GPUs
#   --time TIME       of one job, as sbatch takes it (the partition's limit)
#   --cpus N          CPU cores of each process (Slurm's default)
#   --partition NAME, --account NAME
#   --work DIR        working folder on a disk that all nodes share; relative paths in CONFIG (data/, bundles/, runs/)
#                     are relative to it; the current folder by default
#   --venv DIR        virtual environment with jclip on the shared disk; by default the jclip on PATH
#   --restarts N      give up after N crashes (10); a job that saved and stopped does not count
#   --sbatch OPTION   another option for sbatch, such as --sbatch=--constraint=h100; may be repeated
#   --dry-run         print the command, run nothing
#   --help
#
# CONFIG is a recipe's name (altclip/vit_l_14) or a file.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/common.sh
. "$here/common.sh"

nodes=1
gpus=8
per_gpu=0
work=$PWD
venv=''
restarts=10
more=()
while (($#)); do
  case $1 in
    --nodes) take "$@" && nodes=$value && shift 2 ;;
    --gpus) take "$@" && gpus=$value && shift 2 ;;
    --per-gpu) per_gpu=1 && shift ;;
    --time) take "$@" && more+=("--time=$value") && shift 2 ;;
    --cpus) take "$@" && more+=("--cpus-per-task=$value") && shift 2 ;;
    --partition | --account) take "$@" && more+=("$1=$value") && shift 2 ;;
    --work) take "$@" && work=$value && shift 2 ;;
    --venv) take "$@" && venv=$value && shift 2 ;;
    --restarts) take "$@" && restarts=$value && shift 2 ;;
    --sbatch) take "$@" && more+=("$value") && shift 2 ;;
    --sbatch=*) more+=("${1#*=}") && shift ;;
    --dry-run) DRY_RUN=1 && shift ;;
    --help) show_help && exit ;;
    -*) die "unknown option $1: see --help" ;;
    *) break ;;
  esac
done
one_or_more --nodes "$nodes"
whole_number --gpus "$gpus"
whole_number --restarts "$restarts"
((!per_gpu || gpus)) || die "--per-gpu needs GPUs: --gpus is 0"
require CONFIG "${1-}"
recipe "$1" || [[ -f $1 ]] || die "$1 $NO_CONFIG"
[[ -d $work ]] || die "--work $work does not exist: make it on a disk that all nodes share"
need_tool sbatch "run this where jobs are submitted, usually the login node"

jclip=${venv:+$venv/bin/}jclip
if [[ -n $venv ]]; then
  ((DRY_RUN)) || [[ -x $jclip ]] || die "$jclip does not exist: pip install jclip into --venv $venv"
fi

# GPUs are requested per node even with one task per GPU: with --gpus-per-task, each task would see its GPU as number 0,
# but jax uses the GPU with the task's number on the node.
tasks=1
((!per_gpu)) || tasks=$gpus
((!gpus)) || more+=("--gpus-per-node=$gpus")

config=$1
[[ ! -f $1 ]] || config=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
do_or_show mkdir -p "$work/logs"
# Slurm signals the tasks, not the batch shell ("B:"): the shell could only signal srun, which would kill its tasks. See
# slurm.sbatch.
do_or_show sbatch --job-name=jclip "--nodes=$nodes" "--ntasks-per-node=$tasks" ${more[@]+"${more[@]}"} \
  --requeue --signal=TERM@120 --open-mode=append "--chdir=$work" "--output=$work/logs/%x-%j.log" \
  "$here/slurm.sbatch" "$restarts" "$per_gpu" "$gpus" "$jclip" "$config" "${@:2}"
