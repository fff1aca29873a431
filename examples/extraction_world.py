#!/usr/bin/env python3
"""The world around examples/extraction.yaml: an archive of invoices, a table, and something that stands
in for a large model. All of it is deterministic, in memory, and keeps books.

    GET    /documents            -> {"service": …, "documents": ["inv-0000", …]}: the input of the workflow
    GET    /documents/ID         -> {"id": …, "text": …}
    POST   /rows                 {"batch": ID, "rows": […]}  -> 201, how many rows: they are added to the table
    DELETE /batches/ID           -> 200, how many rows went; 404 where there is no such batch
    GET    /batches              -> {BATCH: number of its rows, …}
    POST   /v1/chat/completions  -> an answer in the dialect of OpenAI's API

**The model is a stand-in.** It reads the invoice in the prompt with a regular expression: a thousand calls of a
large model cost money and minutes that a test does not have. It has the habits of one, though, and which
document meets which habit depends on its number alone (`habit`):

    missing    the archive answers 404, until it is `mended`
    flaky      the archive answers 500 the first two times
    garbled    `gpt-5-mini` answers with prose, and again when it is told why that is wrong; `gpt-5` can read it
    ambiguous  two totals on one invoice: an answer with little confidence
    sloppy     the first answer is JSON that breaks off; the one in the repair round is whole
    crowded    the first answer is 429, with `retry-after: 1`

Tokens are counted as if an invoice had some pages, and `max_tokens` cuts nothing off. POST and DELETE honour the
header `Idempotency-Key`: the same key gets the first answer again, and changes nothing. With `honours_keys=False`
they do not, and a request that is sent twice takes effect twice.

usage: extraction_world.py [--port PORT] [--documents COUNT] > foldback.toml

What it prints is a configuration of foldback by which `openai/…` is asked here.
"""

import argparse
import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# A document has the first habit whose `rest` its number is, modulo `every`.
HABITS = {"missing": (50, 7), "garbled": (25, 3), "ambiguous": (20, 11), "flaky": (40, 18), "sloppy": (30, 20),
          "crowded": (250, 101)}
SMALL, LARGE = "gpt-5-mini", "gpt-5"
Answer = tuple[int, dict[str, Any]]


def habit(document: str) -> str:
    number = int(document.removeprefix("inv-"))
    return next((name for name, (every, rest) in HABITS.items() if number % every == rest), "plain")


def invoice(document: str) -> str:
    """The text of a document, from its number."""
    number = int(document.removeprefix("inv-"))
    currency = ("EUR", "USD", "GBP")[number % 3]
    total = f"Total {currency} {number * 7 % 990 + 10}.{number % 100:02}"
    if habit(document) == "garbled":
        total = re.sub("[0-9]", lambda digit: f"{digit[0]}~", total)
    if habit(document) == "ambiguous":
        total += f"\nAmount due {currency} {number + 1}.00"
    return f"INVOICE {document}\nSupplier {number % 17}, Harbour Road {number % 90}\n{total}\nThank you."


def fields(text: str, model: str) -> dict[str, Any] | None:
    """What the model reads in an invoice; `None` where it cannot."""
    if model == LARGE:
        text = text.replace("~", "")
    name, total = re.search(r"INVOICE (\S+)", text), re.search(r"Total ([A-Z]{3}) ([0-9]+\.[0-9]{2})$", text, re.M)
    if not name or not total:
        return None
    sure = 0.4 if "Amount due" in text else 0.97
    return {"number": name[1], "total": float(total[2]), "currency": total[1], "confidence": sure}


