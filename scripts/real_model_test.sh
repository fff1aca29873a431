#!/usr/bin/env bash
# The `llm` step against a real model on this machine, over both protocols that its server speaks
# (OpenAI chat, Anthropic Messages): streaming, usage, seed, schema, an answer that is cut.
# Installs the model into target/ (once, 125 MB), and stops its server at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=target/local-model
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
trap 'scripts/local-model.sh stop "$dir" "$port"' EXIT
scripts/local-model.sh start "$dir" "$port"
export FOLDBACK_TEST_LLM_URL=http://127.0.0.1:$port/v1 FOLDBACK_TEST_LLM_MODEL=smollm2-135m-instruct
ran=$(cargo test --locked --workspace --test it -- --ignored --exact providers::a_real_model_answers)
printf '%s\n' "$ran"
# A test that was renamed is one that no longer runs.
grep -q '1 passed' <<<"$ran"
