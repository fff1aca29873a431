#!/usr/bin/env python3
"""What the reference jq gives, for the tests of expressions.

  scripts/jq_reference.py record             the programs of crates/foldback-ows/tests/jq/programs.txt, and random
                                             ones, into recorded.jsonl beside it
  scripts/jq_reference.py random N SEED OUT  N random programs into OUT, for `make torture`

Needs the package `jq` of PyPI, which brings its own jq: `pip install jq==1.13.0` is jq 1.8.2.
"""

import json
import random
import signal
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent / "crates/foldback-ows/tests/jq"
PATHS = ("[]", "[0]", '["a"]', '["a", 0]', '[1, "a"]', "[-1]")
PATTERNS = ('"a"', '"[ab]+"', '"^$"', '"[ab]?"', '"(?<x>a)|b"', '"(?<x>[ab])"', '"^"', '""', '"(a)(b)?"')
FLAGS = ("null", '"g"', '"gi"')
NEW = ('"x"', '.x // "-"', '"1","2"')
RECORDED_RANDOM, RECORDED_SEED = 1500, 14


def run(program, value):
    """Outputs, and the error behind them; None when jq does not compile it."""
    import jq

    try:
        compiled = jq.compile(program)
    except ValueError:
        return None
    outputs = []
    try:
        for output in compiled.input_value(value):
            outputs.append(output)
    except ValueError as error:
        return outputs, str(error)
    return outputs, None


