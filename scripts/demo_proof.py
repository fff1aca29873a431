#!/usr/bin/env python3
"""What the demo must know exactly: when to kill, and whether a finished step ran again.

usage: demo_proof.py wait   FOLDBACK DIR PID FINISHED UNDER_WAY
                            returns when the one step is finished and the other is under way
       demo_proof.py before FOLDBACK DIR          notes what is finished, after the kill
       demo_proof.py after  FOLDBACK DIR SERVICE  compares; exits 1 if something ran again
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

WORKFLOW = "article-1"


def events(binary: str, directory: Path) -> list[dict[str, Any]]:
    """The log of the workflow; empty while there is none."""
    done = subprocess.run(
        [binary, "--store", f"sqlite:{directory}/demo.db", "--json", "events", WORKFLOW],
        capture_output=True, text=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()] if done.returncode == 0 else []


def of_type(log: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in log if event["type"] == kind]


def attempts(log: list[dict[str, Any]]) -> list[str]:
    """The key of each attempt: the first one may start with the question itself."""
    first = [e["payload"]["key"] for e in of_type(log, "StepAsked") if e["payload"].get("starts")]
    return first + [e["payload"]["key"] for e in of_type(log, "AttemptStarted")]


def questions_at_model(directory: Path) -> int | None:
    """How many questions our own model server has begun; None where it is another's server."""
    logs = list(directory.glob("model/server-*.log"))
    if not logs:
        return None
    newest = max(logs, key=lambda path: path.stat().st_mtime)
    return newest.read_text(errors="replace").count("processing task")


def effects(service: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{service}/effects", timeout=10) as answer:
        return json.load(answer)


def finished(log: list[dict[str, Any]]) -> dict[str, int]:
    """The finished steps, each with the version of its completion."""
    return {e["payload"]["key"]: e["version"] for e in of_type(log, "StepCompleted")}


def cut_off(log: list[dict[str, Any]]) -> list[str]:
    """The steps that were begun and not finished."""
    return [key for key in attempts(log) if key not in finished(log)]


def wait(binary: str, directory: Path, pid: int, first: str, then: str) -> None:
    """Returns when the step `first` is finished and `then` is under way."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        log = events(binary, directory)
        if first in finished(log) and then in cut_off(log):
            time.sleep(0.2)  # let the model say some words first
            return
        if then in finished(log):
            sys.exit(f"demo: {then} was finished before it could be cut off; try again")
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            sys.exit("demo: the run ended early; its last words are above")
        time.sleep(0.05)
    sys.exit(f"demo: {then} did not begin within five minutes")


def before(binary: str, directory: Path) -> None:
    log = events(binary, directory)
    (directory / "before.json").write_text(json.dumps(log))
    print(f"  {len(log)} events; finished: {', '.join(finished(log))}; with the model at the kill: {', '.join(cut_off(log))}")


def after(binary: str, directory: Path, service: str) -> None:
    old, new = json.loads((directory / "before.json").read_text()), events(binary, directory)
    wrong: list[str] = []

    def check(holds: bool, what: str) -> None:
        print(f"  {'yes' if holds else 'NO '}  {what}")
        if not holds:
            wrong.append(what)

    kept = new[: len(old)] == old
    check(kept, f"the first {len(old)} events are the same, hash by hash; {len(new) - len(old)} were added")
    ended = new[-1]["type"] == "WorkflowCompleted"
    check(ended, "the workflow is completed")
    done, now = finished(old), finished(new)
    same = all(now.get(key) == version for key, version in done.items())
    tried_again = set(done) & set(attempts(new[len(old):]))
    named = ", ".join(f"{key} (version {version})" for key, version in done.items())
    check(bool(done) and same and not tried_again, f"finished before, and not begun again: {named}")
    lost = cut_off(old)
    twice = all(attempts(new).count(key) == 2 for key in lost)
    check(len(lost) == 1 and twice, f"cut off by the kill, so asked twice, once before and once after: {', '.join(lost)}")
    questions = questions_at_model(directory)
    if questions is not None:
        kinds = {e["payload"]["key"]: e["payload"]["kind"] for e in of_type(new, "StepAsked")}
        asked = [key for key in attempts(new) if kinds[key] == "llm"]
        check(questions == len(asked), f"the model's server was asked {questions} times; the log holds {len(asked)} attempts")
    made = effects(service)
    check([e["request"] for e in made] == ["POST /articles", "POST /announcements"], "the service was changed twice: one article, one announcement")
    check(all(e["asked"] == 1 and e["key"] for e in made), "each was asked for once, under a key of its own")
    if wrong:
        sys.exit("demo: FAILED: " + "; ".join(wrong))


def main() -> None:
    action, *rest = sys.argv[1:] or [""]
    if action == "wait" and len(rest) == 5:
        wait(rest[0], Path(rest[1]), int(rest[2]), rest[3], rest[4])
    elif action == "before" and len(rest) == 2:
        before(rest[0], Path(rest[1]))
    elif action == "after" and len(rest) == 3:
        after(rest[0], Path(rest[1]), rest[2])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
