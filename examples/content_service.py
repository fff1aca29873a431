#!/usr/bin/env python3
"""A small content service. It stands in for a CMS, so that the examples have something to change.

It keeps articles and announcements in one SQLite file:

    POST   /articles          {"title": …, "body": …}          -> 201, the article with its id
    GET    /articles                                           -> all articles
    GET    /articles/ID                                        -> one article, or 404
    DELETE /articles/ID                                        -> 200, or 404
    POST   /announcements     {"article": ID, "text": …}       -> 201, the announcement with its id
    GET    /effects                                            -> every change ever made, for proofs

Every change honours the header `Idempotency-Key`: the same key with the same request gets the first
answer again, marked `Idempotent-Replay: true`, and changes nothing; the same key with another
request is refused with 422. The change and its key are one transaction, which is on disk before the
answer is sent. `/effects` lists each change with its key and how often it was asked for.

usage: content_service.py [--port PORT] [--db FILE]

With `--port 0` it picks a free port. The first line on stdout is the port.
"""

import argparse
import hashlib
import json
import re
import sqlite3
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS articles (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, body TEXT);
CREATE TABLE IF NOT EXISTS announcements (id INTEGER PRIMARY KEY AUTOINCREMENT, article INTEGER, text TEXT);
CREATE TABLE IF NOT EXISTS effects (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    key     TEXT UNIQUE,            -- null where the request brought none
    request TEXT NOT NULL,          -- method and path
    digest  TEXT NOT NULL,          -- of method, path and body
    status  INTEGER NOT NULL,
    answer  TEXT NOT NULL,
    asked   INTEGER NOT NULL        -- how often; the change was made once
);
"""


class Refused(Exception):
    """A request that is answered with an error, and changes nothing."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Content:
    """The articles, the announcements, and what was done under which key."""

    def __init__(self, path: str) -> None:
        self.lock = threading.Lock()
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.executescript(SCHEMA)

    def read(self, path: str) -> Any:
        with self.lock:
            if path == "/articles":
                return [dict(row) for row in self.db.execute("SELECT * FROM articles ORDER BY id")]
            if path == "/effects":
                rows = self.db.execute("SELECT key, request, status, answer, asked FROM effects ORDER BY id")
                return [dict(row) | {"answer": json.loads(row["answer"])} for row in rows]
            if match := re.fullmatch(r"/articles/(\d+)", path):
                return self.article(int(match[1]))
        raise Refused(404, f"nothing is at {path}")

    def change(self, method: str, path: str, body: bytes, key: str | None) -> tuple[int, Any, bool]:
        """Makes a change, or gives the first answer again: (status, answer, whether again)."""
        request = f"{method} {path}"
        digest = hashlib.sha256(request.encode() + b"\n" + body).hexdigest()
        with self.lock, self.db:
            self.db.execute("BEGIN IMMEDIATE")
            first = self.db.execute("SELECT * FROM effects WHERE key = ?", (key,)).fetchone()
            if first is not None:
                if first["digest"] != digest:
                    raise Refused(422, "this Idempotency-Key was used for another request")
                self.db.execute("UPDATE effects SET asked = asked + 1 WHERE id = ?", (first["id"],))
                return first["status"], json.loads(first["answer"]), True
            status, answer = self.perform(method, path, body)
            self.db.execute(
                "INSERT INTO effects (key, request, digest, status, answer, asked) VALUES (?, ?, ?, ?, ?, 1)",
                (key, request, digest, status, json.dumps(answer)),
            )
            return status, answer, False

    def perform(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if method == "DELETE" and (match := re.fullmatch(r"/articles/(\d+)", path)):
            gone = self.article(int(match[1]))
            self.db.execute("DELETE FROM articles WHERE id = ?", (gone["id"],))
            return 200, gone
        if method == "POST" and path == "/articles":
            given = fields(body, title=str, body=str)
            row = self.db.execute("INSERT INTO articles (title, body) VALUES (:title, :body)", given)
            return 201, {"id": row.lastrowid, "path": f"/articles/{row.lastrowid}"} | given
        if method == "POST" and path == "/announcements":
            given = fields(body, article=int, text=str)
            self.article(given["article"])
            row = self.db.execute("INSERT INTO announcements (article, text) VALUES (:article, :text)", given)
            return 201, {"id": row.lastrowid} | given
        raise Refused(404, f"nothing takes {method} at {path}")

    def article(self, number: int) -> dict[str, Any]:
        row = self.db.execute("SELECT * FROM articles WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise Refused(404, f"there is no article {number}")
        return dict(row)


def fields(data: bytes, /, **wanted: type) -> dict[str, Any]:
    """The wanted fields of a JSON object, each of its type."""
    try:
        given = json.loads(data)
    except ValueError as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    for name, kind in wanted.items():
        if not isinstance(given, dict) or not isinstance(given.get(name), kind):
            raise Refused(400, f"`{name}` is missing or is no {kind.__name__}")
    return {name: given[name] for name in wanted}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    content: Content

    def do_GET(self) -> None:
        self.respond(lambda _: (200, self.content.read(self.path), False))

    def do_POST(self) -> None:
        key = self.headers.get("Idempotency-Key")
        self.respond(lambda body: self.content.change(self.command, self.path, body, key))

    do_DELETE = do_PUT = do_PATCH = do_POST

    def respond(self, act: Any) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        again = False
        try:
            status, answer, again = act(body)
        except Refused as refused:
            status, answer = refused.status, {"error": str(refused)}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if again:
            self.send_header("Idempotent-Replay", "true")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        print(f"content service: {format % args}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A content service that stands in for a CMS.")
    parser.add_argument("--port", type=int, default=8085, help="0 picks a free one (default: 8085)")
    parser.add_argument("--db", default="content.db", help="the SQLite file (default: content.db)")
    args = parser.parse_args()
    Handler.content = Content(args.db)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    except OSError as error:
        sys.exit(f"content service: port {args.port}: {error.strerror}; choose another with --port")
    port = server.server_address[1]
    print(port, flush=True)
    print(f"content service: stands in for a CMS, on http://127.0.0.1:{port}, file {args.db}", file=sys.stderr)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