class Dice:
    """Random programs that end."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, *choices):
        return self.random.choice(choices)

    def value(self, depth=2):
        kind = self.random.randrange(9 if depth else 6)
        if kind == 0:
            return None
        if kind == 1:
            return self.pick(True, False)
        if kind <= 3:
            return self.pick(0, 1, 2, 3, -1, 1.5, 10)
        if kind <= 5:
            return self.pick("", "a", "b", "ab", "a,b", "é", "10", "A b")
        if kind <= 7:
            return [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        names = self.random.sample(["a", "b", "c"], self.random.randrange(3))
        return {name: self.value(depth - 1) for name in ["a", *names]}

    def literal(self):
        return self.pick("0", "1", "2", "-1", "1.5", '"a"', '"b"', '","', "null", "true", "false", "[]", "{}")

    def path(self, depth):
        base = self.pick(".", ".a", ".[0]", ".[-1]", ".[]", ".[1:]", ".[:1]", ".a?", ".[]?", "..", ".a.a", ".[0].a")
        if depth and self.random.random() < 0.4:
            inner = self.path(depth - 1)
            condition = self.term(depth - 1)
            return self.pick(
                f"({base} | {inner})",
                f"({base}, {inner})",
                f"({base} | select({condition}))",
                f"first({inner})",
                f"limit(1; {inner})",
                f"(if {condition} then {base} else {inner} end)",
                f"({base} // {inner})",
                f"getpath({self.pick(*PATHS)})",
                f"({base} | recurse(.[]?))",
            )
        return base

    def update(self, depth):
        return self.pick(
            f"({self.path(depth)} = {self.term(depth)})",
            f"({self.path(depth)} |= {self.term(depth)})",
            f"({self.path(depth)} |= empty)",
            f"({self.path(depth)} += {self.literal()})",
            f"({self.path(depth)} //= {self.literal()})",
            f"del({self.path(depth)})",
            f"[path({self.path(depth)})]",
            f"pick({self.path(depth)})",
            f"map_values({self.term(depth)})",
            f"delpaths([path({self.path(depth)})])",
            f"setpath({self.pick(*PATHS)}; {self.term(depth)})",
        )

    def call(self, depth):
        plain = (
            "length add any all flatten reverse sort unique min max keys not type tojson tostring tonumber ascii_downcase "
            "ascii_upcase explode implode trim ltrim rtrim floor sqrt fromjson transpose tostream to_entries from_entries "
            "first last utf8bytelength abs values nulls booleans numbers strings arrays objects iterables scalars "
            "@text @json @csv @tsv @html @uri @sh @base64 @base64d toboolean combinations isempty(.[]) paths error "
            "ceil round fabs has(0) nth(0) @urid"
        ).split()
        if not depth or self.random.random() < 0.5:
            return "[paths]" if (name := self.pick(*plain)) == "paths" else name
        f, g = self.term(depth - 1), self.term(depth - 1)
        return self.pick(
            f"map({f})",
            f"select({f})",
            f"[.[]? | {f}]",
            f"sort_by({f})",
            f"group_by({f})",
            f"unique_by({f})",
            f"min_by({f})",
            f"max_by({f})",
            f"any({f})",
            f"all({f})",
            f"any(.[]?; {f})",
            f"join({self.literal()})",
            f"split({self.literal()})",
            f"contains({f})",
            f"inside({f})",
            f"index({self.literal()})",
            f"indices({self.literal()})",
            f"startswith({f})",
            f"ltrimstr({self.literal()})",
            f"trimstr({self.literal()})",
            f"test({self.pick(*PATTERNS)})",
            f"[match({self.pick(*PATTERNS)}; {self.pick(*FLAGS)})]",
            f"sub({self.pick(*PATTERNS)}; {self.pick(*NEW)})",
            f"gsub({self.pick(*PATTERNS)}; {self.pick(*NEW)})",
            f"[splits({self.pick(*PATTERNS)})]",
            f"[scan({self.pick(*PATTERNS)})]",
            f"with_entries({self.pick('.value |= ' + f, 'select(.value)')})",
            f"walk({f})",
            f"[limit({self.pick('0', '1', '2')}; {f})]",
            f"[skip({self.pick('0', '1')}; {f})]",
            f"first({f})",
            f"[last({f})]",
            f"isempty({f})",
            f"add({f})",
            f"bsearch({f})",
            f"in({f})",
            f"has({f})",
            f"IN({f})",
            f"INDEX({self.pick('.', '.a?', 'tojson')})",
            f"error({f})",
            f"getpath({self.pick(f, *PATHS)})",
            f"[range({self.pick('3', '1; 3', '0; 5; 2', '3; 0; -1', '0,1; 2,3')})]",
            f"flatten({self.pick('0', '1', '2')})",
            f"tojson",
        )

    def term(self, depth):
        if depth <= 0:
            return self.pick(".", self.literal(), ".a", ".[0]", ".[]?", "length?", "$x")
        f, g = self.term(depth - 1), self.term(depth - 1)
        kind = self.random.randrange(16)
        if kind < 3:
            return f"({f} | {g})"
        if kind < 5:
            return self.call(depth)
        if kind == 5:
            return self.update(depth - 1)
        if kind == 6:
            return self.path(depth - 1)
        return self.pick(
            f"({f}, {g})",
            f"({f} {self.pick('+', '-', '*', '/', '%')} {g})",
            f"({f} {self.pick('==', '!=', '<', '<=', '>', '>=')} {g})",
            f"({f} {self.pick('and', 'or', '//')} {g})",
            f"(if {f} then {g} else {self.term(depth - 1)} end)",
            f"(try {self.pick(f'({f})', f'error({f})')} catch {self.pick('.', f'({g})')})",
            f"({f})?",
            f"[{f}]",
            f"{{a: {f}}}",
            f"({f} as $x | {g})",
            f"({f} as [$x] | {g})",
            f"({f} as {{a: $x}} | {g})",
            f"(reduce ({f}) as $x ({self.literal()}; {g}))",
            f"[foreach ({f}) as $x ({self.literal()}; {g})]",
            f"[foreach ({f}) as $x ({self.literal()}; {g}; [$x, .])]",
            f"[label $out | {f} | if {g} then ., break $out else . end]",
            '"\\(' + f + ')-\\(' + g + ')"',
            f"(def f(g): [g, .]; f({f}))",
            f"(def f($x): [$x, .]; f({f}))",
            f"-({f})",
        )

    def program(self):
        return f". as $x | {self.term(self.random.randrange(1, 5))}"


def random_cases(count, seed):
    dice = Dice(seed)
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError()))
    while count:
        program, value = dice.program(), dice.value()
        signal.setitimer(signal.ITIMER_REAL, 1)
        try:
            result = run(program, value)
        except TimeoutError:
            continue
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        line = described_case(program, value, result)
        # What is large says nothing more.
        if result is None or len(line) > 2000:
            continue
        count -= 1
        yield line


def described_case(program, value, result):
    described = {"program": program, "input": value}
    if result is None:
        described["refused"] = True
    else:
        described["outputs"] = result[0]
        if result[1] is not None:
            described["error"] = result[1]
    return json.dumps(described, ensure_ascii=False, allow_nan=False)


def main():
    match sys.argv[1:]:
        case ["record"]:
            lines = []
            for line in (HERE / "programs.txt").read_text().splitlines():
                if not line or line.startswith("# "):
                    continue
                program, _, value = line.partition(" @@ ")
                program = program.replace("⏎", "\n")
                value = json.loads(value) if value else None
                lines.append(described_case(program, value, run(program, value)))
            lines += random_cases(RECORDED_RANDOM, RECORDED_SEED)
            (HERE / "recorded.jsonl").write_text("\n".join(lines) + "\n")
        case ["random", count, seed, out]:
            Path(out).write_text("\n".join(random_cases(int(count), int(seed))) + "\n")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
