#!/usr/bin/env -S bash --norc
# Becomes the program of an unpacked image, confined as a container runtime would: a read-only root, 1337 the only user there is, no
# capability, no new privileges. The working directory and its files are the machine's, so that tests can hand them over; process,
# network and signals are those of whoever calls. Needs root.
# Usage: in-image.sh ROOTFS ARGS...      in a directory below the system's temporary one
set -euo pipefail

rootfs=$1
shift
# shellcheck disable=SC2016 # the inner shell's own
exec unshare --mount --propagation private bash --norc -euc '
  rootfs=$0 files=${TMPDIR:-/tmp}
  mount --bind "$rootfs" "$rootfs"
  mount -t tmpfs -o mode=0755 tmpfs "$rootfs/run"
  for each in /proc /dev; do mount --rbind "$each" "$rootfs$each"; done
  mount --rbind "$files" "$rootfs/tmp"
  mount -o remount,bind,ro "$rootfs"
  export MALLOC_ARENA_MAX=1
  exec setpriv --no-new-privs --clear-groups \
    unshare --user --map-user=1337 --map-group=1337 --root="$rootfs" --wd="/tmp${PWD#"$files"}" /usr/local/bin/keyturn "$@"
' "$rootfs" "$@"
