# shellcheck shell=bash
# Bun, whose compiler makes the executable of the program, and which is the larger part of it; sourced by scripts/build. It is fetched when
# an executable is asked for: most who clone this never need its 100 MB. Each in a folder of the cache that is named after its version.

bun_version=1.4.5

# bun_package TARGET: the npm package that holds Bun for it, and its check sum as the registry names it.
bun_package() {
  case "$1" in
    linux-x64) echo linux-x64 sha512-IWX9BELoGHAUtMonkeSaNaZwXzRk+oDw6Mk+HBFXd3KHYIBNBsIGRupMZPcgNoDbJpLu6gAJjIoIVPZtt1aJ1g== ;;
    linux-arm64) echo linux-aarch64 sha512-4BXmsSKnjOrlGWqZV4x/oWa7AVoR+B6lCXddMzOAXBIm3t50eslg9wb66gmtW1AamEQ1l1CDvmmruysEhqOWMg== ;;
    linux-x64-musl) echo linux-x64-musl sha512-10QoW/YfTgnURaGEaHpJCiXjLI2e5iTtfVDaA5JKcyUzaa1cq6cVUY9/Uq5XkYzvtRjHLRe9Oj/lTDIQcxy8HQ== ;;
    linux-arm64-musl) echo linux-aarch64-musl sha512-XCNc+WvvMAdNNb+OWTogpy+N9wm62fkVeEVLb6how0RZhW5LPi6c7BlkeVCuWps7XjEl2saFpHFa20/1E+PAHg== ;;
    *) die "no executable can be made for $1; targets are linux-x64, linux-arm64, linux-x64-musl, linux-arm64-musl" ;;
  esac
}

# bun_here: the target that this machine runs.
bun_here() {
  local machine libc=
  machine=$(uname -m)
  if ldd --version 2>&1 | grep -qi musl; then libc=-musl; fi
  case "$(uname -s) $machine" in
    'Linux x86_64') echo "linux-x64$libc" ;;
    'Linux aarch64') echo "linux-arm64$libc" ;;
    *) die "the executable is made on Linux, x64 or arm64; this is $(uname -s) $machine" ;;
  esac
}

# bun TARGET: provides it and prints its path.
bun() {
  local out="${cache:?}/bun-$bun_version-$1/bun" package
  package=$(bun_package "$1") || exit 1
  # shellcheck disable=SC2086 # a package and its check sum
  if [ ! -x "$out" ]; then locked "bun-$1" bun_fetch "$out" $package || exit 1; fi
  printf '%s\n' "$out"
}

# bun_fetch PATH PACKAGE INTEGRITY
bun_fetch() {
  local out=$1 name="@oven/bun-$2@$bun_version" integrity=$3 dir="${1%/*}.new" found
  if [ -x "$out" ]; then return 0; fi
  rm -rf "$dir"
  mkdir -p "$dir"
  quietly "fetching $name from npm" npm pack --silent "$name" --pack-destination "$dir" || die "npm could not fetch $name; check that the npm registry is reachable (npm ping)"
  found=sha512-$(sha512_base64 "$dir"/*.tgz)
  [ "$found" = "$integrity" ] || die "$name is not what was pinned: it has $found, not $integrity"
  tar -xzf "$dir"/*.tgz -C "$dir" --strip-components=2 package/bin/bun
  rm -f "$dir"/*.tgz
  chmod 0755 "$dir/bun"
  rm -rf "${out%/*}"
  mv "$dir" "${out%/*}"
}

# sha512_base64 FILE: in the base64 of package-lock.json, by what is there anyway.
sha512_base64() {
  node -e 'process.stdout.write(require("crypto").createHash("sha512").update(require("fs").readFileSync(process.argv[1])).digest("base64"))' "$1"
}
