#!/usr/bin/env bash
# Trains on Google Kubernetes Engine as a JobSet, on one TPU slice or on nodes with GPUs. The cluster restarts it after
# preemptions and crashes; see gke/jobset.yaml.
#
#   launch/gke.sh run    --name NAME --image IMAGE ACCELERATORS DISK [options] CONFIG [anything that jclip train takes]
#   launch/gke.sh logs   --name NAME       follow the first process
#   launch/gke.sh status --name NAME
#   launch/gke.sh wait   --name NAME       wait until it has finished (exit code 0) or failed (2)
#   launch/gke.sh stop   --name NAME       the run saves and the JobSet is deleted; `run` resumes it
#
#   ACCELERATORS: either
#   --tpu TYPE --topology XxY   one slice: tpu-v6e-slice 4x4, tpu-v5p-slice 2x2x4, tpu-v5-lite-podslice 4x4, ...
#   or
#   --gpu TYPE                  nvidia-h100-80gb, nvidia-a100-80gb, nvidia-l4, ...
#   and
#   --nodes N          number of machines (1); for a slice, its chips divided by --per-node
#   --per-node N       chips (4) or GPUs (8) of each machine
#
#   DISK, mounted as /work in all processes: the working folder; relative paths in CONFIG (data/, bundles/, runs/) are
#   relative to it. Either
#   --bucket BUCKET    Cloud Storage bucket, through the cluster's FUSE driver
#   --claim NAME       PersistentVolumeClaim with access mode ReadWriteMany, such as Filestore's
#
#   --service-account NAME   Kubernetes service account that may use the bucket (default)
#   --spot             use spot nodes
#   --restarts N       maximum number of restarts by JobSet, after preemptions and crashes together (100)
#   --namespace NAME   instead of kubectl's current one
#   --dry-run          print the manifest and the commands, run nothing
#   --help
#
# CONFIG is a recipe's name (altclip/vit_l_14); a file under configs/ in this tree, which the image must contain too; or
# a path in the container: /jclip/configs/... in the image, /work/... on the disk. A path in the container is not
# checked.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/common.sh
. "$here/common.sh"

verb=${1-}
case $verb in
  run | logs | status | wait | stop) shift ;;
  --help) show_help && exit ;;
  *) die "give a command: run, logs, status, wait or stop; see --help" ;;
esac
name='' image='' tpu='' topology='' gpu='' bucket='' claim='' account=default per_node=''
nodes=1 spot=0 restarts=100
kubectl=(kubectl)
while (($#)); do
  case $1 in
    --name) take "$@" && name=$value && shift 2 ;;
    --image) take "$@" && image=$value && shift 2 ;;
    --tpu) take "$@" && tpu=$value && shift 2 ;;
    --topology) take "$@" && topology=$value && shift 2 ;;
    --gpu) take "$@" && gpu=$value && shift 2 ;;
    --nodes) take "$@" && nodes=$value && shift 2 ;;
    --per-node) take "$@" && per_node=$value && shift 2 ;;
    --bucket) take "$@" && bucket=${value#gs://} && shift 2 ;;
    --claim) take "$@" && claim=$value && shift 2 ;;
    --service-account) take "$@" && account=$value && shift 2 ;;
    --restarts) take "$@" && restarts=$value && shift 2 ;;
    --namespace) take "$@" && kubectl+=("--namespace=$value") && shift 2 ;;
    --spot) spot=1 && shift ;;
    --dry-run) DRY_RUN=1 && shift ;;
    --help) show_help && exit ;;
    -*) die "unknown option $1: see --help" ;;
    *) break ;;
  esac
done
require --name "$name"
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] || die "--name $name: lower-case letters, digits and -, at most 40"
need_tool kubectl "gcloud components install kubectl, then gcloud container clusters get-credentials CLUSTER"

case $verb in
  logs) do_or_show "${kubectl[@]}" logs --follow "job/$name-train-0" && exit ;;
  status) do_or_show "${kubectl[@]}" get jobset,jobs,pods -l "jobset.sigs.k8s.io/jobset-name=$name" && exit ;;
  stop) do_or_show "${kubectl[@]}" delete jobset "$name" && exit ;;
  wait)
    # kubectl waits for one condition at a time.
    until do_or_show "${kubectl[@]}" wait --for=condition=Completed --timeout=60s "jobset/$name" 2>/dev/null; do
      ! "${kubectl[@]}" wait --for=condition=Failed --timeout=0 "jobset/$name" >/dev/null 2>&1 || die "$name has failed"
      "${kubectl[@]}" get jobset "$name" >/dev/null || exit 2
    done
    exit
    ;;
