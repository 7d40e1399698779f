"""valkey-cli (one-shot, interactive in a terminal, `--pipe`, `-c`) and valkey-benchmark `--tls`."""

import os
import pty
import re
import select
import subprocess
import time

import suite

CLI = os.environ.get("KEYWAY_VALKEY_CLI", "valkey-cli")
BENCHMARK = os.environ.get("KEYWAY_VALKEY_BENCHMARK", "valkey-benchmark")
LIMIT_S = 60
MASS_INSERTS = 10_000


def target(args):
    """The options that both tools take; nothing but host, port and CA."""
    return ["-h", args.host, "-p", str(args.port), "--tls", "--cacert", args.ca]


def run(command, stdin=b""):
    """A tool's whole output; a failing exit code is a mismatch."""
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=LIMIT_S, check=False)
    if done.returncode != 0:
        raise suite.Mismatch(f"{command[0]} ended with {done.returncode}: {done.stdout[-400:]!r} {done.stderr[-400:]!r}")
    return done.stdout.decode()


def one_shot(args, options):
    """Commands given as arguments."""

    def body(s):
        def cli(*words):
            return run([CLI, *target(args), *options, *words]).removesuffix("\n")

        key = s.name("text")
        s.check("SET", cli("SET", key, s.name("value ½")), "OK")
        s.check("GET", cli("GET", key), s.name("value ½"))
        s.check("APPEND", cli("APPEND", s.name("tail"), "abc"), "3")
        s.check("INCR", cli("INCR", s.name("count")), "1")
        s.check("absent", cli("GET", s.name("absent")), "")
        s.check("HSET", cli("HSET", s.name("hash"), "one", s.name("1"), "two", s.name("2")), "2")
        s.check("HGET", cli("HGET", s.name("hash"), "two"), s.name("2"))
        s.check("RPUSH", cli("RPUSH", s.name("list"), "a", "b"), "2")
        s.check("LRANGE", cli("LRANGE", s.name("list"), "0", "-1"), "a\nb")
        s.check("EVAL", cli("EVAL", "return {KEYS[1], ARGV[1]}", "1", key, "x"), f"{key}\nx")
        s.check("PING", cli("PING"), "PONG")
        s.check("error", cli("LPUSH", key, "x").splitlines()[0].startswith("WRONGTYPE"), True)
        if args.cross_slot == "split":
            names = [s.name(f"many {i}") for i in range(20)]
            words = [word for name in names for word in (name, f"{name} value")]
            s.check("MSET", cli("MSET", *words), "OK")
            s.check("MGET", cli("MGET", *names), "\n".join(f"{name} value" for name in names))
            s.check("DEL", cli("DEL", *names), "20")

    return body


