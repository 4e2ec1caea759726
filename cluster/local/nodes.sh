# The cluster's nodes: head, workers, tracking server. Sourced by local.sh.

# What every node needs to know; the driver of a job runs on the head and inherits the head's. With
# PYTHONPATH a job without --working-dir, which runs in the folder that Ray was started in, works too.
node_environment() {
  export PATH="$root/.venv/bin:$PATH" PYTHONPATH=$root
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$state/token" RAY_USAGE_STATS_ENABLED=0
}

# Where a job's driver finds the tracking server and the places that last longer than the job.
driver_environment() {
  export MLFLOW_TRACKING_URI SWEEP_RUNS_DIR SWEEP_DATA_DIR
  MLFLOW_TRACKING_URI=$(tracking_url) SWEEP_RUNS_DIR=$shared SWEEP_DATA_DIR=$data
  # `ray job stop` then lets the sweep save itself, where Ray's default kills it after 3 seconds.
  export RAY_JOB_STOP_SIGNAL=SIGINT RAY_JOB_STOP_WAIT_TIME_S=25
}

dashboard_url() { echo "http://$(address_of head):8265"; }
tracking_url() { echo "http://$(address_of tracking):5000"; }

free_port() {
  "$root/.venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}

# start_ray NAME OPTIONS...: `ray start` with what head and workers have in common.
start_ray() {
  local name=$1
  shift
  give_address "$name"
  mkdir -p "/tmp/$net/$name" # Ray's sockets need a short path
  [ "$kind" = bridge ] || set -- "$@" --dashboard-agent-listen-port "$(free_port)"
  at "$name" ray start --block --disable-usage-stats --log-style record \
    --node-ip-address "$(address_of "$name")" --temp-dir "/tmp/$net/$name" \
    --object-store-memory "$((object_store_mib * 1048576))" --memory "$memory_bytes" "$@"
}

start_head() {
  local options=()
  [ "$kind" = bridge ] || options=(--ray-client-server-port "$(free_port)")
  driver_environment
  start_ray head --head --port "$gcs_port" --num-cpus "$head_cpus" --num-gpus 0 \
    --dashboard-host "$(address_of head)" "${options[@]}"
}

start_worker() {
  start_ray "$1" --address "$(address_of head):$gcs_port" --num-cpus "$cpus" --num-gpus 0
}

# MLflow on SQLite. One worker and no job runner: 2 processes and 0.5 GB instead of 15 and 2.6.
start_tracking() {
  local folder address
  folder=$(folder_of tracking) address=$(address_of tracking)
  give_address tracking
  export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
  at tracking mlflow server --host "$address" --port 5000 --workers 1 \
    --backend-store-uri "sqlite:///$folder/mlflow.db" --artifacts-destination "$folder/artifacts" \
    --allowed-hosts "$address:*,localhost:*,127.0.0.1:*"
}

launch() { begin "$1" "$root/cluster/local.sh" run "$1" --state "$state"; }

workers() { (cd "$state/nodes" 2>/dev/null && ls -d worker* 2>/dev/null || true) | sort -V; }

# The address, state and id of every Ray node, as the head knows them.
ray_nodes() {
  RAY_AUTH_TOKEN_PATH="$state/token" "$root/.venv/bin/python" "$root/cluster/local/nodes.py" \
    "$(dashboard_url)" 2>/dev/null
}

# await NAME: until the node answers, or an error with the end of its log. Ray ends a node that has not
# started within 30 s, as happens where many start on few cores: such a one is started again.
await() {
  local seconds=240 end_of_log
  SECONDS=0
  while [ "$SECONDS" -lt "$seconds" ]; do
    if answers "$1"; then return 0; fi
    if ! alive "$1"; then
      end_of_log=$(tail -n 15 "$(folder_of "$1")/log")
      [[ $end_of_log == *"timed out during startup"* ]] || fail "$1 ended while starting:" "$end_of_log"
      echo "$1 did not start in Ray's 30 s; starting it again" >&2
      end "$1"
      launch "$1"
    fi
    sleep 0.4
  done
  fail "$1 did not answer in $seconds s; its log is $(folder_of "$1")/log"
}

answers() {
  case $1 in
    tracking) speaks "$(address_of tracking)" 5000 ;;
    *) ray_nodes | grep -q "^$(address_of "$1") ALIVE " ;;
  esac
}

# Whether something listens at ADDRESS PORT.
speaks() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }
