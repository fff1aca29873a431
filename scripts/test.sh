#!/usr/bin/env bash
# Everything that must hold before a change is good. `make test` and CI run this; it takes no
# arguments, needs no network but the package registry, and ends with the line of the test runner.
#
# The specification's schema, examples and conformance features lie beside the repository, in
# ../shared/ows. Without them the tests that read them pass without a look: so this fails, unless
# FOLDBACK_WITHOUT_OWS=1 says that it is meant, and then ends with what was not run.
set -euo pipefail
cd "$(dirname "$0")/.."

began=$SECONDS
headline() { printf '\n== %s  (after %d s)\n' "$1" $((SECONDS - began)); }
fail() { printf 'make test: %s\n' "$1" >&2; exit 1; }

command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs"
command -v python3 >/dev/null || fail "python3 is missing (Debian: apt-get install python3)"
command -v cc >/dev/null || fail "a C compiler is missing, SQLite is built from source (Debian: apt-get install gcc libc6-dev)"
for tool in fmt clippy; do
  cargo "$tool" --version >/dev/null 2>&1 || rustup component add "${tool/fmt/rustfmt}"
done

missing=
for part in schema/workflow.yaml examples ctk/features; do
  [ -e "../shared/ows/$part" ] || missing+=" ../shared/ows/$part"
done
if [ -n "$missing" ] && [ "${FOLDBACK_WITHOUT_OWS:-}" != 1 ]; then
  fail "missing:$missing; the tests of conformance, examples, schema and warnings would pass without a look.
hint: put the Open Workflow Specification 1.0.3 there, or say FOLDBACK_WITHOUT_OWS=1 to go without"
fi

headline "format"
cargo fmt --all --check

headline "purity of the core"
scripts/check-pure.sh --self-test
scripts/check-pure.sh

headline "planted bugs"
scripts/mutants.py --check

headline "lints"
cargo clippy --locked --workspace --all-targets -- -D warnings

headline "build"
cargo build --locked --workspace --all-targets

headline "the plain pattern"
cargo run --locked --quiet -p foldback --example event_store | grep '5  FLIGHT_CANCELLED' ||
  fail "examples/event_store.rs does not compensate"

headline "stories"
scripts/story_test.py README.md docs/stories/*.md

headline "kill test"
scripts/kill_test.py 25
# And it can fail: on a server that does not honour idempotency keys it must.
{ scripts/kill_test.py 20 --forget-keys 2>&1 || true; } | grep 'took effect more than once' ||
  fail "the kill test does not notice writes that took effect twice"

headline "kill test of taking back"
scripts/kill_undo_test.py --kills 100 --lanes 2
{ scripts/kill_undo_test.py 6 --forget-keys 2>&1 || true; } | grep 'took effect more than once' ||
  fail "the kill test of taking back does not notice writes that took effect twice"

headline "every way to be left in doubt"
scripts/doubt_test.py
{ scripts/doubt_test.py --only timeout --forget-keys 2>&1 || true; } | grep 'booked 2' ||
  fail "the doubt test does not notice a write that took effect twice"

headline "a real model"
scripts/real_model_test.sh

headline "two pipelines, killed in the middle"
scripts/triage_test.py
{ scripts/triage_test.py --only killed-after --forget-keys 2>&1 || true; } | grep '2 refunds' ||
  fail "the triage test does not notice a refund that took effect twice"
scripts/extraction_test.py

headline "doc tests"
cargo test --locked --workspace --doc --quiet

headline "tests"
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --locked --workspace --no-fail-fast
else
  cargo test --locked --workspace --no-fail-fast --lib --bins --tests
fi

if [ -n "$missing" ]; then
  printf '\n== NOT RUN: conformance, examples, schema and warnings of the specification; missing:%s\n' "$missing" >&2
fi
