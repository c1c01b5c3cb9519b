# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are used by the scripts that source this file
# Sourced by the scripts in this folder. It sets up buildah with a store outside of the
# source tree.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/lastcall
STORE=$CACHE/images
# Build steps run in a chroot, because CI often runs in a container, in which a container
# runtime may be unable to start another one.
export BUILDAH_ISOLATION=chroot

fail() {
  printf 'e2e/examples: %s\n' "$@" >&2
  exit 1
}

buildah() { command buildah --root "$STORE/storage" --runroot "$STORE/run" "$@"; }
