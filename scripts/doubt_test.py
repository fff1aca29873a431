#!/usr/bin/env python3
"""Leaves the real binary in doubt of a write in each way there is, and proves that it finds out the truth.

usage: doubt_test.py [--foldback BINARY] [--only CAUSE] [--forget-keys]

A booking is sent to a server, a process of its own, that keeps its book in a file, so that it can die.
Each row of the table is a way to leave its outcome unknown:

* crash    the binary is killed (SIGKILL) while the server has the request
* broken   the server dies (the process, not a connection) before it answers, and is started again
* timeout  the server answers after the attempt's time has run out
* cancel   a person cancels the workflow; then the server dies
* race     another branch wins; then the server dies

and each is played with each truth: the server had done it (`landed`), it had not and never does (`didnt`),
it does it only after `reconcile` has looked (`late`, where the server lives), and the server cannot tell
(`cannot`, done or not), where a person says it. Asserted: what the log says of it, its ledger, how often it
was asked for and took effect, that it had one idempotency key, and that what nobody wants any more is
neither sent again nor left standing. With `--forget-keys` the server takes no notice of the idempotency
key: then `late` takes effect twice, and the test must fail, which shows that it can.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True
from kill_test import PATIENCE, ROOT, Failed, Foldback, insist  # noqa: E402

GOES_ON = ("crash", "broken", "timeout")
WAYS = [(cause, truth) for cause in (*GOES_ON, "cancel", "race") for truth in ("landed", "didnt")]
WAYS += [("timeout", "late"), ("crash", "late")]
WAYS += [(cause, f"cannot {truth}") for cause in (*GOES_ON, "cancel", "race") for truth in ("landed", "didnt")]
DIES = ("broken", "cancel", "race")
SOON_MS, LATE_S = 300, 1.0


class Book:
    """What the server did, a line each, in a file that outlives it: `asked`, `booked` or `voided`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, run: str, what: str, key: str | None) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([run, what, key]) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def keys(self, run: str, what: str) -> list[str]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [key for of, did, key in map(json.loads, lines) if (of, did) == (run, what)]


class Server(BaseHTTPRequestHandler):
    """`POST /RUN/CAUSE/TRUTH` books, `DELETE` voids, `GET` looks. Only the first request of a run is troubled."""

    protocol_version = "HTTP/1.1"
    book: Book
    honours_keys = True
    lock = threading.Lock()

    def do_POST(self) -> None:
        run, cause, truth = self.where()
        key = self.headers.get("Idempotency-Key") or ""
        with self.lock:
            is_first = not self.book.keys(run, "asked")
            self.book.note(run, "asked", key)
            if not is_first or truth.endswith("landed"):
                self.do(run, key)
        if is_first:
            time.sleep(LATE_S)
            if cause in DIES:
                os._exit(1)
            if truth == "late":
                time.sleep(LATE_S)  # the look, and the second request, were before
                with self.lock:
                    self.do(run, key)
        self.tell({"booking": run})

    def do(self, run: str, key: str) -> None:
        if not self.honours_keys or key not in self.book.keys(run, "booked"):
            self.book.note(run, "booked", key)

    def do_DELETE(self) -> None:
        run, *_ = self.where()
        with self.lock:
            self.book.note(run, "voided", self.headers.get("Idempotency-Key") or "")
        self.tell({})

    def do_GET(self) -> None:
        run, _, truth = self.where()
        is_there = bool(self.book.keys(run, "booked"))
        self.tell({"unsure": True} if "cannot" in truth else {"booked": {"booking": run} if is_there else None})

    def where(self) -> list[str]:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return self.path.replace("%20", " ").strip("/").split("/")

    def tell(self, answer: Any) -> None:
        data = json.dumps(answer).encode()
        try:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the asker is gone

    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(port: int, book: Path, honours_keys: bool) -> None:
    Server.book, Server.honours_keys = Book(book), honours_keys
    server = ThreadingHTTPServer(("127.0.0.1", port), Server)
    server.daemon_threads = True
    server.serve_forever()


