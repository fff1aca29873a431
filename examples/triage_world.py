#!/usr/bin/env python3
"""What examples/triage.yaml changes. It stands in for a payment provider and for a mail gateway.

    POST /refunds                      {"order": …, "amount": CENTS}  -> 201, the refund with its id
    GET  /refunds?idempotency_key=KEY                                 -> the refunds made under that key
    POST /refunds/ID/void                                             -> 200, or 404, or 409 if it is void
    POST /mails                        {"to": …, "text": …}           -> 202, the mail with its id
    GET  /books                                                       -> all refunds and all mails

Whoever wants to POST brings an `Idempotency-Key`: the same key with the same request gets the first
answer again and changes nothing, with another request it is refused with 422. The payment provider
wants a bearer token as well, any at all. The books are kept in memory.

usage: triage_world.py [--port PORT]

With `--port 0` it picks a free port. The first line on stdout is the port.
"""

import argparse
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, dict[str, Any]]


class Refused(Exception):
    """A request that is answered with an error, and changes nothing."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Cut(Exception):
    """The connection breaks here."""


@dataclass
class World:
    """The books, and what was done under which key."""

    honours_keys: bool = True
    refunds: list[dict[str, Any]] = field(default_factory=list)
    mails: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    answers: dict[str, tuple[str, Answer]] = field(default_factory=dict)
    # A test's hand in the game: told of each request before and after its effect, it may raise
    # `Refused`, raise `Cut`, or take its time.
    before: Callable[[str], None] = lambda request: None
    after: Callable[[str], None] = lambda request: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def handle(self, request: str, key: str, has_token: bool, body: bytes) -> Answer:
        with self.lock:
            self.asked.append(request)
        self.before(request)
        if "/refunds" in request and not has_token:
            raise Refused(401, "who asks? a bearer token is missing")
        with self.lock:
            answer = self.look(request) if request.startswith("GET ") else self.once(request, key, body)
        self.after(request)
        return answer

    def look(self, request: str) -> Answer:
        url = urlsplit(request.removeprefix("GET "))
        if url.path == "/books":
            return 200, {"refunds": self.refunds, "mails": self.mails}
        if url.path == "/refunds":
            [key] = parse_qs(url.query)["idempotency_key"]
            asked, (_, made) = self.answers.get(key, ("", (200, {})))
            return 200, {"refunds": [made] if asked.startswith("POST /refunds\n") else []}
        raise Refused(404, f"nothing is at {url.path}")

    def once(self, request: str, key: str, body: bytes) -> Answer:
        if not key:
            raise Refused(400, "an Idempotency-Key is missing")
        digest = f"{request}\n{body.decode()}"
        first = self.answers.get(key)
        if first is not None:
            if first[0] != digest:
                raise Refused(422, "this Idempotency-Key was used for another request")
            return first[1]
        answer = self.perform(request, json.loads(body or "{}"))
        if self.honours_keys:
            self.answers[key] = (digest, answer)
        return answer

    def perform(self, request: str, given: dict[str, Any]) -> Answer:
        if request == "POST /refunds":
            refund = {"id": f"R-{len(self.refunds) + 1}", "order": given["order"], "amount": given["amount"]}
            self.refunds.append(refund | {"void": False})
            return 201, refund
        if match := re.fullmatch(r"POST /refunds/(R-\d+)/void", request):
            found = [made for made in self.refunds if made["id"] == match[1]]
            if not found or found[0]["void"]:
                raise Refused(409 if found else 404, f"there is no {match[1]}, or it is void")
            found[0]["void"] = True
            return 200, dict(found[0])
        if request == "POST /mails":
            self.mails.append({"id": f"M-{len(self.mails) + 1}", "to": given["to"], "text": given["text"]})
            return 202, self.mails[-1]
        raise Refused(404, f"nothing takes {request}")


def serve(world: World, port: int = 0) -> ThreadingHTTPServer:
    """The world on loopback; the caller serves."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            has_token = (self.headers.get("Authorization") or "").startswith("Bearer ")
            key = self.headers.get("Idempotency-Key") or ""
            try:
                status, answer = world.handle(f"{self.command} {self.path}", key, has_token, body)
            except Refused as refused:
                status, answer = refused.status, {"error": str(refused)}
            except (ValueError, KeyError) as error:
                status, answer = 400, {"error": f"this is not what is wanted: {error}"}
            except Cut:
                self.close_connection = True
                return
            data = json.dumps(answer).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                self.close_connection = True  # the asker is gone

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


def main() -> None:
    parser = argparse.ArgumentParser(description="Stands in for a payment provider and a mail gateway.")
    parser.add_argument("--port", type=int, default=8086, help="0 picks a free one (default: 8086)")
    server = serve(World(), parser.parse_args().port)
    print(server.server_address[1], flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
