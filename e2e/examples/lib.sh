# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is used by those who source it
# Sourced by the scripts beside it: buildah, with a store that is kept outside
# of the tree.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/lastcall
STORE=$CACHE/images
# Build steps run in a chroot: a container runtime could not always start one
# from within a container, where CI often runs.
export BUILDAH_ISOLATION=chroot

fail() {
  printf 'e2e/examples: %s\n' "$@" >&2
  exit 1
}

buildah() { command buildah --root "$STORE/storage" --runroot "$STORE/run" "$@"; }
