#!/usr/bin/env python3
"""Plants each bug of mutants/ in a copy of the tree; the test that its first line names must fail.

usage: mutants.py [--check] [--since REVISION] [NN…]

`--check` only looks whether each patch still applies and says what catches it: quick enough for
`make test`. Without it each patch is built and its test is run: a mutant that survives, or does not
build, is an error. The copy is of what is committed, and has a target directory of its own, which
is kept between runs. `CARGO` names another cargo.

`--since REVISION` takes only the patches that a change since then may have made toothless: those that
plant their bug in a file which changed, and those that are new or changed themselves.

A patch begins with `# caught by: PACKAGE FILTER` (a filter of cargo nextest).
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "target" / "mutants"
CARGO = os.environ.get("CARGO", "cargo")
CAUGHT_BY = re.compile(r"# caught by: (\S+) (\S+)")


def run(*command: str, cwd: Path, quiet: bool = True) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=cwd, capture_output=quiet, text=True)


def caught_by(patch: Path) -> tuple[str, str]:
    """Which package's test catches it."""
    found = CAUGHT_BY.match(patch.read_text())
    if not found:
        sys.exit(f"{patch.name}: its first line is not `# caught by: PACKAGE FILTER`")
    return found[1], found[2]


PLANTED_IN = re.compile(r"^\+\+\+ b/(\S+)", re.MULTILINE)


def changed_since(revision: str) -> set[str]:
    """Files of the repository that differ between a revision and what is committed."""
    found = run("git", "diff", "--name-only", revision, "HEAD", cwd=ROOT)
    if found.returncode:
        sys.exit(f"--since {revision}: {found.stderr.strip()}")
    return set(found.stdout.split())


def may_be_toothless(patch: Path, changed: set[str]) -> bool:
    """Whether what it plants, or where it plants it, has changed."""
    touched = {str(patch.relative_to(ROOT)), *PLANTED_IN.findall(patch.read_text())}
    return bool(touched & changed)


def fresh_copy() -> Path:
    """The tree as it is committed, without what an earlier run left."""
    tree = COPY / "tree"
    if not tree.exists():
        COPY.mkdir(parents=True, exist_ok=True)
        run("git", "clone", "--quiet", "--shared", str(ROOT), str(tree), cwd=ROOT)
    head = run("git", "rev-parse", "HEAD", cwd=ROOT).stdout.strip()
    run("git", "fetch", "--quiet", "origin", cwd=tree)
    run("git", "checkout", "--quiet", "--force", head, cwd=tree)
    return tree


def tested(tree: Path, package: str, name: str) -> str:
    """`passed`, `failed`, or `did not build`."""
    built = run(CARGO, "build", "--locked", "-p", package, "--tests", "--bins", cwd=tree)
    if built.returncode:
        return "did not build"
    found = run(CARGO, "test", "--locked", "--no-fail-fast", "-p", package, "--tests", "--", name, cwd=tree)
    if not any(int(n) for n in re.findall(r"(\d+) (?:passed|failed)", found.stdout)):
        return "no such test"
    return "failed" if found.returncode else "passed"


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--since", metavar="REVISION")
    parser.add_argument("numbers", metavar="NN", nargs="*")
    asked = parser.parse_args()
    patches = sorted((ROOT / "mutants").glob("*.patch"))
    known = {patch.name.split("-")[0] for patch in patches}
    if unknown := set(asked.numbers) - known:
        sys.exit(f"no planted bug has the number {', '.join(sorted(unknown))}")
    patches = [patch for patch in patches if not asked.numbers or patch.name.split("-")[0] in asked.numbers]
    if asked.since:
        changed = changed_since(asked.since)
        patches = [patch for patch in patches if may_be_toothless(patch, changed)]
        print(f"{len(patches)} of {len(known)} planted bugs lie in what changed since {asked.since}", flush=True)
    bad = 0
    if asked.check:
        for patch in patches:
            caught_by(patch)
            applied = run("git", "apply", "--check", str(patch), cwd=ROOT)
            if applied.returncode:
                bad += 1
                print(f"{patch.name}: does not apply any more\n{applied.stderr}")
        print(f"{len(patches)} planted bugs, {bad} do not apply")
        sys.exit(1 if bad else 0)
    tree = fresh_copy()
    for test in sorted({caught_by(patch) for patch in patches}):
        verdict = tested(tree, *test)
        if verdict != "passed":
            sys.exit(f"without a planted bug, {' '.join(test)} {verdict}")
    for patch in patches:
        run("git", "checkout", "--quiet", "--force", ".", cwd=tree)
        applied = run("git", "apply", str(patch), cwd=tree)
        verdict = tested(tree, *caught_by(patch)) if applied.returncode == 0 else "does not apply"
        bad += verdict != "failed"
        says = "caught" if verdict == "failed" else f"NOT CAUGHT: {verdict}"
        print(f"{patch.stem:<40} {says}  by {' '.join(caught_by(patch))}", flush=True)
    run("git", "checkout", "--quiet", "--force", ".", cwd=tree)
    print(f"{len(patches)} planted bugs, {len(patches) - bad} caught")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
