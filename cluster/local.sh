#!/usr/bin/env bash
# A Ray cluster on this machine: a head, N workers and an MLflow server, each at an address of its own.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
state=${SWEEP_CLUSTER_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/batch-size-sweep/cluster}
. "$root/cluster/local/processes.sh"
. "$root/cluster/local/network.sh"
. "$root/cluster/local/nodes.sh"

usage() {
  cat <<'TEXT'
cluster/local.sh up [N] [options]     start a head, N workers (3) and an MLflow server; or add and
                                      restart what is missing of them
cluster/local.sh status               every node, its address and whether it lives
cluster/local.sh env                  what a shell needs: eval "$(cluster/local.sh env)"
cluster/local.sh lose NODE            kill every process of a node, as if its power were cut
cluster/local.sh drain NODE SECONDS   warn of a node's end as a provider of spot machines does
cluster/local.sh tracking stop|start  end or start the MLflow server
cluster/local.sh down                 end all that was started; records and MLflow's store stay

  --cpus N              CPUs that each worker offers (1)
  --head-cpus N         CPUs that the head offers to trials (0: no trial runs there)
  --object-store-mib N  Ray's object store on each node (100)
  --shared FOLDER       where sweeps are kept, seen by all nodes (runs)
  --loopback            without root: Ray then listens on every interface, guarded by the token
  --state FOLDER        token, logs and MLflow's store; SWEEP_CLUSTER_STATE says the same
                        (${XDG_STATE_HOME:-~/.local/state}/batch-size-sweep/cluster)
TEXT
}

fail() {
  echo "error: $1" >&2
  shift
  [ $# = 0 ] || printf '%s\n' "$@" >&2
  exit 1
}

refuse() {
  echo "error: $1" >&2
  exit 2
}

whole_number() { [[ $2 =~ ^[0-9]+$ ]] || refuse "$1 $2: must be a whole number, 0 or more"; }

cpus=1 head_cpus=0 object_store_mib=100 shared=$root/runs loopback=false given=""
words=()
while [ $# -gt 0 ]; do
  case $1 in
    --cpus | --head-cpus | --object-store-mib | --shared | --state)
      [ $# -ge 2 ] || refuse "$1 needs a value; see cluster/local.sh --help"
      case $1 in
        --cpus) whole_number "$1" "$2"; cpus=$2 given=$1 ;;
        --head-cpus) whole_number "$1" "$2"; head_cpus=$2 given=$1 ;;
        --object-store-mib) whole_number "$1" "$2"; object_store_mib=$2 given=$1 ;;
        --shared) shared=$(realpath -m "$2") given=$1 ;;
        --state) state=$(realpath -m "$2") ;;
      esac
      shift 2 ;;
    --loopback) loopback=true given=$1; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) refuse "$1 is unknown; see cluster/local.sh --help" ;;
    *) words+=("$1"); shift ;;
  esac
done
data=$root/.data

# What the cluster was begun with, which a later `up` goes on with.
recall() {
  [ -f "$state/network" ] && [ -f "$state/settings" ] || return 1
  # shellcheck disable=SC1091
  . "$state/network" && . "$state/settings"
}

known() { recall || fail "no cluster is recorded in $state; start one with cluster/local.sh up"; }