class Terminal:
    """valkey-cli in a terminal, as a person sees it."""

    def __init__(self, command):
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "dumb"
            os.execvp(command[0], command)
        self.seen = ""

    def expect(self, pattern):
        """Reads until the output matches, and returns the match."""
        end = time.monotonic() + 20
        while True:
            match = re.search(pattern, self.seen, re.DOTALL)
            if match:
                self.seen = self.seen[match.end() :]
                return match
            ready, _, _ = select.select([self.descriptor], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise suite.Mismatch(f"no {pattern!r} on the terminal, but {self.seen!r}")
            try:
                self.seen += os.read(self.descriptor, 65536).decode("utf-8", "replace")
            except OSError as error:
                raise suite.Mismatch(f"valkey-cli ended, having said {self.seen!r}") from error

    def type(self, line):
        """A line and the enter key."""
        os.write(self.descriptor, line.encode() + b"\r")

    def close(self):
        """Ends the program; returns its exit code."""
        self.type("exit")
        _, status = os.waitpid(self.pid, 0)
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(status)


def interactive(args, options):
    """A session at the prompt: it asks COMMAND DOCS first, for its hints."""

    def body(s):
        terminal = Terminal([CLI, *target(args), *options])
        prompt = re.escape(f"{args.host}:{args.port}> ")
        terminal.expect(prompt)
        for what, line, pattern in [
            ("SET", f"SET {s.name('k')} {s.name('v')}", r"\r\nOK\r\n"),
            ("GET", f"GET {s.name('k')}", r'\r\n"' + re.escape(s.name("v")) + r'"\r\n'),
            ("INCR", f"INCR {s.name('n')}", r"\r\n\(integer\) 1\r\n"),
            ("GET absent", f"GET {s.name('none')}", r"\r\n\(nil\)\r\n"),
            ("quotes", f'SET {s.name("q")} "a \\"b\\" \\x41"', r"\r\nOK\r\n"),
            ("quoted", f"GET {s.name('q')}", re.escape('\r\n"a \\"b\\" A"\r\n')),
            ("unknown", "NOSUCHCOMMAND", r"\(error\) ERR unknown command"),
            ("PING", "PING", r"\r\nPONG\r\n"),
        ]:
            terminal.type(line)
            terminal.expect(pattern)
            terminal.expect(prompt)
            s.passed += 1
        s.check("exit", terminal.close(), 0)

    return body


def mass_insert(args, encode):
    """`--pipe`: ten thousand commands through standard input, then a look at some of them."""

    def body(s):
        names = [(s.name(f"p{i}"), s.name(f"v{i}")) for i in range(MASS_INSERTS)]
        output = run([CLI, *target(args), "--pipe"], b"".join(encode("SET", *pair) for pair in names))
        s.check("--pipe", output.strip().splitlines()[-1], f"errors: 0, replies: {MASS_INSERTS}")
        asked = "".join(f"GET {name}\n" for name, _ in names).encode()
        got = run([CLI, *target(args)], asked).splitlines()
        s.check("what was inserted", got, [value for _, value in names])
        mixed = encode("SET", s.name("ok"), "1") + encode("LPUSH", s.name("ok"), "x")
        failed = subprocess.run([CLI, *target(args), "--pipe"], input=mixed, capture_output=True, timeout=LIMIT_S, check=False)
        s.check("--pipe with an error", "errors: 1, replies: 2" in failed.stdout.decode(), True)

    return body


def inline(*words):
    """A command as a line."""
    return (" ".join(words) + "\r\n").encode()


def multibulk(*words):
    """A command as client libraries send it."""
    parts = [f"*{len(words)}\r\n".encode()]
    parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in (w.encode() for w in words)]
    return b"".join(parts)


def benchmark(args, options, tests):
    """valkey-benchmark, by its CSV: a line per test, every rate above zero."""

    def body(s):
        command = [BENCHMARK, *target(args), *options, "-n", "2000", "-c", "20", "-P", "8", "-r", "10000", "--csv"]
        output = run([*command, "-t", ",".join(tests)])
        rates = dict(re.findall(r'^"([^"]+)","([0-9.]+)"', output, re.MULTILINE))
        for test in tests:
            found = [rate for name, rate in rates.items() if name.lower().startswith(test)]
            if not found or float(found[0]) <= 0:
                raise suite.Mismatch(f"{test}: no rate in {output!r}")
            s.passed += 1

    return body


def main():
    """Every way of using the two tools."""
    args = suite.arguments()
    tests = ["ping_inline", "ping_mbulk", "set", "get", "incr", "lpush", "rpop", "sadd", "hset", "zadd", "lrange_100"]
    if args.mode in ("standalone", "all"):
        suite.run("valkey-cli", one_shot(args, []))
        suite.run("valkey-cli-3", one_shot(args, ["-3"]))
        suite.run("valkey-cli-interactive", interactive(args, []))
        suite.run("valkey-cli-pipe-resp", mass_insert(args, multibulk))
        suite.run("valkey-cli-pipe-inline", mass_insert(args, inline))
        more = ["mset"] if args.cross_slot == "split" else []
        suite.run("valkey-benchmark", benchmark(args, [], [*tests, *more]))
        suite.run("valkey-benchmark-3", benchmark(args, ["-3"], ["set", "get"]))
    if args.mode in ("cluster", "all"):
        suite.run("valkey-cli-c", one_shot(args, ["-c"]))
        suite.run("valkey-cli-c-interactive", interactive(args, ["-c"]))
        suite.run("valkey-benchmark-cluster", benchmark(args, ["--cluster"], ["set", "get"]))


main()
