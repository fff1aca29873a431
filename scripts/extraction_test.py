#!/usr/bin/env python3
"""Extracts fields out of a thousand documents with the real binary, kills it on the way, and checks the books.

usage: extraction_test.py [--seed SEED] [--foldback BINARY] [--forget-keys]

It runs examples/extraction.yaml against examples/extraction_world.py, which serves in this process: the documents,
the table, and a **stand-in for a large model**, since a thousand calls of a real one do not fit into a test. The
stand-in speaks the protocol of OpenAI's API, and `foldback.toml` sends `openai/…` to it; so everything up to the
socket is what it is with a real model. Some documents are missing, garbled or ambiguous, and some answers are
broken JSON, 429 or 500: `extraction_world.py` says which. The scenes, in one store:

* extract     the run is killed with SIGKILL three times at random moments, once while a batch is written, and goes on
              each time. Every good document is one row, in one batch, written once; the summary is right. No step that
              stood in the log as completed at a kill is asked for again. What was under way at a kill is, and so may be
              what it did in the last moments before, if that only looks: the log says done when it is on disk.
* budget      on its way the run is used up and pauses; `unpause --budget` raises it, and the run goes on.
* look        `show`, `steps`, `state`, `decisions` and `audit` answer about it, each in seconds.
* fork        the archive is mended, and a fork asks again only for what failed: the missing documents by `--rerun`,
              the garbled ones of a larger model by `--edit`. All else takes its recorded outcome. The fork's batches
              have ids of their own; those of the run stay as they are.
* compensate  all batches of the run are deleted, the newest first, each once, though it is killed twice while a
              delete is under way. The fork's rows stay.

With `--forget-keys` the table does not honour idempotency keys: then the test must fail, which shows that it can.
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
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True
from kill_test import PATIENCE, ROOT, Failed, Foldback, insist  # noqa: E402

sys.path.insert(0, str(ROOT / "examples"))
from extraction_world import LARGE, SMALL, World, fields, habit, invoice  # noqa: E402

PIPELINE = ROOT / "examples" / "extraction.yaml"
DOCUMENTS, BATCH, LANES, KILLS = 1000, 50, 4, 3
RAISED = 2_000_000
# Seconds: a command that only looks is past all use here. On an idle machine each takes about one.
SLOW = 20
# Steps of a lane that one kill may repeat: the one under way, and those whose completion was not on disk yet.
REPEATED = 5
RUN = "july"
FORK = f"{RUN}~1"
Moment = Callable[[], bool]


class ExtractionTest:
    def __init__(self, arguments: argparse.Namespace, directory: Path) -> None:
        self.dice = random.Random(arguments.seed)
        self.world = World(DOCUMENTS, not arguments.forget_keys)
        self.world.pause = 0.02
        self.world.start()
        self.foldback = Foldback(arguments.foldback, directory)
        (directory / "foldback.toml").write_text(self.world.config())
        (directory / "july.json").write_text(json.dumps(self.world.input()))
        self.habits = {document: habit(document) for document in self.world.documents}
        self.acknowledged: dict[str, int] = {}
        self.figures: Counter[str] = Counter()

    def all(self, *habits: str) -> list[str]:
        return [document for document, has in self.habits.items() if has in habits]

    def good(self, *habits: str) -> list[str]:
        """Of which documents there are rows, where those of these habits are good as well."""
        return self.all("plain", "flaky", "sloppy", "crowded", *habits)

    # -- driving -----------------------------------------------------------------------------------------------

    def drive(self, command: list[str], moments: list[Moment], again: list[str] | None = None) -> dict[str, Any]:
        """Says `command`, kills it at each of the moments and goes on; the answer of the last process."""
        for moment in [*moments, None]:
            process = self.foldback.start(*command)
            killed = False
            try:
                with self.world.changed:
                    until = time.monotonic() + PATIENCE
                    while process.poll() is None and time.monotonic() < until and not killed:
                        self.world.changed.wait(0.02)
                        killed = moment is not None and moment()
                        if killed:
                            process.kill()
            finally:
                process.kill()
                process.wait()
            told = f"`foldback {' '.join(command)}`"
            if not killed:
                log = (self.foldback.directory / "stderr.log").read_text()[-2000:]
                insist(process.returncode == 0, f"{told} exits {process.returncode}\n{self.foldback.output()}{log}")
                insist(moment is None, f"{told} ends before the moment to kill it")
                break
            self.figures["kills"] += 1
            self.acknowledge()
            command = again or ["resume", RUN]
        return json.loads(self.foldback.output())

    def look(self, *arguments: str) -> list[Any]:
        """What a command that only looks says."""
        code, lines, stderr = self.foldback.ask(*arguments)
        insist(code == 0, f"`foldback {' '.join(arguments)}` exits {code}: {stderr}")
        return lines

    def steps(self, run: str) -> list[dict[str, Any]]:
        """The steps in which something is asked for, with what the world calls it."""
        found = [step for step in self.look("steps", run) if step["kind"] in ("http", "llm")]
        return [step | {"label": label_of(step)} for step in found]

    def acknowledge(self) -> None:
        """What stands in the log as over, and how often it was asked for up to now."""
        for step in self.steps(RUN):
            if step["status"] == "completed" or is_final(step):
                for label in (step["label"], f"repair {step['label']}"):
                    self.acknowledged.setdefault(label, self.world.asked[label])

    def when(self, label: str, count: int) -> Moment:
        """When so many more things that begin with `label` were asked for."""
        has = sum(times for asked, times in self.world.asked.items() if asked.startswith(label))
        return lambda: sum(t for asked, t in self.world.asked.items() if asked.startswith(label)) >= has + count

    def effect(self, count: int) -> Moment:
        """Just after so many more effects, before anybody is told of the last."""
        has = len(self.world.effects)
        return lambda: len(self.world.effects) >= has + count

    # -- scenes ------------------------------------------------------------------------------------------------

    def extract(self) -> None:
        world = self.world
        begin = ["run", str(PIPELINE), "--id", RUN, "--input", "@july.json"]
        # Two in what is read before the budget is used up, and one while a batch is written.
        early = sorted(self.dice.sample(range(DOCUMENTS // 10, DOCUMENTS * 6 // 10), 2))
        moments = [self.when("fetch", early[0]), self.when("fetch", early[1])]
        answer = self.drive(begin, moments)
        insist(answer["status"] == "paused", f"with its budget used up the run is {answer['status']}")
        before = sum(world.asked.values())
        insist(self.drive(["resume", RUN], [])["status"] == "paused", "`resume` does not go over a budget")
        insist(sum(world.asked.values()) == before, "a run that is paused asks for nothing")
        self.figures["tokens at the pause"] = world.tokens

        answer = self.drive(["unpause", RUN, "--budget", f"tokens={RAISED}"], [self.effect(self.dice.randint(1, 3))])
        insist(answer["status"] == "completed", f"the run is {answer['status']}")
        self.insist_output(answer, self.all("missing", "garbled"), {"Not Found", "The answer misses its schema"})
        self.insist_table(RUN, self.good())

        self.insist_not_again()
        expected: Counter[str] = Counter()
        for document, has in self.habits.items():
            expected[f"fetch {document}"] = 3 if has == "flaky" else 1
            expected[f"{SMALL} {document}"] = 0 if has == "missing" else 2 if has == "crowded" else 1
            expected[f"repair {SMALL} {document}"] = 1 if has in ("sloppy", "garbled") else 0
        asked = Counter({label: times for label, times in world.asked.items() if not label.startswith("write")})
        insist(not expected - asked, f"never asked for: {expected - asked}")
        more = asked - expected
        insist(more.total() <= KILLS * LANES * REPEATED, f"asked for more than {KILLS} kills explain: {more}")
        self.figures["repeated after a kill"] = more.total()
        self.figures["acknowledged at a kill"] = len(self.acknowledged) // 2

    def look_around(self) -> None:
        found = {}
        for command in ("show", "steps", "state", "decisions", "audit"):
            began = time.monotonic()
            found[command] = self.look(command, RUN)
            milliseconds = round((time.monotonic() - began) * 1000)
            self.figures[f"ms `{command}`"] = milliseconds
            insist(milliseconds < 1000 * SLOW, f"`foldback {command} {RUN}` takes {milliseconds} ms")
        insist(found["audit"][0]["problems"] == [], f"`audit` finds {found['audit']}")
        sorts = Counter(row["chosen"] for row in found["decisions"] if row["key"].endswith("/sort"))
        right = {"sure": len(self.good()), "unsure": len(self.all("ambiguous"))}
        insist(sorts == right, f"`decisions` says {sorts}, true is {right}")

    def fork(self) -> None:
        world = self.world
        world.is_mended = True
        asked, rows = world.asked.copy(), dict(world.table)
        failed = [step for step in self.steps(RUN) if is_final(step)]
        changes = [f'--edit={step["key"]}:model="openai/{LARGE}"' if step["kind"] == "llm" else f"--rerun={step['key']}"
                   for step in failed]
        insist(len(changes) == len(self.all("missing", "garbled")), f"{len(changes)} steps failed")
        answer = self.drive(["fork", RUN, "--at", "1", "--writes", "live", *changes], [])
        insist((answer["workflow_id"], answer["status"]) == (FORK, "completed"), f"the fork says {answer}")

        new = {label for label in world.asked - asked if not label.startswith("write")}
        right = {f"fetch {document}" for document in self.all("missing")}
        right |= {f"{SMALL} {document}" for document in self.all("missing")}
        right |= {f"{LARGE} {document}" for document in self.all("garbled")}
        insist(new == right, f"a fork of what failed asked for {new - right}, and not for {right - new}")
        statuses = Counter(step["status"] for step in self.steps(FORK))
        self.figures["steps the fork reused"] = statuses["reused"]
        self.figures["steps the fork asked"] = len(new)
        self.insist_output(answer, [], set())
        self.insist_table(FORK, self.good("missing", "garbled"))
        insist({batch: world.table.get(batch) for batch in rows} == rows, "the fork touched the rows of its parent")
        batches = {effect["key"]: effect["standing"] for effect in self.look("show", FORK)[0]["effects"]}
        can = len(batches) == len(rows) and set(batches.values()) == {"armed"}
        insist(can, f"of the fork these can be undone: {batches}")

    def compensate(self) -> None:
        world = self.world
        first, kept = len(world.effects), {b: rows for b, rows in world.table.items() if b.startswith(f"{FORK}.")}
        half = len(kept) // 2
        moments = [self.effect(self.dice.randint(1, half - 1)), self.effect(self.dice.randint(half, len(kept) - 1))]
        armed = self.look("show", RUN)[0]["effects"]
        self.acknowledged.clear()  # the fork has asked for some of it since
        command = ["compensate", RUN]
        answer = self.drive(command, moments, command)  # after a kill it goes on by being said again
        insist(answer["status"] == "compensated", f"the run is {answer['status']}")
        insist(world.table == kept, f"what is left: {sorted(world.table)}")
        self.insist_not_again()
        batches = {step["key"]: step["label"].removeprefix("write ") for step in self.steps(RUN)}
        newest = [f"delete {batches[effect['key']]}" for effect in sorted(armed, key=lambda effect: -effect["armed"])]
        insist(world.effects[first:] == newest, f"deleted {world.effects[first:]}, newest first is {newest}")
        ledger = {effect["standing"] for effect in self.look("show", RUN)[0]["effects"]}
        insist(ledger == {"undone"}, f"the ledger says {ledger}")

    # -- what must hold ----------------------------------------------------------------------------------------

    def insist_not_again(self) -> None:
        again = [label for label, times in self.acknowledged.items() if self.world.asked[label] != times]
        insist(not again, f"over at a kill, and asked for again: {again[:5]}")

    def insist_output(self, answer: dict[str, Any], failed: list[str], whys: set[str]) -> None:
        output = answer["output"]
        rows = DOCUMENTS - len(failed) - len(self.all("ambiguous"))
        insist(output["rows"] == rows, f"the summary says {output['rows']} rows, there are {rows}")
        insist(output["human"] == self.all("ambiguous"), f"for a human: {output['human']}")
        insist([said["id"] for said in output["failed"]] == failed, f"failed: {output['failed']}")
        insist({said["why"] for said in output["failed"]} == whys, f"failed: {output['failed']}")

    def insist_table(self, run: str, documents: list[str]) -> None:
        """The table has one row of each of these documents under the run, in batches that were written once."""
        world = self.world
        batches = {name: rows for name, rows in world.table.items() if name.rpartition(".")[0] == run}
        written = Counter(does for does in world.effects if does.removeprefix("write ") in batches)
        doubled = [does for does, times in written.items() if times != 1]
        insist(not doubled, f"took effect more than once: {doubled}")
        there = sorted((row for rows in batches.values() for row in rows), key=lambda row: row["id"])
        right = [{"id": document} | (fields(invoice(document), LARGE) or {}) for document in documents]
        insist([row["id"] for row in there] == documents, f"{len(there)} rows, of {len(documents)} good documents")
        insist(there == right, "rows with other fields than their documents")
        insist(len(batches) == DOCUMENTS // BATCH, f"{len(batches)} batches")
        for name, rows in batches.items():
            numbers = {int(row["id"].removeprefix("inv-")) // BATCH for row in rows}
            insist(numbers == {int(name.rpartition(".")[2])}, f"batch {name} holds rows of {numbers}")


def label_of(step: dict[str, Any]) -> str:
    """What the world calls that which a step asked for."""
    given = step["input"]
    if step["kind"] == "llm":
        found = re.search(r"INVOICE (\S+)", given["vars"]["text"])
        return f"{given['model'].removeprefix('openai/')} {found[1] if found else '?'}"
    path = given["uri"].rpartition("/")[2]
    if given["method"] == "POST":
        return f"write {given['body']['batch']}"
    return f"{'delete' if given['method'] == 'DELETE' else 'fetch'} {path}"


def is_final(step: dict[str, Any]) -> bool:
    """Whether it failed, and is not tried again."""
    return step["status"] == "failed" and step["error"]["status"] < 500


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs the extraction example, kills it, and checks the books.")
    parser.add_argument("--seed", type=int, default=None, help="repeats the choices of an earlier run")
    parser.add_argument("--foldback", type=Path, default=os.environ.get("FOLDBACK_BIN", ROOT / "target/debug/foldback"))
    parser.add_argument("--forget-keys", action="store_true", help="the table ignores idempotency keys: must fail")
    arguments = parser.parse_args()
    arguments.foldback = Path(arguments.foldback).resolve()
    if arguments.seed is None:
        arguments.seed = int.from_bytes(os.urandom(4), "big")
    if not arguments.foldback.exists():
        sys.exit(f"extraction test: {arguments.foldback} is missing; `cargo build -p foldback-cli` makes it")
    directory = Path(tempfile.mkdtemp(prefix="foldback-extraction-"))
    print(f"extraction test: {DOCUMENTS} documents, seed {arguments.seed}", flush=True)
    test = ExtractionTest(arguments, directory)
    began, scene = time.monotonic(), ""
    try:
        for act in (test.extract, test.look_around, test.fork, test.compensate):
            scene, since = act.__name__.replace("_", " "), time.monotonic()
            test.figures.clear()
            act()
            figures = ", ".join(f"{count} {name}" for name, count in test.figures.items())
            print(f"  {scene}: {time.monotonic() - since:.1f} s; {figures}", flush=True)
    except (Failed, subprocess.TimeoutExpired) as failure:
        print(f"extraction test: FAILED in `{scene}`: {failure}", file=sys.stderr)
        if arguments.forget_keys:
            shutil.rmtree(directory)  # as it should
        else:
            print(f"hint: again with `--seed {arguments.seed}`; the files are kept in {directory}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(directory)
    print(f"extraction test: ok; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
