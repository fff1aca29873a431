#!/usr/bin/env bash
# The ways in that README names, on directories of their own: `make install` of the program that the
# tests have built, and with `--cargo` also `cargo install --path` (it builds everything again: minutes).
# The installed program says its version with commit and date, each command has a page, a shell takes
# the completions, `make uninstall` leaves nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
fail() { printf 'install_test: %s\n' "$1" >&2; exit 1; }

make --no-print-directory install PREFIX="$root/prefix" BUILT=target/debug/foldback >/dev/null
bin=$root/prefix/bin/foldback
"$bin" --version | grep -qE '^foldback [0-9]+\.[0-9]+\.[0-9]+ \([0-9a-f]{9} [0-9]{4}-[0-9]{2}-[0-9]{2}\)$' ||
  fail "the version names no commit with its date: $("$bin" --version)"
commands=$("$bin" --help | sed -n '/^Commands:/,/^$/p' | awk '/^  [a-z]/ { print $1 }' | grep -v '^help$')
[ "$(wc -w <<<"$commands")" -ge 29 ] || fail "--help lists few commands: $commands"
for command in $commands; do
  grep -q '\.SH NAME' "$root/prefix/share/man/man1/foldback-$command.1" || fail "$command has no manual page"
done
bash -c '. "$1"; complete -p foldback' _ "$root/prefix/share/bash-completion/completions/foldback" >/dev/null ||
  fail "bash does not take the completions"
grep -q '^#compdef foldback' "$root/prefix/share/zsh/site-functions/_foldback" || fail "zsh has no completions"
for command in $commands; do
  grep -q -- "-a \"$command\"" "$root/prefix/share/fish/vendor_completions.d/foldback.fish" || fail "fish does not complete $command"
done
( mkdir "$root/first" && cd "$root/first" && "$bin" init >/dev/null && "$bin" run pipeline.yaml --id first 2>/dev/null | grep -q shortened ) ||
  fail "the installed program does not run its first pipeline"
make --no-print-directory uninstall PREFIX="$root/prefix" >/dev/null
[ -z "$(find "$root/prefix" -type f)" ] || fail "uninstall left $(find "$root/prefix" -type f)"

ways='make install'
if [ "${1:-}" = --cargo ]; then
  cargo install --locked --quiet --path crates/foldback-cli --root "$root/cargo" --target-dir target
  "$root/cargo/bin/foldback" --version | grep -q '^foldback ' || fail "cargo install made no program"
  bytes=$(stat -c %s "$root/cargo/bin/foldback")
  [ "$bytes" -le 30000000 ] || fail "the release program has $bytes bytes: more than 30 MB"
  ways+=" and cargo install --path ($bytes bytes)"
fi
echo "$ways, completions and manual: as README says"