esac

require --image "$image"
require CONFIG "${1-}"
# The image cannot be inspected from here; the tree from which it was built can.
config=${1#"${here%/*}/"}
config=${config#./}
if [[ $config == configs/* && -f $here/../$config ]]; then
  config=/jclip/$config
else
  recipe "$1" || [[ $1 == /jclip/* || $1 == /work/* ]] ||
    die "$1 is neither a recipe nor a file under configs/ in this tree:" \
      "give a path in the container, /jclip/configs/... or /work/..."
  config=$1
fi
[[ -n $tpu || -n $gpu ]] || die "give --tpu and --topology, or --gpu"
[[ -z $tpu || -z $gpu ]] || die "--tpu or --gpu, not both"
[[ -z $tpu || -n $topology ]] || die "--tpu $tpu needs --topology: the layout of its chips, such as 4x4"
[[ -n $bucket || -n $claim ]] || die "give --bucket or --claim: all processes must see one disk"
[[ -z $bucket || -z $claim ]] || die "--bucket or --claim, not both"
[[ -n $per_node ]] || per_node=$([[ -n $tpu ]] && echo 4 || echo 8)
one_or_more --nodes "$nodes"
one_or_more --per-node "$per_node"
whole_number --restarts "$restarts"

# A JSON string, which YAML reads too.
quoted() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

# Settings that differ between TPUs and GPUs. On a slice jax finds the other processes itself. With GPUs, the
# coordinator is the first pod, whose name JobSet keeps over restarts, and the Job gives each pod its number.
environment=''
if [[ -n $tpu ]]; then
  [[ $topology =~ ^[1-9][0-9]{0,3}(x[1-9][0-9]{0,3}){1,2}$ ]] ||
    die "--topology takes the chips of each side, like 4x4 or 2x2x4, not '$topology'"
  chips=1
  for side in ${topology//x/ }; do chips=$((chips * side)); done
  ((chips == nodes * per_node)) ||
    die "--topology $topology has $chips chips, but --nodes $nodes with --per-node $per_node are $((nodes * per_node))"
  resource=google.com/tpu
  selector="cloud.google.com/gke-tpu-accelerator: $tpu, cloud.google.com/gke-tpu-topology: $(quoted "$topology")"
  flag=', "--distributed"'
else
  resource=nvidia.com/gpu
  selector="cloud.google.com/gke-accelerator: $gpu"
  flag=''
  if ((nodes > 1)); then
    number="metadata.annotations['batch.kubernetes.io/job-completion-index']"
    environment="{name: JCLIP_COORDINATOR, value: $(quoted "$name-train-0-0.$name:8476")},"
    environment+=" {name: JCLIP_PROCESSES, value: $(quoted "$nodes")},"
    environment+=" {name: JCLIP_PROCESS, valueFrom: {fieldRef: {fieldPath: $(quoted "$number")}}}"
  fi
fi
((!spot)) || selector+=', cloud.google.com/gke-spot: "true"'
fuse=false
if [[ -n $bucket ]]; then
  fuse=true
  volume="csi: {driver: gcsfuse.csi.storage.gke.io, volumeAttributes: {bucketName: $(quoted "$bucket"),"
  volume+=' mountOptions: "implicit-dirs,metadata-cache:ttl-secs:0"}}'
else
  volume="persistentVolumeClaim: {claimName: $(quoted "$claim")}"
fi
command="\"jclip\", \"train\", $(quoted "$config")"
for argument in "${@:2}"; do command+=", $(quoted "$argument")"; done

manifest=$(<"$here/gke/jobset.yaml")
fill() { manifest=${manifest//"@$1@"/"$2"}; }
fill NAME "$name"
fill RESTARTS "$restarts"
fill NODES "$nodes"
fill SERVICE_ACCOUNT "$account"
fill SELECTOR "$selector"
fill IMAGE "$image"
fill COMMAND "$command$flag"
fill ENVIRONMENT "$environment"
fill RESOURCE "$resource"
fill PER_NODE "$per_node"
fill VOLUME "$volume"
fill FUSE "$fuse"

if ((DRY_RUN)); then
  printf '%s\n' "$manifest"
  show "${kubectl[@]}" apply -f -
else
  printf '%s\n' "$manifest" | "${kubectl[@]}" apply -f -
  say "submitted: $0 logs --name $name"
fi
