#!/usr/bin/env python3
"""Kills the real binary while it takes back what a workflow did, resumes it, and proves that the world
ends as if nothing had been killed.

usage: kill_undo_test.py ROUNDS | --kills KILLS [--lanes LANES] [--most MOST] [--seed SEED] [--only KIND]
                         [--foldback BINARY] [--forget-keys]

Each round runs a pipeline of some twenty HTTP writes (a loop, nested lists, branches, a block that takes
back what it did when it fails, a domain event) against a server in this process that counts. Almost every
write has an undo. It is killed with SIGKILL one to MOST times (four), mostly while undos run, and told to
go on each time until it rests. The rounds take turns:

* fails    the workflow fails, and is taken back
* cancel   a person cancels it from a second process while a slow step, or a slow undo of the block, is under way
* hold     it fails and holds (`on_failure: hold`); then a person says `compensate`
* stuck    an undo answers 500: it ends `stuck`; then the server is mended, and a person says `compensate`
* doubt    connections break, with the request applied or not; `reconcile` finds out which it was
* torn     an undo of the block answers 500: the block's failure is the workflow's, which ends `stuck`

Each round asserts, at its end: status and exit codes; every effect and every undo took effect exactly
once, under one idempotency key, and they are those of a run without a kill, as is the world that is left;
undos ran newest first, by the order in which the log armed them; the ledger of `foldback show` is the
truth; `audit` and `verify` find nothing. And at every kill: no step that stood in the log as completed is
asked for again; what the ledger calls `undone` is undone, and what it calls `armed` was not touched; the
server was asked for nothing that the log does not know.

With `--kills` rounds go on until so many kills were done. `--lanes` divides them among processes.
`--only` keeps to rounds of one kind, or of several if it is said again.
Every second round has a database file of its own, the others share one. With `--forget-keys` the
server does not honour idempotency keys: then the test must fail, which shows that it can.
"""

import argparse
import contextlib
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True
from kill_test import PATIENCE, Failed, Foldback, in_lanes, insist, parsed, parser_of  # noqa: E402

KINDS = ["fails", "cancel", "hold", "stuck", "doubt", "torn"]
TORN = "DELETE /car undoing trip/car"
REFUSED = {"GET /broke": 404, "POST /flight": 409, "POST /wrong": 409}
STAYS = {"notify": "irreversible", "log": "kept"}
LATE = re.compile(" /(sorry|step|pay|slow)")
Tasks = list[dict[str, Any]]


def http(name: str, method: str, path: str, body: Any = None, ours: dict[str, Any] | None = None, **more: Any) -> Any:
    """A task that asks the server; `path` may hold jq in `\\(…)`."""
    given = {"method": method, "endpoint": '${ "\\($workflow.input.server)%s" }' % path}
    task = {"call": "http", "with": given | ({"body": body} if body else {}), **more}
    return {name: task | ({"metadata": {"foldback": ours}} if ours else {})}


def write(name: str, method: str, path: str, **ours: Any) -> Any:
    return http(name, method, path, "${ . }", ours)


def undo(name: str, method: str = "delete", path: str = "\\($write.output.path)", **ours: Any) -> Any:
    """A task of an undo. It says whose undo it is, so that the server can tell."""
    return http(name, method, path, {"undoes": "${ $write.key }", "was": "${ $write.input }", "now": "${ . }"}, ours)


def look(path: str) -> dict[str, Any]:
    answer = "${ if .there then {landed: .there} else {didnt: true} end }"
    return {"reconcile": [http("look", "get", f"/look{path}", output={"as": answer})]}