class World:
    """What there is, and the books: what was asked for, and what took effect."""

    def __init__(self, documents: int, honours_keys: bool = True) -> None:
        self.documents = [f"inv-{number:04}" for number in range(documents)]
        self.honours_keys = honours_keys
        self.is_mended = False
        self.pause = 0.0  # seconds before and after each effect, so that who asked can die on both sides of it
        self.address = ""
        self.changed = threading.Condition()
        self.asked: Counter[str] = Counter()  # "fetch ID", "MODEL ID", "repair MODEL ID", "write BATCH", "delete BATCH"
        self.table: dict[str, list[dict[str, Any]]] = {}  # the rows by batch
        self.effects: list[str] = []  # "write BATCH", "delete BATCH", in their order
        self.answers: dict[str, Answer] = {}
        self.tokens = 0

    def start(self, port: int = 0) -> str:
        """Serves, in a thread that ends with the process; the address."""
        handler = type("Bound", (Handler,), {"world": self})
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{server.server_address[1]}"
        return self.address

    def config(self) -> str:
        """A `foldback.toml` by which `openai/…` is asked here."""
        lines = ["[providers.openai]", 'kind = "openai"', f'base_url = "{self.address}/v1"', 'api_key_env = ""']
        return "\n".join([*lines, "stream = false", ""])

    def input(self) -> dict[str, Any]:
        return {"service": self.address, "documents": self.documents}

    def ask(self, label: str) -> int:
        """Notes that something was asked for; how often that was before."""
        with self.changed:
            self.asked[label] += 1
            self.changed.notify_all()
            return self.asked[label] - 1

    def fetch(self, document: str) -> Answer:
        before = self.ask(f"fetch {document}")
        if document not in self.documents or (habit(document) == "missing" and not self.is_mended):
            return 404, {"error": f"there is no {document}"}
        if habit(document) == "flaky" and before < 2:
            return 500, {"error": "the archive is busy"}
        return 200, {"id": document, "text": invoice(document)}

    def chat(self, request: dict[str, Any]) -> Answer:
        """What the model says: of the invoice in the first message, for the first time or in a repair round."""
        model, prompts = request["model"], [said["content"] for said in request["messages"] if said["role"] == "user"]
        found = re.search(r"INVOICE (\S+)", prompts[0])
        document = found[1] if found else "?"
        is_repair = len(prompts) > 1
        before = self.ask(f"{'repair ' * is_repair}{model} {document}")
        if habit(document) == "crowded" and not before:
            return 429, {"error": {"message": "too many requests", "type": "rate_limit_exceeded"}}
        read = fields(prompts[0], model)
        text = json.dumps(read) if read else "I cannot find the total of this invoice."
        if habit(document) == "sloppy" and not is_repair:
            text = text[:25]
        usage = {"prompt_tokens": sum(map(len, prompts)) * 5, "completion_tokens": len(text) // 4}
        with self.changed:
            self.tokens += sum(usage.values())
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": model, "choices": [choice],
                     "usage": usage | {"total_tokens": sum(usage.values())}}

    def change(self, label: str, key: str | None, rows: list[dict[str, Any]]) -> Answer:
        """Writes or deletes a batch: once for each key, and for each time without one."""
        self.ask(label)
        time.sleep(self.pause)
        with self.changed:
            if key and self.honours_keys and key in self.answers:
                return self.answers[key]
            does, batch = label.split()
            if does == "write":
                self.table.setdefault(batch, []).extend(rows)
                answer = 201, {"batch": batch, "rows": len(rows)}
            elif batch in self.table:
                answer = 200, {"batch": batch, "rows": len(self.table.pop(batch))}
            else:
                answer = 404, {"error": f"there is no batch {batch}"}
            if answer[0] != 404:
                self.effects.append(label)
            self.answers[key or ""] = answer
            self.changed.notify_all()
        time.sleep(self.pause)
        return answer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    world: World

    def do_GET(self) -> None:
        status, answer = self.answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        data = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status == 429:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # who asked was killed

    do_POST = do_DELETE = do_GET

    def answer(self, body: bytes) -> Answer:
        key = self.headers.get("Idempotency-Key")
        match self.command, self.path.strip("/").split("/"):
            case "GET", ["documents"]:
                return 200, self.world.input()
            case "GET", ["documents", document]:
                return self.world.fetch(document)
            case "GET", ["batches"]:
                return 200, {batch: len(rows) for batch, rows in self.world.table.items()}
            case "POST", ["v1", "chat", "completions"]:
                return self.world.chat(json.loads(body))
            case "POST", ["rows"]:
                given = json.loads(body)
                return self.world.change(f"write {given['batch']}", key, given["rows"])
            case "DELETE", ["batches", batch]:
                return self.world.change(f"delete {batch}", key, [])
        return 404, {"error": f"nothing takes {self.command} at {self.path}"}

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            pass  # likewise

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description="The archive, the table and the stand-in for a model.")
    parser.add_argument("--port", type=int, default=8086, help="0 picks a free one (default: 8086)")
    parser.add_argument("--documents", type=int, default=1000, help="how many there are (default: 1000)")
    arguments = parser.parse_args()
    world = World(arguments.documents)
    world.start(arguments.port)
    print(f"# extraction_world.py listens on {world.address}, and stands in for OpenAI.\n{world.config()}", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
