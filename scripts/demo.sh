#!/usr/bin/env bash
# `make demo`: a real AI pipeline on an event log. It is killed in the middle, resumed, and asked
# what happened. All files are kept in .demo/, all processes end with this script.
#
# FOLDBACK_DEMO_BASE_URL and FOLDBACK_DEMO_MODEL name another OpenAI-compatible server to use.
set -euo pipefail
cd "$(dirname "$0")/.."

began=$SECONDS
demo=.demo
bin=target/debug/foldback
engine='' service='' model_port=''

bold='' cyan='' red='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' cyan=$'\e[36m' red=$'\e[31m' plain=$'\e[0m'; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
fail() { printf '\ndemo: %s\n' "$1" >&2; exit 1; }

# What a person would type; where the log and the models are is left out of each line.
fb=("$bin" --store "sqlite:$demo/demo.db" --config "$demo/foldback.toml")
show() {
  local word
  printf '%s$ foldback' "$cyan"
  for word; do
    case $word in *[!A-Za-z0-9_./:=-]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
  done
  printf '%s\n' "$plain"
}
foldback() { show "$@"; "${fb[@]}" "$@"; }

finish() {
  trap - EXIT INT TERM
  if [ -n "$engine" ]; then kill -9 "$engine" 2>/dev/null || true; fi
  if [ -n "$service" ]; then kill "$service" 2>/dev/null || true; fi
  if [ -n "$model_port" ]; then scripts/local-model.sh stop "$demo/model" "$model_port" 2>/dev/null || true; fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

. scripts/needs.sh
need python3 python3
python3 -m pip --version >/dev/null 2>&1 || need pip3 python3-pip
need cc gcc
[ -e /usr/include/stdlib.h ] || need cc-headers libc6-dev
install_needs || fail "it needs what is missing above"

mkdir -p "$demo"
# One demo at a time in one directory. The lock is not handed on to what outlives a command (8>&-).
exec 8>"$demo/.lock"
flock -n 8 || fail "another demo runs in this directory"
# What an earlier demo left that could not end itself.
for left in "$demo"/model/server-*.pid; do
  [ ! -e "$left" ] || { left=${left##*-}; scripts/local-model.sh stop "$demo/model" "${left%.pid}" 8>&-; }
done
rm -f "$demo"/demo.db* "$demo"/content.db* "$demo"/*.json "$demo"/port.* "$demo"/model/*.log

say "1. Build foldback (the first time this takes some minutes)"
cargo build --locked -p foldback-cli 8>&-

if [ -n "${FOLDBACK_DEMO_BASE_URL:-}" ]; then
  say "2. Use the model at $FOLDBACK_DEMO_BASE_URL"
  [ -n "${FOLDBACK_DEMO_MODEL:-}" ] || fail "FOLDBACK_DEMO_MODEL is not set: which model is it to ask?"
  base_url=$FOLDBACK_DEMO_BASE_URL model=$FOLDBACK_DEMO_MODEL
  # A larger model may find its first draft good: then there is no revision to be cut off.
  finished=draft under_way='refine[0]/critique'
else
  say "2. Start a small language model on this machine (the first time it is installed, 125 MB)"
  model_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  scripts/local-model.sh start "$demo/model" "$model_port" 8>&-
  base_url=http://127.0.0.1:$model_port/v1 model=smollm2-135m-instruct
  finished='refine[0]/critique' under_way='refine[0]/revise'
fi
key_line=''
if [ -n "${OPENAI_API_KEY:-}" ] && [ -z "$model_port" ]; then key_line='api_key_env = "OPENAI_API_KEY"'; fi
cat >"$demo/foldback.toml" <<TXT
[providers.local]
kind = "openai"
base_url = "$base_url"
$key_line
TXT

say "3. Start a content service: an HTTP server over a SQLite file, which stands in for a CMS"
mkfifo "$demo/port.$$"
python3 examples/content_service.py --port 0 --db "$demo/content.db" >"$demo/port.$$" 2>"$demo/service.log" 8>&- &
service=$!
read -r -t 20 port <"$demo/port.$$" || fail "the content service did not start: $(cat "$demo/service.log")"
rm "$demo/port.$$"
content=http://127.0.0.1:$port
tail -n 1 "$demo/service.log"

input="{\"model\": \"local/$model\", \"service\": \"$content\"}"

say "4. Run the pipeline: draft, critique, decide, revise, publish, announce.
   In a moment its process gets a SIGKILL, while the model writes."
show run examples/article.yaml --id article-1 --input "$input"
"${fb[@]}" run examples/article.yaml --id article-1 --input "$input" >/dev/null 8>&- &
engine=$!
# The moment: one answer of the model is in the log, and the next question is with the model.
scripts/demo_proof.py wait "$bin" "$demo" "$engine" "$finished" "$under_way"
kill -9 "$engine"
{ wait "$engine" || true; } 2>/dev/null
engine=''
printf '%skill -9%s\n' "$red" "$plain"

say "5. The process is gone; what it had done is on disk"
foldback steps article-1
scripts/demo_proof.py before "$bin" "$demo"

say "6. Go on from there, in another process"
show resume article-1
"${fb[@]}" resume article-1 >/dev/null

say "7. Did any finished step run again? The log, the model's server and the content service know"
scripts/demo_proof.py after "$bin" "$demo" "$content"

say "8. The whole run on one page"
foldback show article-1

say "9. First question: what was the input of each step?"
foldback steps article-1

say "10. Second question: what was decided, and why?"
foldback decisions article-1

say "11. The article is not for its readers. What was true just before it was drafted?"
foldback state article-1 --at draft

say "12. With another prompt: the plan first, which touches nothing"
cat >"$demo/for-children.md" <<'TXT'
Write a short article of one paragraph for children about {topic}.
TXT
edit="draft:template=@$demo/for-children.md"
foldback fork article-1 --edit "$edit" --dry-run

say "13. The fork runs up to the first thing that would change the world, and waits there"
foldback fork article-1 --edit "$edit"
[ "$(python3 -c 'import json,sys,urllib.request as u; print(len(json.load(u.urlopen(sys.argv[1]))))' "$content/effects")" = 2 ] ||
  fail "the fork changed the world"

say "14. The two articles side by side, with what they cost"
code=0
foldback diff article-1 'article-1~1' || code=$?
[ "$code" = 1 ] || fail "two articles that differ should exit with 1, not $code"

say "15. It is worth publishing: a person says so"
foldback resolve 'article-1~1' publish live
if "${fb[@]}" show 'article-1~1' | grep -q 'resolve .* announce'; then
  foldback resolve 'article-1~1' announce live
fi
foldback list --tree

say "16. A run that fails: the same pipeline, with a wrong address for publishing"
wrong="{\"model\": \"local/$model\", \"service\": \"$content/wrong\"}"
code=0
foldback run examples/article.yaml --id article-2 --input "$wrong" || code=$?
[ "$code" = 1 ] || fail "a failed workflow should exit with 1, not $code"

say "17. Third question: from where can it go on? The state just before the failing step was asked"
foldback state article-2 --at failure

say "18. Mended, under its own id: the address of the step that failed, and of the one not yet reached"
foldback retry article-2 --reason 'the address was wrong' \
  --edit "publish:uri=\"$content/articles\"" --edit "announce:uri=\"$content/announcements\""
foldback steps article-2

say "19. Does every log agree with its definition, and is each whole? Every consequence, every hash"
foldback verify
foldback audit

say "The demo took $((SECONDS - began)) s. All of it is in $demo/: ask it more, with
   $bin --store sqlite:$demo/demo.db events article-1"