settle() {
  local available
  mkdir -p "$shared" "$data"
  (umask 077; od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$state/token")
  if $loopback; then
    make_loopback
  else
    make_bridge || fail "network namespaces are not allowed here (are you root?)" \
      "Run this with sudo, or add --loopback: Ray then listens on every interface of this machine," \
      "and the token alone guards it."
  fi
  keep_network
  rm -rf "/tmp/$net" && mkdir -m 700 "/tmp/$net" # Ray's own folders in it are open to all
  available=$(awk '/MemAvailable/ {print $2}' /proc/meminfo)
  {
    echo "cpus=$cpus head_cpus=$head_cpus object_store_mib=$object_store_mib"
    echo "memory_bytes=$((available * 1024 * 8 / 10 / ($1 + 1)))"
    echo "gcs_port=$([ "$kind" = bridge ] && echo 6379 || free_port)"
    printf 'shared=%q data=%q\n' "$shared" "$data"
  } >"$state/settings"
  recall
  cluster_env >"$state/cluster.env"
}

cluster_env() {
  printf 'export %s=%q\n' RAY_API_SERVER_ADDRESS "$(dashboard_url)" RAY_AUTH_MODE token \
    RAY_AUTH_TOKEN_PATH "$state/token" MLFLOW_TRACKING_URI "$(tracking_url)" \
    SWEEP_RUNS_DIR "$shared" SWEEP_DATA_DIR "$data"
}

up() {
  local n=${1:-3} k
  whole_number up "$n"
  [ "$n" -ge 1 ] && [ "$n" -le 200 ] || refuse "up $n: give 1 to 200 workers"
  "$root/scripts/setup"
  if recall && network_stands; then
    [ -z "$given" ] || refuse "$given: the cluster in $state has its settings; run cluster/local.sh down first"
    [ "$(workers | wc -l)" -le "$n" ] || refuse "up $n: there are $(workers | wc -l) workers; run cluster/local.sh down first"
  else
    forget
    settle "$n"
  fi
  alive tracking || launch tracking
  if ! alive head; then
    for k in $(workers); do end "$k"; done
    launch head
  fi
  await head
  for k in $(seq "$n"); do alive "worker$k" || launch "worker$k"; done
  for k in $(seq "$n"); do await "worker$k"; done
  await tracking
  told "$n"
}

told() {
  cat <<TEXT
$1 workers of $cpus CPU, a head and an MLflow server are up. Sweeps are kept in $shared.

submit a job:  scripts/submit --preset quick --name first
open the UIs:  $(dashboard_url) (Ray; token in $state/token) and $(tracking_url) (MLflow)

From another machine first: ssh -L 8265:$(address_of head):8265 -L 5000:$(address_of tracking):5000 THIS_MACHINE
TEXT
}

status() {
  local name seen
  known
  seen=$(ray_nodes || true)
  for name in head tracking $(workers); do
    printf '%-9s %-15s %s\n' "$name" "$(address_of "$name")" "$(condition "$name" "$seen")"
  done
}

condition() {
  if ! alive "$1"; then
    echo "not running"
  elif [ "$1" = tracking ]; then
    answers tracking && echo "answers at $(tracking_url)" || echo "starting"
  else
    grep -q "^$(address_of "$1") ALIVE " <<<"$2" && echo "alive" || echo "starting, or unreachable"
  fi
}

down() {
  local name
  recall || { echo "no cluster is recorded in $state: nothing to end"; return 0; }
  for name in $(workers) head tracking; do
    end "$name" &
  done
  wait
  for name in $(workers) head tracking; do
    take_address "$name"
  done
  remove_network
  rm -rf "/tmp/$net"
  forget
  echo "ended. Sweeps stay in $shared, MLflow's store in $(folder_of tracking)"
}

# Drop what is recorded, but for MLflow's store.
forget() {
  rm -rf "$state"/nodes/worker* "$state/nodes/head"
  rm -f "$state"/{network,settings,cluster.env,token}
}

tracking() {
  known
  case ${1:-} in
    stop) end tracking ;;
    start) alive tracking || launch tracking; await tracking ;;
    *) refuse "tracking ${1:-}: say stop or start" ;;
  esac
}

lose_node() {
  known
  [ -d "$(folder_of "${1:-}")" ] && [ -n "${1:-}" ] || refuse "lose ${1:-}: known are head $(workers | tr '\n' ' ')"
  alive "$1" || refuse "lose $1: it is not running"
  lose "$1"
}

drain_node() {
  local id
  known
  whole_number drain "${2:-}"
  id=$(ray_nodes | awk -v at="$(address_of "${1:-}")" '$1 == at && $2 == "ALIVE" {print $3}')
  [ -n "$id" ] || refuse "drain ${1:-}: no such node is alive; see cluster/local.sh status"
  node_environment
  at head ray drain-node --address "$(address_of head):$gcs_port" --node-id "$id" \
    --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "cluster/local.sh drain" \
    --deadline-remaining-seconds "$2"
}

# The node itself; `launch` calls this in a session of its own.
run() {
  known
  cd "$root"
  node_environment
  case $1 in
    head | tracking) "start_$1" ;;
    *) start_worker "$1" ;;
  esac
}

alone() {
  (umask 077; mkdir -p "$state")
  exec 9>"$state/lock"
  flock -w 300 9 || fail "another cluster/local.sh is at work on $state"
}

case ${words[0]:-} in
  up) alone; up "${words[@]:1}" ;;
  down) alone; down ;;
  status) status ;;
  env) known; cat "$state/cluster.env" ;;
  lose) alone; lose_node "${words[@]:1}" ;;
  drain) drain_node "${words[@]:1}" ;;
  tracking) alone; tracking "${words[@]:1}" ;;
  run) run "${words[1]}" ;;
  *) usage >&2; exit 2 ;;
esac
