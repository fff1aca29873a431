#!/usr/bin/env python3
"""Runs the stories of docs/stories for real: what a page shows is what the program prints.

usage: story_test.py [--show] STORY.md…

In a story, a fenced block

    ```console        is run: each line `$ COMMAND` is given to bash, what follows is its output
                      (stdout and stderr, as on a terminal); `> ` goes on with a command
    ```yaml NAME      is written to the file NAME first (so is any other language with a name)
    ```text           and all others are only read

All commands of a story share one shell, in a directory of their own that holds a copy of examples/
and has `foldback` on the path. In expected output `…` stands for anything within a line, and a line
that is only `…` for any lines. `--show` prints the session as it really went.
"""

import argparse
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Far above what a story takes: past it something hangs.
PATIENCE = 180


@dataclass
class Command:
    """One `$ ` line with the output that the page shows."""

    line: int
    text: str
    expected: list[str] = field(default_factory=list)
    actual: list[str] = field(default_factory=list)


@dataclass
class Story:
    commands: list[Command]
    files: dict[str, str]


def read(path: Path) -> Story:
    """The commands and files of a story."""
    story = Story([], {})
    language = name = None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("```"):
            if language is not None:
                language = name = None
                continue
            language, _, name = line[3:].strip().partition(" ")
            if name:
                story.files[name] = ""
        elif name:
            story.files[name] += line + "\n"
        elif language == "console":
            if line.startswith("$ "):
                story.commands.append(Command(number, line[2:]))
            elif not story.commands:
                sys.exit(f"{path}:{number}: output without a command")
            elif line.startswith("> ") and not story.commands[-1].expected:
                story.commands[-1].text += "\n" + line[2:]
            else:
                story.commands[-1].expected.append(line.rstrip())
    return story


def play(story: Story, binary: Path) -> None:
    """Runs the commands in one shell, and notes what each of them printed."""
    directory = Path(tempfile.mkdtemp(prefix="foldback-story-"))
    try:
        shutil.copytree(ROOT / "examples", directory / "examples")
        for name, text in story.files.items():
            (directory / name).write_text(text)
        # The mark tells the outputs apart; `$?` survives it.
        mark = f"--- {os.urandom(8).hex()} ---"
        script = "".join(f"{c.text}\n{{ s=$?; printf '%s\\n' '{mark}'; (exit $s); }} 2>&1\n" for c in story.commands)
        (directory / ".session.sh").write_text(script)
        environment = {
            "PATH": f"{binary.parent}:{os.environ['PATH']}",
            "HOME": str(directory), "LANG": "C.UTF-8", "TERM": "dumb", "COLUMNS": "120", "TZ": "UTC",
        }
        with (directory / ".session.log").open("w+") as log:
            # A file and not a pipe: what a story leaves in the background must not keep us waiting.
            subprocess.run(
                ["bash", ".session.sh"], cwd=directory, env=environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, timeout=PATIENCE,
            )
            log.seek(0)
            printed = log.read()
        for command, output in zip(story.commands, printed.split(mark + "\n")):
            command.actual = [line.rstrip() for line in output.splitlines()]
    finally:
        shutil.rmtree(directory)


def pattern(line: str) -> str:
    return ".*".join(re.escape(part) for part in line.split("…"))


def matches(expected: list[str], actual: list[str]) -> bool:
    """Whether the output is what the page shows. Empty lines at the end do not count."""
    lines = "\n".join(expected).rstrip("\n").split("\n")
    wanted = "".join(r"(?:.*\n)*?" if line == "…" else pattern(line) + r"\n" for line in lines)
    return re.fullmatch(wanted, "\n".join(actual).rstrip("\n") + "\n") is not None


def difference(command: Command) -> str:
    """The page against the output, with the lines that match counted as equal."""
    resolved, position = [], 0
    for line in command.expected:
        for at in range(position, len(command.actual)):
            if line != "…" and re.fullmatch(pattern(line), command.actual[at]):
                line, position = command.actual[at], at + 1
                break
        resolved.append(line)
    lines = difflib.unified_diff(resolved, command.actual, "the page", "the program", lineterm="", n=1)
    return "\n".join("    " + line for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs stories for real.")
    parser.add_argument("stories", type=Path, nargs="+")
    parser.add_argument("--show", action="store_true", help="print the session as it really went")
    parser.add_argument("--foldback", type=Path, default=os.environ.get("FOLDBACK_BIN", ROOT / "target/debug/foldback"))
    arguments = parser.parse_args()
    binary = Path(arguments.foldback).resolve()
    if not binary.exists():
        sys.exit(f"story test: {binary} is missing; `cargo build -p foldback-cli` makes it")
    bad = 0
    for path in arguments.stories:
        began = time.monotonic()
        story = read(path)
        play(story, binary)
        if arguments.show:
            for command in story.commands:
                print("$ " + command.text.replace("\n", "\n> "), *command.actual, sep="\n")
            continue
        wrong = [command for command in story.commands if not matches(command.expected, command.actual)]
        for command in wrong:
            print(f"{path}:{command.line}: $ {command.text}\n{difference(command)}", file=sys.stderr)
        bad += len(wrong)
        print(f"story test: {path.name}: {len(story.commands)} commands, {len(wrong)} differ, {time.monotonic() - began:.1f} s")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
