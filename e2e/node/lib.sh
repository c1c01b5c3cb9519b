# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are used by the scripts that source this file
# Sourced by the scripts in this folder. It defines the paths and names that belong to a
# node.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/lastcall/node # what `build` has built
BIN=$CACHE/bin
PAUSE_IMAGE=localhost/lastcall-pause:1

fail() {
  printf 'e2e/node: %s\n' "$@" >&2
  exit 1
}

# These are the same for all nodes, because each node has its own network.
NODE_IP=10.88.0.1
SERVICE_CIDR=10.96.0.0/16
POD_CIDR=10.89.0.0/16
POD_CIDR6=fd89::/64 # only if the kernel has IPv6

# name_node NAME sets the variables that are derived from a node's name.
name_node() {
  [[ $1 =~ ^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$ ]] ||
    fail "a node's name is made of a-z, 0-9 and -, at most 20 characters: '$1' is not"
  NODE=$1
  NETNS=lastcall-$NODE          # network namespace; ip netns list shows it
  CGROUP=lastcall-$NODE         # cgroup of its pods
  DIR=/var/lib/lastcall/$NODE   # state, logs, images; removed by `down`
  SOCKET=$DIR/containerd.sock
  KUBECONFIG_FILE=$DIR/admin.kubeconfig
  ((EUID == 0)) || fail "a node needs root. For another cluster: set KUBECONFIG"
}

# in_net COMMAND... runs a command in the node's network.
in_net() { nsenter --net="/run/netns/$NETNS" "$@"; }

in_node_kubectl() { in_net "$BIN/kubectl" --kubeconfig "$KUBECONFIG_FILE" "$@"; }

# until_true SECONDS COMMAND... repeats a command until it succeeds, and fails after that
# many seconds.
until_true() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" &>/dev/null; do
    ((SECONDS < deadline)) || return 1
    sleep 0.2
  done
}