def pipeline(kind: str) -> dict[str, Any]:
    """The definition. What flows is in the bodies, so the world is right only if every answer was."""
    away: Tasks = [undo("away")]
    withdraw = http("withdraw", "post", "/withdraw/\\($event.data.page)", {"undoes": "told!event"})
    told = {"type": "CONTENT_GENERATED", "source": "https://example.com", "data": {"page": 7}}
    refund = undo("refund", "post", "/refund/\\($write.with.n)", attempts=3)
    charge = write("charge", "post", "/charge/\\($n)", undo={"with": {"n": "${ $n }"}, "do": [refund]})
    seat = write("seat", "put", "/seat", undo=[undo("closing", "post", "/closing"), undo("away")])
    room = write("room", "post", "/room", undo=[http("see", "get", "/look/room"), undo("away")])
    branches = [
        {"a": {"do": [write("a1", "post", "/a1", undo=away), write("a2", "put", "/a2", undo=away)]}},
        {"b": {"do": [write("b1", "post", "/b1", undo=away), write("b2", "post", "/b2", undo=away)]}},
        write("c", "post", "/c", undo=away),
    ]
    trip = {
        "try": [write(name, "post", f"/{name}", undo=away) for name in ("hotel", "car", "flight")],
        "catch": {"do": [write("sorry", "post", "/sorry", undo=away)]},
        "metadata": {"foldback": {"compensate": True}},
    }
    tried = {
        "try": [write("step", "post", "/step", undo=away), write("wrong", "post", "/wrong")],
        "catch": {"do": [{"shrug": {"set": {"shrugged": True}}}]},
    }
    # The branch that fails does so while a write is under way in another.
    last = [http("broke", "get", "/broke"), write("late", "post", "/late", undo=away)]
    waits = [write("slow", "post", "/slow", undo=away, recovery=look("/slow")), {"rest": {"wait": {"hours": 1}}}]
    ours = {"recovery": "retry", "on_compensate": {"CONTENT_GENERATED": [withdraw]}}
    ours["on_failure"] = "hold" if kind == "hold" else "compensate"
    return {
        "document": {"dsl": "1.0.3", "namespace": "test", "name": kind, "version": "1.0.0",
                     "metadata": {"foldback": ours}},
        "do": [
            {"brief": {"set": {"from": "the brief"}}},
            write("open", "post", "/open", undo=[undo("close")]),
            write("config", "put", "/config", undo=[undo("restore", "put")]),
            write("notify", "post", "/notify", irreversible="the letter is in the post"),
            write("log", "post", "/log"),
            {"told": {"emit": {"event": {"with": told}}, "output": {"as": "${ .data }"}}},
            {"each": {"for": {"each": "n", "in": "${ [1, 2, 3, 4] }"}, "do": [charge]}},
            {"stay": {"do": [room, {"inner": {"do": [seat]}}]}},
            {"both": {"fork": {"branches": branches}}},
            {"trip": trip},
            {"tried": tried},
            write("pay", "post", "/pay", undo=away, recovery=look("/pay")),
            *(waits if kind == "cancel" else [{"last": {"fork": {"branches": last}}}]),
        ],
    }


