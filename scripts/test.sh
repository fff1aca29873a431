#!/usr/bin/env bash
# Everything that must hold before a change is good. `make test` and CI run this; it takes no
# arguments, needs no network but the package registry, and ends with the line of the test runner.
#
# Nothing outside this repository is needed. Some tests read data of the Open Workflow Specification
# 1.0.3 (its schema, examples and conformance features), which is not ours to hold: FOLDBACK_OWS names
# the folder that has it. Without it everything else runs, and the last lines say what was not run.
# FOLDBACK_REQUIRE_OWS=1, as CI says it, makes that a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

began=$SECONDS
headline() { printf '\n== %s  (after %d s)\n' "$1" $((SECONDS - began)); }
fail() { printf 'make test: %s\n' "$1" >&2; exit 1; }

. scripts/needs.sh
need python3 python3
python3 -m pip --version >/dev/null 2>&1 || need pip3 python3-pip
need cc gcc
[ -e /usr/include/stdlib.h ] || need cc-headers libc6-dev
need git git
need make make
install_needs || exit 1
for tool in fmt clippy; do
  cargo "$tool" --version >/dev/null 2>&1 || rustup component add "${tool/fmt/rustfmt}"
done

if [ -z "${FOLDBACK_OWS:-}" ]; then
  [ "${FOLDBACK_REQUIRE_OWS:-}" != 1 ] || fail "FOLDBACK_OWS names no folder, and FOLDBACK_REQUIRE_OWS=1 asks for it"
  unset FOLDBACK_OWS
else
  for part in schema/workflow.yaml examples ctk/features; do
    [ -e "$FOLDBACK_OWS/$part" ] || fail "FOLDBACK_OWS=$FOLDBACK_OWS has no $part
hint: it must be the data of the Open Workflow Specification 1.0.3; without FOLDBACK_OWS the tests that read it are left out"
  done
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

headline "installed"
scripts/install_test.sh

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

if [ -z "${FOLDBACK_OWS:-}" ]; then
  cat <<'TXT'

NOT RUN, since FOLDBACK_OWS names no folder with data of the Open Workflow Specification 1.0.3
(its repository is serverlessworkflow/specification: schema/, examples/, ctk/features/):
  conformance scenarios     foldback       every_conformance_scenario_passes_but_two_of_openapi
  examples load             foldback-ows   every_example_of_the_specification_loads_or_is_refused_with_a_place
  examples give no warning  foldback-ows   the_specifications_examples_give_no_warning_of_their_data
  a row for each construct  foldback-ows   every_construct_of_the_specification_has_a_row
  examples as fuzzing seeds foldback       fuzz
Everything else ran and passed.
TXT
fi
