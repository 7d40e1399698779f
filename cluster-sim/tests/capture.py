#!/usr/bin/env python3
"""Fills in the replies of captured/*.txt from a real server.

usage: capture.py VALKEY_SERVER [FILE...]

VALKEY_SERVER is a valkey-server 9.1.2 binary. For every file (all of captured/ by default) one is
started in cluster mode, owning every slot, and asked the file's requests; once in RESP2 and once,
anew, in RESP3. To add a request, write its `>` line and run this.

  > a request: arguments apart by one space, "" an empty one; escapes \\r \\n \\\\ \\_ (space) \\xHH
  < the bytes that came back in RESP2
  3 the bytes that came back in RESP3, where they differ
"""

import pathlib
import socket
import subprocess
import sys
import tempfile
import time

FOLDER = pathlib.Path(__file__).parent / "captured"


def read_reply(file):
    line = file.readline()
    assert line.endswith(b"\r\n"), line
    kind = line[:1]
    if kind in b"+-:_,#(":
        return line
    count = int(line[1:-2])
    if count < 0:
        return line
    if kind in b"$=!":
        return line + file.read(count + 2)
    return line + b"".join(read_reply(file) for _ in range(count * (2 if kind == b"%" else 1)))


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(5)
        self.file = self.socket.makefile("rb")

    def ask(self, *args):
        bulks = b"".join(b"$%d\r\n%s\r\n" % (len(arg), arg) for arg in args)
        self.socket.sendall(b"*%d\r\n" % len(args) + bulks)
        return read_reply(self.file)


def unescape(text):
    out, at = bytearray(), 0
    raw = text.encode()
    while at < len(raw):
        if raw[at : at + 1] != b"\\":
            out += raw[at : at + 1]
            at += 1
            continue
        kind = raw[at + 1 : at + 2]
        if kind == b"x":
            out.append(int(raw[at + 2 : at + 4], 16))
            at += 4
        else:
            out += {b"r": b"\r", b"n": b"\n", b"_": b" ", b"\\": b"\\"}[kind]
            at += 2
    return bytes(out)


def escape(reply):
    named = {0x0D: "\\r", 0x0A: "\\n", 0x5C: "\\\\"}
    return "".join(
        named.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}") for byte in reply
    )


def arguments(line):
    return [b"" if word == '""' else unescape(word) for word in line[2:].split(" ")]


def connect(port):
    for _ in range(100):
        try:
            return Connection(port)
        except OSError:
            time.sleep(0.05)
    sys.exit(f"no server on port {port}")


def start(binary, folder, *more):
    """Starts a server in cluster mode, without slots; returns it and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1] % 20_000 + 10_000  # the bus takes the port 10,000 above
    options = ["--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--dir", folder,
               "--save", "", "--appendonly", "no", "--logfile", "log", *more]
    process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
    connect(port)
    return process, port


def replies(binary, lines, proto):
    """What a server that owns every slot answers, escaped, on one new connection."""
    with tempfile.TemporaryDirectory() as folder:
        process, port = start(binary, folder)
        try:
            connection = connect(port)
            connection.ask(b"CLUSTER", b"ADDSLOTSRANGE", b"0", b"16383")
            while b"cluster_state:ok" not in connection.ask(b"CLUSTER", b"INFO"):
                time.sleep(0.05)
            connection.ask(b"HELLO", proto)
            requests = [arguments(line) for line in lines if line.startswith("> ")]
            return [escape(connection.ask(*request)) for request in requests]
        finally:
            process.terminate()
            process.wait()


def fill(path, ask):
    """Writes a file anew: `ask(lines, proto)` gives the reply to each request in it."""
    lines = [line for line in path.read_text().split("\n") if line[:2] not in ("< ", "3 ")]
    pairs = iter(list(zip(ask(lines, b"2"), ask(lines, b"3"))))
    out, count = [], 0
    for line in lines:
        out.append(line)
        if line.startswith("> "):
            two, three = next(pairs)
            count += 1
            out.append("< " + two)
            if three != two:
                out.append("3 " + three)
    path.write_text("\n".join(out))
    print(f"{path.name}: {count} requests")


def main():
    binary, *files = sys.argv[1:]
    for path in map(pathlib.Path, files or sorted(FOLDER.glob("*.txt"))):
        fill(path, lambda lines, proto: replies(binary, lines, proto))


if __name__ == "__main__":
    main()
