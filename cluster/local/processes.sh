# Processes that the local cluster started: recorded by pid and start time, ended by nothing else.
# Sourced by local.sh, which sets $state. A node's folder is $state/nodes/NAME.

folder_of() { echo "$state/nodes/$1"; }

# When a process began, in ticks since boot; with its pid it names the process for good.
began_at() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# begin NAME COMMAND...: in the background, in a session of its own, output to the node's log.
begin() {
  local folder
  folder=$(folder_of "$1")
  mkdir -p "$folder"
  shift
  setsid "$@" >>"$folder/log" 2>&1 </dev/null 9>&- &
  echo "$! $(began_at $!)" >"$folder/pid"
}

# The recorded pid, where that very process is still alive; nothing otherwise.
pid_of() {
  local pid began
  read -r pid began 2>/dev/null <"$(folder_of "$1")/pid" || return 0
  [ -n "$began" ] && [ "$(began_at "$pid")" = "$began" ] && echo "$pid" || true
}

alive() { [ -n "$(pid_of "$1")" ]; }

descendants_of() {
  local child
  for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
    echo "$child"
    descendants_of "$child"
  done
}

# Every process of a node: the recorded one, all it started, and all that lives at its address.
processes_of() {
  local pid
  pid=$(pid_of "$1")
  { [ -z "$pid" ] || { echo "$pid"; descendants_of "$pid"; }; processes_at "$1"; } | sort -un
}

# end NAME: asks the recorded process, waits 15 s, then kills what is left of the node.
end() {
  local pid all
  pid=$(pid_of "$1")
  all=$(processes_of "$1")
  [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null || true
  for _ in $(seq 75); do
    alive "$1" || break
    sleep 0.2
  done
  kill_all $all $(processes_at "$1")
  rm -f "$(folder_of "$1")/pid"
}

# lose NAME: as if the machine's power had been cut.
lose() {
  kill_all $(processes_of "$1")
  rm -f "$(folder_of "$1")/pid"
}

kill_all() { for pid in "$@"; do kill -KILL "$pid" 2>/dev/null || true; done; }