@dataclass
class World:
    """What one run asked for, and what it did. A label is METHOD PATH, and for an undo whose it is."""

    faults: dict[str, str] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    applied: Counter[str] = field(default_factory=Counter)
    keys: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    answers: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    things: dict[str, str] = field(default_factory=dict)
    undone: list[str] = field(default_factory=list)
    busy: Counter[str] = field(default_factory=Counter)

    def undos(self) -> int:
        return sum(times for label, times in self.asked.items() if " undoing " in label)

    def apply(self, label: str, path: str, body: str, key: str | None, honours: bool) -> tuple[int, dict[str, Any]]:
        """A write takes effect once for each key, and for each time without."""
        first = self.answers.get(key or "") if honours else None
        if first is not None:
            return (200, first[1]) if first[0] == label + body else (422, {"error": "another request had this key"})
        self.keys[label].add(key or "(none)")
        self.applied[label] += 1
        if label.startswith("DELETE"):
            self.things.pop(path, None)
        else:
            self.things[path] = body
        if " undoing " in label:
            self.undone.append(label.partition(" undoing ")[2])
        answer = {"path": path, "value": zlib.crc32(path.encode()) % 1000 * self.applied[label]}
        if key:
            self.answers[key] = (label + body, answer)
        return 200, answer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    worlds: dict[str, World]
    dice: random.Random
    honours_keys: bool
    changed = threading.Condition()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        run, path = re.fullmatch(r"/([^/]+)(/.*)", self.path).groups()
        world, label = self.worlds[run], label_of(self.command, path, json.loads(body or "null"))
        with self.changed:
            world.asked[label] += 1
            world.busy[path] += 1
            fault = world.faults.get(label)
            if fault and fault != "500":
                del world.faults[label]  # once
            is_slow, fault = (fault or "").startswith("slow"), (fault or "").removeprefix("slow").strip()
            pauses = self.dice.uniform(0, 0.004) + 0.15 * is_slow, self.dice.uniform(0, 0.004)
            self.changed.notify_all()
        # A little time before and after the effect, so that kills land on both sides of it.
        time.sleep(pauses[0])
        try:
            status, answer = self.answer(world, label, path, body, fault)
        finally:
            with self.changed:
                world.busy[path] -= 1
                self.changed.notify_all()
        time.sleep(pauses[1])
        data = json.dumps(answer).encode()
        self.close_connection = fault in ("cut", "cut after")
        if self.close_connection:
            return
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the asker was killed

    do_POST = do_PUT = do_DELETE = do_GET

    def answer(self, world: World, label: str, path: str, body: str, fault: str) -> tuple[int, dict[str, Any]]:
        refused = REFUSED.get(label) or {"500": 500, "503": 503, "cut": 503}.get(fault)
        if refused:
            return refused, {"error": "refused"}
        if self.command == "GET":
            # Who looks is told what will have happened: a request whose asker is dead may still be under way.
            time.sleep(0.01)
            there = path.removeprefix("/look")
            with self.changed:
                self.changed.wait_for(lambda: not world.busy[there], PATIENCE)
                made = [answer for _, answer in world.answers.values() if answer["path"] == there]
                return 200, {"there": made[0] if there in world.things and made else None}
        with self.changed:
            return world.apply(label, path, body, self.headers.get("Idempotency-Key"), self.honours_keys)

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            pass  # likewise

    def log_message(self, format: str, *args: Any) -> None:
        pass


def label_of(method: str, path: str, body: Any) -> str:
    undoes = body.get("undoes") if isinstance(body, dict) else None
    return f"{method} {path}" + (f" undoing {undoes}" if undoes else "")


@dataclass
class Play:
    """One run, as it is driven."""

    kind: str
    run: str
    foldback: Foldback
    world: World
    dice: random.Random
    kills: int = 0
    status: str | None = None
    owner: subprocess.Popen[str] | None = None
    acknowledged: dict[str, int] = field(default_factory=dict)