def pipeline(cause: str) -> dict[str, Any]:
    look = {"call": "http", "with": {"method": "get", "endpoint": "${ $write.input.at }"},
            "metadata": {"foldback": {"attempts": 10}},
            "output": {"as": "${ if .unsure then . elif .booked then {landed: .booked} else {didnt: true} end }"}}
    void = {"call": "http", "with": {"method": "delete", "endpoint": "${ $write.input.at }"}}
    book = {"call": "http", "with": {"method": "post", "endpoint": "${ .at }", "body": "${ . }"},
            "metadata": {"foldback": {"recovery": {"reconcile": [{"look": look}]}, "undo": [{"void": void}]}}}
    if cause == "timeout":
        book["timeout"] = {"after": {"milliseconds": SOON_MS}}
    other = {"other": {"wait": {"milliseconds": SOON_MS}}}
    tasks = [{"trip": {"fork": {"compete": True, "branches": [{"book": book}, other]}}}] if cause == "race" else [{"book": book}]
    return {"document": {"dsl": "1.0.3", "namespace": "test", "name": cause, "version": "1.0.0"}, "do": tasks}


class Doubt:
    def __init__(self, arguments: argparse.Namespace, directory: Path) -> None:
        self.binary, self.directory, self.forget = arguments.foldback, directory, arguments.forget_keys
        self.book = Book(directory / "book.jsonl")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.is_open = True
        self.server: subprocess.Popen[bytes] | None = None
        self.deaths = 0
        threading.Thread(target=self.keep_it_up, daemon=True).start()

    def keep_it_up(self) -> None:
        """Starts the server again whenever it dies."""
        command = [sys.executable, __file__, "--serve", str(self.port), str(self.book.path)]
        while self.is_open:
            self.server = subprocess.Popen(command + ["--forget-keys"] * self.forget)
            self.server.wait()
            self.deaths += self.is_open

    def is_up(self) -> bool:
        with socket.socket() as line:
            return line.connect_ex(("127.0.0.1", self.port)) == 0

    def until(self, holds: Any, what: str) -> None:
        ends = time.monotonic() + PATIENCE
        while not holds():
            insist(time.monotonic() < ends, f"in vain waited for: {what}")
            time.sleep(0.01)

    def play(self, cause: str, truth: str, told: list[str]) -> None:
        run = f"{cause}-{truth.replace(' ', '-')}"
        self.until(self.is_up, "the server")
        foldback = Foldback(self.binary, self.directory / run)
        (foldback.directory / "flow.json").write_text(json.dumps(pipeline(cause)))
        at = f"http://127.0.0.1:{self.port}/{run}/{cause}/{truth.replace(' ', '%20')}"
        process = foldback.start("run", "flow.json", "--id", run, "--input", json.dumps({"at": at}))
        try:
            self.until(lambda: self.book.keys(run, "asked") or process.poll() is not None, "the request")
            if cause == "crash":
                self.until(lambda: not truth.endswith("landed") or self.book.keys(run, "booked"), "the booking")
                process.kill()
                process.wait()
                foldback.ask("resume", run)
            elif cause == "cancel":
                foldback.ask("cancel", run, "--reason", "rain")
            process.wait(PATIENCE)
        finally:
            process.kill()
        if truth == "late":
            time.sleep(2 * LATE_S)
        if "cannot" in truth:
            self.ask_a_person(foldback, run, cause, truth)
        self.examine(foldback, run, cause, truth)
        told.append(f"{cause}/{truth}")

    @staticmethod
    def ask_a_person(foldback: Foldback, run: str, cause: str, truth: str) -> None:
        _, listed, _ = foldback.ask("list", "--status", "unknown")
        insist([row["workflow_id"] for row in listed] == [run], f"`list --status unknown` says {listed}")
        key = "trip/book" if cause == "race" else "book"
        verdict = ["landed", json.dumps({"booking": run})] if truth.endswith("landed") else ["didnt"]
        code, _, stderr = foldback.ask("resolve", run, key, *verdict)
        # It goes on: to its end, or, where it had ended, until all is taken back.
        insist(code == 0, f"`resolve {run} {key}` exits {code}: {stderr}")

    def examine(self, foldback: Foldback, run: str, cause: str, truth: str) -> None:
        has_landed, goes_on = truth.endswith("landed"), cause in GOES_ON
        _, events, _ = foldback.ask("events", run)
        types = [event["type"] for event in events]
        insist("OutcomeUnknown" in types, f"it was never in doubt: {types}")
        found = [event["payload"].get("found") for event in events if event["type"] == "OutcomeReconciled"]
        word = "unknown" if "cannot" in truth else "didnt" if truth == "late" else truth
        insist(found == [word], f"reconcile found {found}, not {word}")

        _, shown, _ = foldback.ask("show", run)
        ends = "completed" if cause != "cancel" else "compensated" if has_landed else "cancelled"
        insist(shown[0]["status"] == ends, f"it is {shown[0]['status']}, not {ends}: {types}")
        asked, booked, voided = (self.book.keys(run, what) for what in ("asked", "booked", "voided"))
        times = (1 if has_landed or not goes_on else 2, 1 if has_landed or goes_on else 0)
        insist((len(asked), len(booked)) == times, f"asked for {len(asked)} times, booked {len(booked)}; not {times}")
        insist(len(set(asked)) == 1 and asked[0] != "", f"idempotency keys: {asked}")
        insist(len(voided) == (ends == "compensated"), f"voided {len(voided)} times, and it is {ends}")
        standing = [effect["standing"] for effect in shown[0]["effects"]]
        expected = ["undone" if ends == "compensated" else "armed"] if booked else []
        insist(standing == expected, f"the ledger says {standing}, not {expected}")
        if expected == ["armed"]:
            code, _, stderr = foldback.ask("compensate", run)
            insist(code == 0, f"`compensate {run}` exits {code}: {stderr}")
            insist(len(self.book.keys(run, "voided")) == 1, "what was found to have landed cannot be taken back")
        code, _, stderr = foldback.ask("verify", run)
        insist(code == 0, f"`verify {run}` exits {code}: {stderr}")
        code, found, stderr = foldback.ask("audit")
        insist(code == 0, f"`audit` exits {code}: {found} {stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Leaves the binary in doubt of a write in each way there is.")
    parser.add_argument("--foldback", type=Path, default=os.environ.get("FOLDBACK_BIN", ROOT / "target/debug/foldback"))
    parser.add_argument("--only", choices=(*GOES_ON, "cancel", "race"), help="only the ways of this cause")
    parser.add_argument("--forget-keys", action="store_true", help="the server ignores idempotency keys: must fail")
    parser.add_argument("--serve", nargs=2, metavar=("PORT", "BOOK"), help="be the server (what this script starts)")
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(int(arguments.serve[0]), Path(arguments.serve[1]), not arguments.forget_keys)
    arguments.foldback = Path(arguments.foldback).resolve()
    if not arguments.foldback.exists():
        sys.exit(f"doubt test: {arguments.foldback} is missing; `cargo build -p foldback-cli` makes it")
    directory = Path(tempfile.mkdtemp(prefix="foldback-doubt-"))
    began, told = time.monotonic(), []
    ways = [way for way in WAYS if arguments.only in (None, way[0])]
    test = Doubt(arguments, directory)
    try:
        for cause, truth in ways:
            test.play(cause, truth, told)
        # Counted, so that a server that only closed connections would not pass for one that died.
        deaths = sum(cause in DIES for cause, _ in ways)
        insist(test.deaths == deaths, f"the server died {test.deaths} times, not {deaths}")
    except (Failed, subprocess.TimeoutExpired) as failure:
        print(f"doubt test: FAILED at {cause}/{truth}: {failure}", file=sys.stderr)
        if arguments.forget_keys:
            shutil.rmtree(directory)  # as it should
        else:
            print(f"hint: the files are kept in {directory}", file=sys.stderr)
        sys.exit(1)
    finally:
        test.is_open = False
        if test.server:
            test.server.kill()
    shutil.rmtree(directory)
    print(f"doubt test: ok; {len(told)} ways, the server died {test.deaths} times; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
