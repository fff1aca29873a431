#!/usr/bin/env bash
# Fuzzes one of the five targets for so many seconds, on stable Rust, with nothing installed but a
# C++ compiler: libFuzzer comes with its crate, and the compiler's coverage pass is asked for by name.
#
# usage: scripts/fuzz.sh (definition|jq|event|import|config|--build) [SECONDS]
#
# What it learns goes to target/fuzz-corpus/TARGET and is kept for the next time; seeds are
# fuzz/corpus/TARGET, the examples and the golden events. An input that breaks something is left in
# fuzz/found/ and ends this with an error: mend it, and move the input into fuzz/corpus/TARGET.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-}
seconds=${2:-600}
case $target in
  definition|jq|event|import|config|--build) ;;
  *) sed -n '5s/^# //p' "$0" >&2; exit 2 ;;
esac
[[ $seconds =~ ^[0-9]+$ ]] || { echo "fuzz.sh: $seconds is no number of seconds" >&2; exit 2; }
command -v c++ >/dev/null || { echo "fuzz.sh: a C++ compiler is missing (Debian: apt-get install g++)" >&2; exit 2; }

# Stable flags all: the pass that counts edges, and what libFuzzer wants to see of comparisons.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
 -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
host=$(rustc -vV | sed -n 's/^host: //p')
# Not --locked: what the engine needs is pinned by its own lock file, and the one here follows it. With
# a target named, the flags leave build scripts and macros alone.
${CARGO:-cargo} build --release --quiet --manifest-path fuzz/Cargo.toml --target "$host" --target-dir target/fuzz
unset RUSTFLAGS
[[ $target == --build ]] && exit 0

seeds=target/fuzz-seeds/$target
learnt=target/fuzz-corpus/$target
rm -rf "$seeds"
mkdir -p "$seeds" "$learnt" fuzz/found
case $target in
  definition)
    cp examples/*.yaml "$seeds"
    [[ -z ${FOLDBACK_OWS:-} ]] || cp "$FOLDBACK_OWS"/examples/*.yaml "$seeds" ;;
  event)
    for file in crates/foldback-core/tests/golden/*.json; do
      name=${file##*/}
      { echo "${name%%.*}"; cat "$file"; } > "$seeds/$name"
    done ;;
esac

# A hang is 20 s for one input; memory is bounded for the whole process.
most=65536
[[ $target == jq ]] && most=4096
FOLDBACK_FUZZ=$target exec "target/fuzz/$host/release/foldback-fuzz" \
  -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=1024 -max_len=$most \
  -dict="fuzz/dict/$target" -artifact_prefix="fuzz/found/$target-" -print_final_stats=1 -verbosity="${FUZZ_VERBOSITY:-1}" \
  "$learnt" "fuzz/corpus/$target" "$seeds"