class UndoKillTest:
    def __init__(self, arguments: argparse.Namespace, directory: Path) -> None:
        self.seed, self.most, self.binary = arguments.seed, arguments.most, arguments.foldback
        self.directory = directory
        Handler.worlds = self.worlds = defaultdict(World)
        Handler.dice, Handler.honours_keys = random.Random(self.seed), not arguments.forget_keys
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{server.server_address[1]}"
        self.figures: Counter[str] = Counter()
        self.undisturbed: dict[str, World] = {}
        self.duration = 0.0
        self.kinds = arguments.only or KINDS
        for kind in KINDS:
            (directory / f"{kind}.json").write_text(json.dumps(pipeline(kind)))

    def play(self, kind: str, run: str, directory: str, kills: int) -> None:
        """A round, from its start to its end."""
        foldback = Foldback(self.binary, self.directory / directory)
        play = Play(kind, run, foldback, self.worlds[run], random.Random(f"{self.seed}/{run}"), kills)
        broken = self.faults(play)
        begin = ["run", str(self.directory / f"{kind}.json"), "--id", run]
        begin += ["--input", json.dumps({"server": f"{self.address}/{run}"})]
        if kind == "cancel":
            self.cancel(play, begin)
        elif kind in ("hold", "stuck", "torn"):
            rests = "failed" if kind == "hold" else "stuck"
            self.follow(play, begin, rests, {None}, play.dice.randint(0, play.kills // 2))
            self.insist_halted(play, broken)
            play.world.faults.pop(broken or "", None)
            self.follow(play, ["compensate", run], "compensated", {rests}, play.kills)
        else:
            self.follow(play, begin, "compensated", {None}, play.kills)
        self.examine(play)

    def faults(self, play: Play) -> str | None:
        """What goes wrong at the server. Returns what does until it is mended."""
        faults, dice = play.world.faults, play.dice
        if play.kind == "torn":
            faults[TORN] = "500"
            return TORN
        if "fails" not in self.undisturbed:
            return None
        labels = list(self.undisturbed["fails"].applied)
        undos = [label for label in labels if " undoing " in label and "/hotel" not in label and "/car" not in label]
        if dice.random() < 0.3:
            faults["POST /refund/2 undoing each[1]/charge"] = "503"
        if play.kind == "cancel":
            faults["POST /slow"] = dice.choice(["slow", "slow cut", "slow cut after"]) if play.kills else "slow"
            faults |= {TORN: "slow"} if play.kills and dice.random() < 0.3 else {}
        if play.kind == "doubt":
            cuts = ["cut", "cut after"] if play.kills else ["cut"]
            faults |= {label: dice.choice(cuts) for label in ["POST /pay", *dice.sample(labels, 4)]}
        if play.kind == "stuck":
            broken = dice.choice(undos)
            faults[broken] = "500"
            return broken
        return None

    def cancel(self, play: Play, begin: list[str]) -> None:
        """A person cancels from a second process, while the first works on a slow step or just died."""
        with (play.foldback.directory / "owner.log").open("a") as log:
            command = [self.binary, "--store", "sqlite:kill.db", "--json", *begin]
            play.owner = subprocess.Popen(command, cwd=play.foldback.directory, stdout=log, stderr=log, text=True)
        try:
            slow = TORN if TORN in play.world.faults else "POST /slow"
            insist(self.comes(play.owner, lambda: play.world.asked[slow] > 0), "the slow step is not asked for")
            if play.kills and play.dice.random() < 0.5:
                self.kill(play, play.owner)
            self.follow(play, ["cancel", play.run], "compensated", {"running", "waiting"}, play.kills)
            code = play.owner.wait(PATIENCE)
            insist(code in (1, -signal.SIGKILL), f"the process whose workflow was cancelled exits {code}")
        finally:
            play.owner.kill()

    @staticmethod
    def comes(process: subprocess.Popen[str], holds: Callable[[], bool]) -> bool:
        """Waits until something holds at the server. False if the process ended before."""
        deadline = time.monotonic() + PATIENCE
        with Handler.changed:
            while not holds():
                insist(time.monotonic() < deadline, "the server waits for a request that does not come")
                if process.poll() is not None:
                    return False
                Handler.changed.wait(0.02)
        return True

    def moment(self, play: Play, process: subprocess.Popen[str], kills: int) -> None:
        """Waits for a moment to kill at, or for the end: mostly just after a request of an undo."""
        dice, world = play.dice, play.world
        chance = dice.random()
        if chance < 0.2:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(dice.uniform(0, self.duration))
            return
        if play.kind == "doubt" and chance < 0.45:
            before = world.asked["POST /pay"] + world.asked["GET /look/pay"]
            self.comes(process, lambda: world.asked["POST /pay"] + world.asked["GET /look/pay"] > before)
        else:
            before = world.undos()
            left = max(self.undisturbed[play.kind].undos() - before, 1)
            ahead = dice.randint(1, max(1, 2 * left // (kills + 1)))
            self.comes(process, lambda: world.undos() >= before + ahead)
        time.sleep(dice.uniform(0, 0.008 if dice.random() < 0.9 else 0.5))

    def kill(self, play: Play, process: subprocess.Popen[str]) -> bool:
        """Whether it was still there to be killed."""
        process.kill()
        if process.wait(PATIENCE) != -signal.SIGKILL:
            return False
        self.figures["kills"] += 1
        return True

    def follow(self, play: Play, command: list[str], rests: str, before: set[str | None], kills: int) -> None:
        """Says `command` where the workflow stands as `before`, goes on where it was killed, until it rests."""
        play.status = self.look(play) if play.owner else play.status
        while play.status != rests:
            says = play.status in before
            # Who says `run` or `compensate` again waits for what is under way.
            on = [["resume", play.run], ["resume"]] + [command] * (command[0] != "cancel")
            words = command if says else play.dice.choice(on)
            self.figures["starts"] += 1
            process = play.foldback.start(*words)
            try:
                self.moment(play, process, kills) if kills else process.wait(PATIENCE)
                killed = self.kill(play, process) if kills else False
            finally:
                process.kill()
            told = f"`foldback {' '.join(words)}` exits {process.returncode}"
            if killed:
                kills -= 1
                if play.owner and play.dice.random() < 0.5:
                    self.kill(play, play.owner)
            play.status = self.look(play, killed)
            if killed or (process.returncode == 2 and play.owner and play.status not in before):
                continue  # what was said before a kill may have been heard
            log = (play.foldback.directory / "stderr.log").read_text()[-2000:]
            insist(play.status == rests, f"{told}, and it is {play.status}, not {rests}\n{play.foldback.output()}{log}")
            codes = {0} if words[0] in ("cancel", "compensate") and rests == "compensated" else {1}
            codes |= {0} if words == ["resume"] and play.owner else set()  # it was over before it began
            insist(process.returncode in codes, f"{told}, not {codes}\n{play.foldback.output()}{log}")

    def steps(self, play: Play) -> dict[str, tuple[str, str]]:
        """The HTTP steps in the log by key: each one's label and status."""
        _, steps, _ = play.foldback.ask("steps", play.run)
        prefix, found = f"{self.address}/{play.run}", {}
        for step in (step for step in steps if step["kind"] == "http"):
            given = step["input"]
            label = label_of(given["method"], given["uri"].removeprefix(prefix), given.get("body"))
            found[step["key"]] = (label, step["status"])
        return found

    def look(self, play: Play, killed: bool = False) -> str | None:
        """The status, after a look at what must hold at every moment."""
        moves_on = play.owner is not None and play.owner.poll() is None
        code, shown, stderr = play.foldback.ask("show", play.run)
        if code == 2 and play.status is None:
            self.figures["kills before the first event"] += 1
            return None
        insist(code == 0, f"`foldback show {play.run}` exits {code}: {stderr}")
        status, effects, world = shown[0]["status"], shown[0]["effects"], play.world
        is_undoing = any(effect["standing"] == "undoing" for effect in effects)
        self.figures["kills while compensating"] += killed and (status == "compensating" or is_undoing)
        steps = self.steps(play)
        for label, is_at in steps.values():
            if is_at == "completed":
                play.acknowledged.setdefault(label, world.asked[label])
        if moves_on:
            return status
        unknown = set(world.asked) - {label for label, _ in steps.values()}
        insist(not unknown, f"asked for, but not in the log: {unknown}")
        whole = self.undisturbed.get(play.kind, world)
        for effect in effects:
            key, standing = effect["key"], effect["standing"]
            labels = [label for label in whole.applied if label.endswith(f" undoing {key}")]
            if standing == "undone":
                missed = [label for label in labels if not world.applied[label]]
                insist(not missed, f"{key} is undone by the ledger, and was not: {missed}")
            elif standing != "undoing" and standing != "stuck":
                touched = [label for label in labels if world.asked[label]]
                insist(not touched, f"{key} is {standing} by the ledger, and was touched: {touched}")
        armed = [effect for effect in effects if effect["standing"] in ("armed", "undoing", "stuck")]
        chain = [effect["key"] for effect in sorted(armed, key=lambda effect: -effect["armed"])]
        _, state, _ = play.foldback.ask("state", play.run)
        listed = [undo["key"] for undo in state[0]["undos"]]
        insist(chain == listed, f"`show` and `state` differ in what can be taken back: {chain} and {listed}")
        return status

    def insist_halted(self, play: Play, broken: str | None) -> None:
        """Held: all that can be taken back is armed. Stuck: what is newer is undone, what is older is armed."""
        _, shown, _ = play.foldback.ask("show", play.run)
        effects = sorted((effect for effect in shown[0]["effects"] if "armed" in effect), key=lambda e: -e["armed"])
        in_block = ("trip/hotel", "trip/car") if play.kind != "torn" else ()
        told = " ".join(f"{e['key']}:{e['standing']}" for e in effects if e["key"] not in in_block)
        key = re.escape((broken or "").rpartition(" ")[2])
        fits = rf"(\S+:undone ?)*{key}:stuck( \S+:armed)*" if broken else r"(\S+:armed ?)+"
        insist(re.fullmatch(fits, told) is not None, f"halted at {broken}, the ledger says {told}")
        insist(not play.world.applied[broken or ""], "what answers 500 takes no effect")

    def order(self, play: Play) -> list[str]:
        """What was taken back, in its order: at each beginning the newest that was armed there."""
        _, events, _ = play.foldback.ask("events", play.run)
        armed, undone = [], []
        for event in events:
            key, scope = event["payload"].get("key"), event["payload"].get("scope", "")
            if event["type"] == "UndoArmed":
                armed.append(key)
            elif event["type"] == "UndoStarted":
                newest = [known for known in armed if known.startswith(scope)][-1:]
                insist(newest == [key], f"{key} is taken back at version {event['version']}, before {newest}")
            elif event["type"] == "UndoCompleted":
                armed.remove(key)
                undone.append(key)
        insist(not armed, f"armed, and not taken back: {armed}")
        return undone

    def examine(self, play: Play) -> None:
        world, expected = play.world, self.undisturbed.setdefault(play.kind, play.world)
        doubled = {label: times for label, times in world.applied.items() if times != 1}
        insist(not doubled, f"writes took effect more than once: {doubled}")
        odd = {label: used for label, used in world.keys.items() if len(used) != 1 or "(none)" in used}
        insist(not odd, f"effects without a key, or with more than one: {odd}")
        again = [label for label, before in play.acknowledged.items() if world.asked[label] != before]
        insist(not again, f"acknowledged steps were asked for again: {again}")
        missing, more = set(expected.applied) - set(world.applied), set(world.applied) - set(expected.applied)
        if play.kind == "cancel":
            # What it was cancelled before did not happen: neither the effect nor its undo.
            never = {path[0] for path in map(LATE.search, missing) if path}
            more |= {label for label in world.applied for path in never if path in label}
            missing = {label for label in missing if not LATE.search(label)}
        insist(not missing | more, f"without a kill {missing} took effect, and {more} did not")
        differ = {thing for thing, _ in set(world.things.items()) ^ set(expected.things.items())}
        insist(not differ, f"the world left differs from that of a run without a kill: {differ}")
        undone = list(dict.fromkeys(world.undone))
        insist(undone == self.order(play), f"taken back at the server in another order than in the log: {undone}")

        _, shown, _ = play.foldback.ask("show", play.run)
        ledger = [(effect["key"], effect["standing"]) for effect in shown[0]["effects"]]
        done = [key for key, (label, _) in self.steps(play).items() if world.applied[label] and "!undo/" not in key]
        truth = {key: "undone" if key in undone else STAYS.get(key, "armed") for key in ["told!event", *done]}
        insist(sorted(ledger) == sorted(truth.items()), f"the ledger says {ledger}, true is {truth}")
        _, listed, _ = play.foldback.ask("list", "--limit", "0")
        status = [row["status"] for row in listed if row["workflow_id"] == play.run]
        insist(status == ["compensated"], f"`foldback list` says {status}")
        code, found, stderr = play.foldback.ask("verify", play.run)
        insist(code == 0 and found[0]["matched"], f"`foldback verify {play.run}` exits {code}: {found} {stderr}")
        self.audit(play.foldback, play.run)
        self.figures["requests"] += sum(world.asked.values())
        self.figures["undos"] += len(undone)

    @staticmethod
    def audit(foldback: Foldback, *runs: str) -> None:
        code, found, stderr = foldback.ask("audit", *runs)
        insist(code == 0 and found[0]["problems"] == [], f"`foldback audit` exits {code}: {found} {stderr}")

    def without_a_kill(self) -> None:
        """Each kind once, not killed: what the others are compared to."""
        for kind in dict.fromkeys(["fails", *self.kinds]):
            began = time.monotonic()
            self.play(kind, f"whole-{kind}", "whole", 0)
            if kind == "fails":
                self.duration = time.monotonic() - began
            elif kind in ("hold", "stuck", "doubt"):
                is_alike = self.undisturbed[kind].things == self.undisturbed["fails"].things
                insist(is_alike, f"{kind} leaves another world")
        undone = {kind: len(set(world.undone)) for kind, world in self.undisturbed.items()}
        print(f"without a kill: taken back {json.dumps(undone)}, {self.duration:.2f} s", flush=True)
        self.figures.clear()


def main() -> None:
    parser = parser_of("Kills the binary while it takes back, and resumes it.")
    parser.add_argument("--only", action="append", choices=KINDS, help="only rounds of this kind")
    arguments = parsed(parser, "kill undo test")
    if arguments.lanes > 1:
        only = [word for kind in arguments.only or [] for word in ("--only", kind)]
        in_lanes(arguments, __file__, "kill undo test", only)
    directory = Path(tempfile.mkdtemp(prefix="foldback-kill-undo-"))
    bound = f"{arguments.rounds} rounds" if arguments.kills is None else f"{arguments.kills} kills"
    print(f"kill undo test: {bound}, seed {arguments.seed}", flush=True)
    began, number, kind = time.monotonic(), 0, "without a kill"
    test = UndoKillTest(arguments, directory)
    try:
        test.without_a_kill()
        while (test.figures["kills"] < arguments.kills) if arguments.kills else (number < arguments.rounds):
            kind, number = test.kinds[number % len(test.kinds)], number + 1
            run = f"round-{number}"
            kills = random.Random(f"{arguments.seed}/{number}").randint(1, arguments.most)
            # The kinds take turns, and each has both: of two of its rounds one shares a file.
            own = (number // len(test.kinds) + number) % 2
            test.play(kind, run, run if own else "shared", kills)
            if own:
                shutil.rmtree(directory / run)
            if number % 10 == 0:
                print(f"  {number} rounds, {test.figures['kills']} kills, {time.monotonic() - began:.0f} s", flush=True)
        if number > 1:
            test.audit(Foldback(arguments.foldback, directory / "shared"))
    except (Failed, subprocess.TimeoutExpired) as failure:
        print(f"kill undo test: FAILED in round {number} ({kind}): {failure}", file=sys.stderr)
        if arguments.forget_keys:
            shutil.rmtree(directory)  # as it should
        else:
            asked = arguments.rounds if arguments.kills is None else f"--kills {arguments.kills}"
            again = f"scripts/kill_undo_test.py {asked} --most {arguments.most} --seed {arguments.seed}"
            again += "".join(f" --only {kind}" for kind in arguments.only or [])
            print(f"hint: again with `{again}`; the files are kept in {directory}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(directory)
    figures = ", ".join(f"{count} {name}" for name, count in test.figures.items())
    print(f"kill undo test: ok; {number} rounds, {figures}")


if __name__ == "__main__":
    main()
