#!/usr/bin/env python3
"""Serves a small language model on loopback, in the dialect of OpenAI's API.

usage: local_model_server.py PORT MODEL.gguf ALIAS

Started by `local-model.sh`, with the Python of its virtual environment. The server is llama.cpp's
(the wheel `xllamacpp`); nothing leaves the machine.
"""

import os
import signal
import sys

import xllamacpp

# Plain ChatML, in which the model was trained: given here, so that the prompt it sees does not depend
# on what the file brings along.
CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def main() -> None:
    port, model, alias = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {alias}
    params.chat_template = CHAT_TEMPLATE
    params.use_jinja = True
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = 1
    params.n_ctx = 2048
    # One thread: a model this small is no faster on two, and the same seed gives the same text.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    # Without the prompt cache the answer does not depend on what was asked before.
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.endpoint_metrics = True
    params.ui = False
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}", flush=True)
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: os._exit(0))
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
