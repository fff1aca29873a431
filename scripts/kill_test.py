#!/usr/bin/env python3
"""Kills the real binary at random moments, resumes it, and proves that nothing was lost or done twice.

usage: kill_test.py ROUNDS | --kills KILLS [--lanes LANES] [--most MOST] [--seed SEED] [--foldback BINARY] [--forget-keys]

Each round runs examples/fifty.yaml (fifty HTTP steps: GET, POST and PUT, branches, a loop, a fork)
against a server in this process that counts. It is killed with SIGKILL one to MOST times (four), at random
moments of the first run and of the resumes, and then resumed until it ends. Each round asserts:

* the run ends `completed`, with the output of a run that was never interrupted;
* no step that stood in the log as completed at a kill was asked for again afterwards;
* every write came with one idempotency key, and took effect exactly once;
* `foldback steps` lists all fifty steps as completed, and `foldback audit` finds no problem.

With `--kills` rounds go on until so many kills were done. `--lanes` divides them among processes,
each with a server, a directory and a seed of its own; all must pass.

Every second round has a database file of its own, the others share one. With `--forget-keys` the
server does not honour idempotency keys: then the test must fail, which shows that it can.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PIPELINE = ROOT / "examples" / "fifty.yaml"
STEPS = 50
# Far above what a command takes here: past it something hangs, which is a failure of its own.
PATIENCE = 120


class Failed(Exception):
    """An assertion of the test did not hold."""


def insist(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)


class Ledger:
    """What the server was asked for, and what took effect, by run."""

    def __init__(self, honours_keys: bool, dice: random.Random) -> None:
        self.lock = threading.Lock()
        self.honours_keys = honours_keys
        self.dice = dice
        self.asked: dict[str, Counter[str]] = defaultdict(Counter)
        self.applied: dict[str, Counter[str]] = defaultdict(Counter)
        self.keys: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.answers: dict[str, tuple[str, dict[str, Any]]] = {}

    def pause(self) -> float:
        with self.lock:
            return self.dice.uniform(0, 0.004)

    def ask(self, run: str, path: str) -> None:
        with self.lock:
            self.asked[run][path] += 1

    def answer(self, run: str, method: str, path: str, key: str | None, body: str) -> tuple[int, dict[str, Any]]:
        """Applies a request. A write takes effect once for each key, and for each time without."""
        value = zlib.crc32(path.encode()) % 1000
        if method == "GET":
            return 200, {"value": value}
        with self.lock:
            first = self.answers.get(key) if key and self.honours_keys else None
            if first is not None:
                return (200, first[1]) if first[0] == path + body else (422, {"error": "another request had this key"})
            self.keys[run][path].add(key or "(none)")
            self.applied[run][path] += 1
            # A second effect changes the answer, so that it shows in the output as well.
            answer = {"value": value * self.applied[run][path]}
            if key:
                self.answers[key] = (path + body, answer)
            return 200, answer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    ledger: Ledger

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        run, path = re.fullmatch(r"/([^/]+)(/.*)", self.path).groups()
        self.ledger.ask(run, path)
        # A little time before and after the effect, so that kills land on both sides of it.
        time.sleep(self.ledger.pause())
        status, answer = self.ledger.answer(run, self.command, path, self.headers.get("Idempotency-Key"), body)
        time.sleep(self.ledger.pause())
        data = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the asker was killed

    do_POST = do_PUT = do_GET

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            pass  # likewise

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Foldback:
    """The binary on one database file."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self.binary = binary
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        with (self.directory / "stderr.log").open("a") as log, (self.directory / "stdout.json").open("w") as out:
            return subprocess.Popen(
                [self.binary, "--store", "sqlite:kill.db", "--json", *arguments],
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=out, stderr=log, text=True,
            )

    def output(self) -> str:
        return (self.directory / "stdout.json").read_text()

    def ask(self, *arguments: str) -> tuple[int, list[Any], str]:
        """Exit code, the JSON lines of stdout, and stderr."""
        done = subprocess.run(
            [self.binary, "--store", "sqlite:kill.db", "--json", *arguments],
            cwd=self.directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
        )
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def wait(process: subprocess.Popen[str], seconds: float) -> int | None:
    """The exit code, or None if it still runs after so many seconds."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


class KillTest:
    def __init__(self, arguments: argparse.Namespace, directory: Path) -> None:
        self.seed = arguments.seed
        self.binary = arguments.foldback
        self.most = arguments.most
        self.directory = directory
        Handler.ledger = self.ledger = Ledger(not arguments.forget_keys, random.Random(self.seed))
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{server.server_address[1]}"
        self.figures: Counter[str] = Counter()
        self.expected: Any = None
        self.startup = self.duration = 0.0

    def begin(self, run: str) -> list[str]:
        given = json.dumps({"server": f"{self.address}/{run}"})
        return ["run", str(PIPELINE), "--id", run, "--input", given]

    def undisturbed(self) -> None:
        """One run without a kill: how long it takes, and what it should end with."""
        foldback = Foldback(self.binary, self.directory / "undisturbed")
        began = time.monotonic()
        subprocess.run([self.binary, "--version"], stdout=subprocess.DEVNULL, check=True)
        self.startup = time.monotonic() - began
        began = time.monotonic()
        process = foldback.start(*self.begin("undisturbed"))
        try:
            code = wait(process, PATIENCE)
        finally:
            process.kill()
        self.duration = time.monotonic() - began
        log = (foldback.directory / "stderr.log").read_text()
        insist(code == 0, f"the run without a kill exits {code}\n{foldback.output()}{log}")
        self.expected = json.loads(foldback.output().splitlines()[-1])["output"]
        self.examine(foldback, "undisturbed", {})
        insist(sum(self.ledger.asked["undisturbed"].values()) == STEPS, "an undisturbed run asks each step once")
        print(f"undisturbed: {STEPS} steps in {self.duration:.2f} s, output {json.dumps(self.expected)}", flush=True)

    def round(self, number: int) -> None:
        dice = random.Random(f"{self.seed}/{number}")
        run = f"round-{number}"
        foldback = Foldback(self.binary, self.directory / (run if number % 2 else "shared"))
        acknowledged: dict[str, int] = {}
        kills = dice.randint(1, self.most)
        exists, share_left = False, 1.0
        while True:
            if not exists:
                command = self.begin(run)
            else:
                # Three ways to go on, and all must be right.
                command = dice.choice([["resume", run], ["resume"], self.begin(run)])
            self.figures["starts"] += 1
            process = foldback.start(*command)
            try:
                # All of what is left but its very end, so that most kills find something to kill.
                longest = 0.9 * (self.startup + (self.duration - self.startup) * share_left)
                code = wait(process, dice.uniform(0, longest) if kills else PATIENCE)
            finally:
                process.kill()
            if code is not None:
                break
            process.wait()
            insist(kills > 0, f"`foldback {' '.join(command)}` hangs")
            kills -= 1
            self.figures["kills"] += 1
            code, steps, stderr = self.steps(foldback, run)
            if code == 2 and not exists:
                self.figures["kills before the first event"] += 1
                continue
            insist(code == 0, f"`foldback steps {run}` exits {code}: {stderr}")
            exists = True
            done = [self.path_of(step) for step in steps if step["status"] == "completed"]
            share_left = 1 - len(done) / STEPS
            for path in done:
                acknowledged.setdefault(path, self.ledger.asked[run][path])
            if any(step["status"] == "running" for step in steps):
                self.figures["kills with a step in flight"] += 1
        log = (foldback.directory / "stderr.log").read_text()
        insist(code == 0, f"`foldback {' '.join(command)}` exits {code}\n{foldback.output()}{log[-2000:]}")
        self.figures["steps acknowledged at a kill"] += len(acknowledged)
        self.examine(foldback, run, acknowledged)

    @staticmethod
    def steps(foldback: Foldback, run: str) -> tuple[int, list[Any], str]:
        """The HTTP steps of a run, as the log has them."""
        code, steps, stderr = foldback.ask("steps", run)
        return code, [step for step in steps if step["kind"] == "http"], stderr

    def path_of(self, step: dict[str, Any]) -> str:
        """The path a step asked for: the one thing in its input that names our server."""
        found = re.search(re.escape(self.address) + r"/[^/\"]+(/[^\"]+)", json.dumps(step["input"]))
        insist(found is not None, f"no address of the server in the input of step {step['key']}: {step['input']}")
        return found[1]

    def examine(self, foldback: Foldback, run: str, acknowledged: dict[str, int]) -> None:
        _, found, _ = foldback.ask("state", run)
        state = found[0]
        insist(state["status"] == "completed", f"the run is {state['status']}")

        asked, applied, keys = self.ledger.asked[run], self.ledger.applied[run], self.ledger.keys[run]
        again = [path for path, before in acknowledged.items() if asked[path] != before]
        insist(not again, f"acknowledged steps were asked for again: {again}")
        doubled = {path: times for path, times in applied.items() if times != 1}
        insist(not doubled, f"writes took effect more than once: {doubled}")
        odd = {path: sorted(used) for path, used in keys.items() if len(used) != 1 or "(none)" in used}
        insist(not odd, f"writes without a key, or with more than one: {odd}")
        insist(state["output"] == self.expected, f"output {state['output']}, undisturbed it is {self.expected}")

        _, steps, _ = self.steps(foldback, run)
        left = [f"{step['key']} {step['status']}" for step in steps if step["status"] != "completed"]
        insist(not left, f"steps that did not complete: {left}")
        paths = {self.path_of(step) for step in steps}
        insist(len(steps) == STEPS, f"{len(steps)} steps in the log")
        insist(paths == set(asked), f"steps in the log and at the server differ: {paths ^ set(asked)}")
        self.audit(foldback, run)
        self.figures["requests"] += sum(asked.values())
        self.figures["writes"] += len(applied)

    def audit(self, foldback: Foldback, *runs: str) -> None:
        code, found, stderr = foldback.ask("audit", *runs)
        insist(code == 0 and found[0]["problems"] == [], f"`foldback audit` exits {code}: {found} {stderr}")


def in_lanes(arguments: argparse.Namespace, script: str, name: str, more: list[str]) -> None:
    """The kills divided among processes of a script. Exits 1 if one of them fails."""
    began = time.monotonic()
    running = []
    for lane in range(arguments.lanes):
        share = (arguments.kills + lane) // arguments.lanes
        command = [sys.executable, script, "--kills", str(share), "--most", str(arguments.most),
                   "--seed", str(arguments.seed + lane), "--foldback", str(arguments.foldback), *more]
        running.append(subprocess.Popen(command + ["--forget-keys"] * arguments.forget_keys))
    failed = any([process.wait() != 0 for process in running])
    outcome = "FAILED in a lane" if failed else f"ok in all {arguments.lanes} lanes"
    print(f"{name}: {outcome}; {time.monotonic() - began:.0f} s", flush=True)
    sys.exit(1 if failed else 0)


def parser_of(description: str) -> argparse.ArgumentParser:
    """What every test that kills is told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("rounds", type=int, nargs="?", help="this many rounds")
    parser.add_argument("--kills", type=int, help="as many rounds as it takes for so many kills")
    parser.add_argument("--lanes", type=int, default=1, help="divide the kills among so many processes")
    parser.add_argument("--most", type=int, default=4, help="kills in a round at most")
    parser.add_argument("--seed", type=int, default=None, help="repeats the choices of an earlier run")
    parser.add_argument("--foldback", type=Path, default=os.environ.get("FOLDBACK_BIN", ROOT / "target/debug/foldback"))
    parser.add_argument("--forget-keys", action="store_true", help="the server ignores idempotency keys: must fail")
    return parser


