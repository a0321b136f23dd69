# shellcheck shell=bash
# What a machine gets of keyturn: the files of its package, and the package. Sourced, never run.

# package_tree DIR FORM EXECUTABLE: the files as they lie on a machine, below DIR. FORM is standalone or node.
package_tree() {
  local tree=$1 form=$2 executable=$3 parts="${root:?}/scripts/deploy/machine" unit program
  case "$form" in
    standalone) command install -D -m 0755 "$executable" "$tree/usr/bin/keyturn" ;;
    node)
      program=$(pinned_node) || exit 1
      command install -D -m 0755 "$executable" "$tree/usr/lib/keyturn/keyturn"
      command install -D -m 0755 "$program" "$tree/usr/lib/keyturn/node"
      mkdir -p "$tree/usr/bin"
      printf '#!/bin/sh\nexec /usr/lib/keyturn/node /usr/lib/keyturn/keyturn "$@"\n' >"$tree/usr/bin/keyturn"
      chmod 0755 "$tree/usr/bin/keyturn"
      ;;
    *) die "unknown form $form; known are standalone and node" ;;
  esac
  for unit in keyturn keyturn-ca keyturn-envoy; do
    command install -D -m 0644 "$parts/$unit.service" "$tree/usr/lib/systemd/system/$unit.service"
  done
  command install -D -m 0644 "$parts/keyturn.sysusers" "$tree/usr/lib/sysusers.d/keyturn.conf"
  command install -D -m 0644 "$parts/keyturn.yaml" "$tree/etc/keyturn/keyturn.yaml"
  command install -D -m 0644 "$parts/ca.env" "$tree/etc/keyturn/ca.env"
  package_documents "$tree" "$form" "$executable"
}

# package_documents DIR FORM EXECUTABLE
package_documents() {
  local doc="$1/usr/share/doc/keyturn" man="$1/usr/share/man/man1" shell path program=("$3")
  mkdir -p "$doc" "$man"
  if [ "$2" = node ]; then program=("$(runtime)" "$3"); fi
  {
    printf 'keyturn is licensed as follows. What it contains of others is below.\n\n'
    cat "$root/LICENSE" "$3.LICENSES.txt"
  } >"$doc/copyright"
  gzip -9n <"$root/CHANGELOG.md" >"$doc/changelog.gz"
  gzip -9n <"$root/scripts/deploy/machine/keyturn.1" >"$man/keyturn.1.gz"
  while read -r shell path; do
    mkdir -p "$1/$(dirname "$path")"
    "${program[@]}" completion "$shell" >"$1/$path"
  done <<'PLACES'
bash usr/share/bash-completion/completions/keyturn
zsh usr/share/zsh/vendor-completions/_keyturn
fish usr/share/fish/vendor_completions.d/keyturn.fish
PLACES
}

# debian_package OUT FORM EXECUTABLE ARCHITECTURE: the same sources and the same SOURCE_DATE_EPOCH make the same bytes.
debian_package() {
  local out=$1 tree version
  tree=$(mktemp -d "${TMPDIR:-/tmp}/keyturn.XXXXXX")
  version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' "$root/package.json")
  (
    umask 022
    package_tree "$tree" "$2" "$3"
    command install -d -m 0755 "$tree/DEBIAN"
    sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$4/" -e "s/@SIZE@/$(package_kilobytes "$tree")/" \
      "$root/scripts/deploy/machine/debian/control" >"$tree/DEBIAN/control"
    (cd "$tree" && find etc -type f | sed 's|^|/|' | LC_ALL=C sort) >"$tree/DEBIAN/conffiles"
    (cd "$tree" && find . -path ./DEBIAN -prune -o -type f -print | sed 's|^\./||' | LC_ALL=C sort | tr '\n' '\0' | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
    for script in postinst prerm postrm; do command install -m 0755 "$root/scripts/deploy/machine/debian/$script" "$tree/DEBIAN/$script"; done
    find "$tree" -type d -exec chmod 0755 {} +
    find "$tree" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
    mkdir -p "$(dirname "$out")"
    # zstd: a fifth more bytes than xz in a hundredth of its time.
    dpkg-deb --root-owner-group --threads-max=1 -Zzstd -z9 --build "$tree" "$out.new" >/dev/null
  ) || {
    rm -rf "$tree"
    die "the package could not be made"
  }
  rm -rf "$tree"
  mv -f "$out.new" "$out"
}

package_kilobytes() { find "$1" -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%d", sum / 1024 + 1 }'; }

# source_date: when these sources are from, unless SOURCE_DATE_EPOCH says it: the last commit, or the day of the epoch that has none.
source_date() {
  printf '%s\n' "${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || printf 1)}"
}
