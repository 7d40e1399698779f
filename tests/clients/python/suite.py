"""What the Python client suites share: arguments, the list of operations, and comparing replies.

A suite is given host, port and CA, and nothing else about the server. It says
`CLIENT ok N operations` for each client that passed, and stops with code 1 at the first
operation whose reply is not the expected one.
"""

import argparse
import json
import math
import pathlib
import secrets
import sys

OPERATIONS = pathlib.Path(__file__).parent.parent / "operations.json"
PIPELINE_COMMANDS = 10_000


class Mismatch(Exception):
    """A reply that is not the expected one."""


def arguments():
    """Host, port and CA, and which part of the suite to run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--mode", choices=["standalone", "cluster", "all"], default="all")
    parser.add_argument(
        "--cross-slot",
        choices=["split", "refuse"],
        default="split",
        help="whether the server takes keys of several slots in one command",
    )
    return parser.parse_args()


class Suite:
    """One client's run: counts what passed, and fails at the first mismatch."""

    def __init__(self, client):
        self.client = client
        self.unique = f"{client}-{secrets.token_hex(6)}"
        self.passed = 0

    def name(self, suffix):
        """A key or value no other run uses."""
        return f"{self.unique}:{suffix}"

    def check(self, what, got, want):
        """Counts `what` as passed when `got` is `want`."""
        if not same(got, want):
            raise Mismatch(f"{what}: expected {short(want)}, got {short(got)}")
        self.passed += 1

    def operations(self, skip=()):
        """The shared operations as (what, arguments as bytes, expected), less those marked `skip`."""
        for operation in json.loads(OPERATIONS.read_text(encoding="utf-8"))["operations"]:
            if operation.get("only") in skip:
                continue
            args = [self._argument(argument) for argument in operation["do"]]
            yield " ".join(str(short(a)) for a in args), args, self._expected(operation["want"])

    def _argument(self, argument):
        if isinstance(argument, dict):
            return literal(self._expected(argument))
        return argument.replace("~", self.unique).encode()

    def _expected(self, want):
        if isinstance(want, str):
            return want.replace("~", self.unique)
        if isinstance(want, list):
            return [self._expected(item) for item in want]
        if isinstance(want, dict):
            return {self._expected(key): self._expected(value) for key, value in want.items()}
        return want


def literal(want):
    """The bytes that {hex} and {repeat} stand for."""
    if "hex" in want:
        return bytes.fromhex(want["hex"])
    text, times = want["repeat"]
    return text.encode() * times


def same(got, want):
    """Whether a client's reply, in whatever type it prefers, is the expected one."""
    if isinstance(want, dict):
        ((kind, value),) = want.items() if len(want) == 1 else ((None, want),)
        if kind in COMPARE:
            return COMPARE[kind](got, value)
        return as_map(got) == {plain(k): plain(v) for k, v in want.items()}
    if isinstance(want, str):
        # Clients turn a status into True where nothing else can be meant.
        return plain(got) == want.encode() or (want in ("OK", "PONG") and got is True)
    if isinstance(want, bool) or want is None:
        return got is want
    if isinstance(want, int):
        return isinstance(got, int) and int(got) == want
    return got == want


def plain(value):
    """Text as bytes, so that decoded and raw replies compare alike."""
    return value.encode() if isinstance(value, str) else value


def as_map(got):
    """A map reply: a dict, or RESP2's flat list."""
    if isinstance(got, dict):
        return {plain(k): plain(v) for k, v in got.items()}
    if isinstance(got, (list, tuple)):
        items = [plain(item) for item in got]
        return dict(zip(items[::2], items[1::2]))
    return None


def _same_list(got, want):
    return (
        isinstance(got, (list, tuple))
        and len(got) == len(want)
        and all(same(g, w) for g, w in zip(got, want))
    )


def _same_scores(got, want):
    if isinstance(got, dict):
        got = list(got.items())
    if got and not isinstance(got[0], (list, tuple)):
        got = list(zip(got[::2], got[1::2]))
    return [(plain(m), float(s)) for m, s in got] == [(plain(m), s) for m, s in want]


def _same_entries(got, want):
    if isinstance(got, dict):
        got = list(got.items())
    pairs = []
    for entry_id, fields in got:
        if isinstance(fields, list) and fields and isinstance(fields[0], (list, tuple)):
            fields = [item for pair in fields for item in pair]
        pairs.append((plain(entry_id), as_map(fields)))
    return pairs == [(plain(i), as_map(f)) for i, f in want]


def _same_float(got, want):
    if isinstance(got, (bytes, str, int, float)) and not isinstance(got, bool):
        return math.isclose(float(got), want)
    return False


COMPARE = {
    "error": lambda got, want: isinstance(got, Exception) and want.removeprefix("ERR ") in str(got),
    "float": _same_float,
    "between": lambda got, want: isinstance(got, int) and want[0] <= got <= want[1],
    "list": _same_list,
    "set": lambda got, want: isinstance(got, (set, list, tuple))
    and sorted(map(plain, got)) == sorted(map(plain, want)),
    "map": lambda got, want: as_map(got) == as_map(want),
    "scores": _same_scores,
    "entries": _same_entries,
    "hex": lambda got, want: plain(got) == literal({"hex": want}),
    "repeat": lambda got, want: plain(got) == literal({"repeat": want}),
}


def short(value):
    """A value for a message, cut to a readable length."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else repr(value)
    return text if len(text) <= 160 else f"{text[:160]}... ({len(text)} characters)"


def run(client, body):
    """Runs one client's body with a Suite; prints its line, or the mismatch and stops."""
    suite = Suite(client)
    try:
        body(suite)
    except Mismatch as mismatch:
        sys.exit(f"{client} FAILED after {suite.passed} operations: {mismatch}")
    except Exception as error:  # the client's own failure is a failure of the suite
        import traceback

        traceback.print_exc()
        sys.exit(f"{client} FAILED after {suite.passed} operations: {type(error).__name__}: {error}")
    print(f"{client} ok {suite.passed} operations", flush=True)
