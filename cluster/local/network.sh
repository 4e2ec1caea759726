# An address for each node. Sourced by local.sh, which sets $state; `$net` is the network's name,
# `$prefix` the first three numbers of its addresses, both kept in $state/network.
#
# bridge    a bridge on this machine and a network namespace for each node: a node's servers listen
#           inside its namespace alone. Needs root.
# loopback  addresses of 127.0.0.0/8. Ray's GCS and raylets then listen on every interface.

first_free_bridge() {
  local n
  for n in $(seq 0 63); do
    ip -o addr | grep -q " 10\.213\.$n\." && continue
    ip link add "sweep$n" type bridge 2>/dev/null && echo "$n" && return
  done
  return 1
}

may_make_namespaces() {
  command -v ip >/dev/null && ip netns add "sweep-probe-$$" 2>/dev/null &&
    ip netns del "sweep-probe-$$"
}

make_bridge() {
  local n
  may_make_namespaces || return 1
  n=$(first_free_bridge) || return 1
  net=sweep$n prefix=10.213.$n kind=bridge
  ip addr add "$prefix.1/24" dev "$net"
  ip link set "$net" up
}

make_loopback() {
  kind=loopback prefix=127.87.$(($(echo "$state" | cksum | cut -d' ' -f1) % 250))
  net=sweep-$(echo "$prefix" | cut -d. -f3)
}

keep_network() { printf 'kind=%s net=%s prefix=%s\n' "$kind" "$net" "$prefix" >"$state/network"; }

# The node's address: .2 the head, .3 the tracking server, .11 and on the workers.
address_of() {
  case $1 in
    head) echo "$prefix.2" ;;
    tracking) echo "$prefix.3" ;;
    worker*) echo "$prefix.$((10 + ${1#worker}))" ;;
  esac
}

give_address() {
  [ "$kind" = bridge ] && [ ! -e "/run/netns/$net-$1" ] || return 0
  ip netns add "$net-$1"
  ip link add "$net-$1" type veth peer name eth0 netns "$net-$1"
  ip link set "$net-$1" master "$net" up
  ip -n "$net-$1" link set lo up
  ip -n "$net-$1" addr add "$(address_of "$1")/24" dev eth0
  ip -n "$net-$1" link set eth0 up
  # Never used: with it Ray finds the node's own address without asking a name server.
  ip -n "$net-$1" route add default via "$prefix.1"
}

take_address() {
  [ "$kind" = bridge ] && [ -e "/run/netns/$net-$1" ] || return 0
  ip netns del "$net-$1"
}

remove_network() {
  [ "$kind" = bridge ] || return 0
  ! network_stands || ip link del "$net"
}

# False after a restart of the machine, which forgets bridges.
network_stands() { [ "$kind" = loopback ] || ip link show "$net" >/dev/null 2>&1; }

processes_at() {
  [ "$kind" = bridge ] && [ -e "/run/netns/$net-$1" ] || return 0
  ip netns pids "$net-$1"
}

# at NAME COMMAND...: the command, seen from that node. Workers do not see this project's data.
at() {
  local name=$1
  shift
  [ "$kind" = bridge ] || exec "$@"
  exec ip netns exec "$net-$name" unshare --mount --propagation private bash -c '
    [ -z "$1" ] || mount -t tmpfs tmpfs "$1"
    shift
    exec "$@"' at "$(case $name in worker*) echo "$data" ;; esac)" "$@"
}
