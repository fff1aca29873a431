#!/usr/bin/env bash
# Fails if a pure crate gains a clock, chance, I/O or an async runtime.
#
#   scripts/check-pure.sh [ROOT]       check ROOT (default: this repository)
#   scripts/check-pure.sh --self-test  plant each offence in a copy and see that the check fails
#
# foldback-core and foldback-ows must give the same answer on every machine and in every year, or a
# fold over old facts is no longer what it was. Tests (from a file's first #[cfg(test)] on) and
# comments may name what they like.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

crates=(foldback-core foldback-ows)
# In words of the source: a name of std that reaches outside, in a path or in a `use` list.
forbidden='\b(Instant|SystemTime|RandomState|DefaultHasher)\b'
forbidden+='|\bstd::(fs|io|net|thread|process|env|os)\b|\bstd::\{[^}]*\b(fs|io|net|thread|process|env|os)\b'
forbidden+='|\b(rand|getrandom|tokio|async_std|smol|futures|chrono)::|\bthread_rng\b'
forbidden+='|\basync (fn|move|\{|\|)|\.await\b|\b(e?print(ln)?|dbg)!|\bunsafe\b'
# In names of packages: what brings one of these into the tree of the core.
runtimes='^(tokio|async-std|smol|mio|futures-executor|hyper|reqwest|rusqlite|rand|rand_core|getrandom|fastrand|chrono|time|jiff) '

check() {
  local root=$1 crate file found status=0
  for crate in "${crates[@]}"; do
    [ -d "$root/crates/$crate/src" ] || continue
    while IFS= read -r file; do
      found=$(awk '/#\[cfg\(test\)\]/ { exit } { line = $0; sub(/\/\/.*/, "", line); print FNR ": " line }' "$file" | grep -E "$forbidden") || true
      [ -z "$found" ] || { printf '%s is not pure:\n%s\n' "${file#"$root"/}" "$found" >&2; status=1; }
    done < <(find "$root/crates/$crate/src" -name '*.rs' ! -name tests.rs ! -path '*/tests/*' | sort)
  done
  if [ -f "$root/Cargo.toml" ]; then
    found=$(cd "$root" && cargo tree --quiet -p foldback-core -e normal --prefix none) || return 1
    if found=$(grep -E "$runtimes" <<<"$found"); then
      printf 'foldback-core depends on what is not pure:\n%s\n' "$found" >&2
      status=1
    fi
  fi
  return $status
}

# A check that cannot fail proves nothing.
self_test() {
  local offence crate
  dir=$(mktemp -d) # not local: the trap runs after this function
  trap 'rm -rf "$dir"' EXIT
  for crate in "${crates[@]}"; do
    mkdir -p "$dir/crates/$crate/src"
    printf '// std::fs is only named here\npub fn f() {}\n#[cfg(test)]\nmod tests { use std::fs; }\n' >"$dir/crates/$crate/src/lib.rs"
  done
  check "$dir" || { echo "the check fails on a pure crate" >&2; exit 1; }
  while IFS= read -r offence; do
    for crate in "${crates[@]}"; do
      printf '%s\n' "$offence" >"$dir/crates/$crate/src/planted.rs"
      if check "$dir" 2>/dev/null; then echo "the check overlooks in $crate: $offence" >&2; exit 1; fi
      rm "$dir/crates/$crate/src/planted.rs"
    done
  done <<'TXT'
use std::time::Instant;
use std::time::{Duration, SystemTime};
let now = std::time::SystemTime::now();
use std::fs::File;
use std::{collections::BTreeMap, fs};
let stream = std::net::TcpStream::connect(address);
std::thread::spawn(f);
use std::process::Command;
let home = std::env::var("HOME");
use std::io::Write;
let n: u64 = rand::random();
use tokio::sync::mpsc;
pub async fn turn() {}
let run = async move { 1 };
future.await;
println!("{n}");
TXT
  echo "check-pure: finds everything that was planted"
}

if [ "${1:-}" = --self-test ]; then self_test; exit; fi
check "$(cd "${1:-$here}" && pwd)"
echo "check-pure: ${crates[*]} are pure"