def parsed(parser: argparse.ArgumentParser, name: str) -> argparse.Namespace:
    """Judges what it was told."""
    arguments = parser.parse_args()
    if (arguments.rounds is None) == (arguments.kills is None):
        parser.error("give ROUNDS or --kills")
    least = min(arguments.most, arguments.lanes, arguments.rounds or 1)
    if least < 1 or (arguments.kills is not None and arguments.kills < arguments.lanes):
        parser.error("ROUNDS, --lanes and --most are 1 or more, and --kills is at least --lanes")
    if arguments.lanes > 1 and arguments.kills is None:
        parser.error("--lanes divides --kills")
    arguments.foldback = Path(arguments.foldback).resolve()
    if arguments.seed is None:
        arguments.seed = int.from_bytes(os.urandom(4), "big")
    if not arguments.foldback.exists():
        sys.exit(f"{name}: {arguments.foldback} is missing; `cargo build -p foldback-cli` makes it")
    return arguments


def main() -> None:
    arguments = parsed(parser_of("Kills the binary at random moments and resumes it."), "kill test")
    if arguments.lanes > 1:
        in_lanes(arguments, __file__, "kill test", [])
    directory = Path(tempfile.mkdtemp(prefix="foldback-kill-"))
    bound = f"{arguments.rounds} rounds" if arguments.kills is None else f"{arguments.kills} kills"
    print(f"kill test: {bound}, seed {arguments.seed}", flush=True)
    began, number = time.monotonic(), 0
    test = KillTest(arguments, directory)
    try:
        test.undisturbed()
        while (test.figures["kills"] < arguments.kills) if arguments.kills else (number < arguments.rounds):
            number += 1
            test.round(number)
            if number % 2:
                shutil.rmtree(directory / f"round-{number}")
            if number % 5 == 0:
                print(f"  {number} rounds, {test.figures['kills']} kills, {time.monotonic() - began:.0f} s", flush=True)
        if number > 1:
            test.audit(Foldback(arguments.foldback, directory / "shared"))
    except (Failed, subprocess.TimeoutExpired) as failure:
        print(f"kill test: FAILED in round {number}: {failure}", file=sys.stderr)
        if arguments.forget_keys:
            shutil.rmtree(directory)  # as it should
        else:
            asked = arguments.rounds if arguments.kills is None else f"--kills {arguments.kills}"
            again = f"scripts/kill_test.py {asked} --most {arguments.most} --seed {arguments.seed}"
            print(f"hint: again with `{again}`; the files are kept in {directory}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(directory)
    print("kill test: ok; " + ", ".join(f"{count} {name}" for name, count in test.figures.items()))


if __name__ == "__main__":
    main()
