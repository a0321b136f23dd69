#!/usr/bin/env bash
# Lays out the root file system of the container image: the program, the C library that it runs on, roots, a user, a bill of materials.
# Usage: scripts/lib/image-root.sh node|standalone DIR      on Debian, whose packages the libraries are copied from; the Dockerfile calls it
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$root/scripts/lib/bun.sh"

[ $# -eq 2 ] || die "usage: scripts/lib/image-root.sh node|standalone DIR"
command -v dpkg-query >/dev/null || die "the libraries and their licences come from Debian packages: build in a Debian image"
cd "$root"
form=$1 image=$2
made=$(mktemp "${TMPDIR:-/tmp}/keyturn.XXXXXX")
trap 'rm -f "$made"' EXIT
node=$(runtime)
mkdir -p "$image"
image=$(cd "$image" && pwd -P)

# put MODE FILE PATH: a file of the image. (`install` alone is the function of common.sh.)
put() { command install -D -m "$1" "$2" "$image$3"; }

# Debian packages that something was taken from.
packages=()
# borrow PATH: a file of a Debian package, where the program looks for it.
borrow() {
  local path=$1 owner
  put 0755 "$path" "$path"
  # Files under /lib are listed there or under /usr/lib, according to their age.
  owner=$( (dpkg-query -S "$(realpath "$path")" || dpkg-query -S "/usr$path" || dpkg-query -S "$path" || dpkg-query -S "${path#/usr}") 2>/dev/null | head -n 1 | cut -d: -f1)
  [ -n "$owner" ] || die "no Debian package owns $path"
  packages+=("$owner")
}

case "$form" in
  node)
    program=$(pinned_node)
    put 0755 "$program" /usr/local/bin/node
    # There is no env to look node up.
    sed '1s|.*|#!/usr/local/bin/node|' dist/keyturn >"$made"
    put 0755 "$made" /usr/local/bin/keyturn
    put 0644 dist/keyturn.LICENSES.txt /usr/local/share/doc/keyturn/LICENSES.txt
    put 0644 "$(find -L node_modules/node/node_modules -maxdepth 2 -path '*node-linux-*/LICENSE' | head -n 1)" /usr/local/share/doc/node/LICENSE
    purls=("pkg:generic/node@$("$node" -p process.versions.node)")
    ;;
  standalone)
    program=dist/standalone/keyturn
    put 0755 "$program" /usr/local/bin/keyturn
    put 0644 dist/standalone/keyturn.LICENSES.txt /usr/local/share/doc/keyturn/LICENSES.txt
    purls=("pkg:generic/bun@$bun_version")
    ;;
  *) die "$form is no form of the program: node or standalone" ;;
esac
put 0644 LICENSE /usr/local/share/doc/keyturn/LICENSE

for library in $(ldd "$program" | grep -o '/[^ ]*'); do borrow "$library"; done
[ -s /etc/ssl/certs/ca-certificates.crt ] || die "install ca-certificates: they are what --ca-root SYSTEM means"
put 0644 /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
packages+=(ca-certificates)

mkdir -p "$image/etc"
printf 'root:x:0:0:root:/:/sbin/nologin\nkeyturn:x:1337:1337:keyturn:/:/sbin/nologin\n' >"$image/etc/passwd"
printf 'root:x:0:\nkeyturn:x:1337:\n' >"$image/etc/group"
printf 'hosts: files dns\n' >"$image/etc/nsswitch.conf"
put 0644 /etc/os-release /etc/os-release

# Scanners read what Debian packages an image has from here, as they do in images without a package manager.
for package in $(printf '%s\n' "${packages[@]}" | sort -u); do
  dpkg-query -s "$package" | grep -v '^Conffiles:\|^ /' >"$made"
  put 0644 "$made" "/var/lib/dpkg/status.d/$package"
  put 0644 "/usr/share/doc/$package/copyright" "/usr/share/doc/$package/copyright"
  purls+=("$(dpkg-query -W -f "pkg:deb/debian/$package@\${Version}?arch=\${Architecture}" "$package")")
done
"$node" scripts/lib/sbom.mjs "${purls[@]}" >"$made"
put 0644 "$made" /usr/local/share/doc/keyturn/sbom.cdx.json

command install -d -m 1777 "$image/tmp"
command install -d -m 0755 "$image/run" "$image/var"
ln -s /run "$image/var/run"
command install -d -m 0755 -o 1337 -g 1337 "$image/run/keyturn" "$image/run/secrets/workload-spiffe-uds"
command install -d -m 0700 -o 1337 -g 1337 "$image/var/lib/keyturn"
