#!/usr/bin/env python3
"""Writes the captured data of this folder from real servers.

usage: capture.py VALKEY_SERVER FOLDER [PORT]

VALKEY_SERVER is a valkey-server 9.1.2 binary. Three of them run on loopback from PORT on (34060 by
default) while this works: one alone, two as a cluster whose second node owns every slot, so that
the first answers MOVED with the slot that it found. See README.md for what the files are.
"""

import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse


class Client:
    """Speaks RESP; replies come raw, or as Python values whose types can be told apart."""

    def __init__(self, port, proto=2):
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.settimeout(5)
        self.file = self.sock.makefile("rb")
        if proto == 3:
            self.raw("HELLO", "3")

    def raw(self, *args):
        args = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
        self.sock.sendall(b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in args))
        return self.read()

    def read(self):
        line = self.file.readline()
        assert line.endswith(b"\r\n"), line
        kind, count = line[:1], line[1:-2]
        if kind in b"+-:_,#(":
            return line
        count = int(count)
        if count < 0:
            return line
        if kind in b"$=!":
            return line + self.file.read(count + 2)
        if kind == b"%":
            count *= 2
        return line + b"".join(self.read() for _ in range(count))

    def value(self, *args):
        return parse(self.raw(*args), 0)[0]


def parse(data, at):
    end = data.index(b"\r\n", at)
    kind, text = data[at : at + 1], data[at + 1 : end]
    at = end + 2
    if kind == b"+":
        return ("simple", text.decode()), at
    if kind == b"-":
        return ("error", text.decode("latin1")), at
    if kind == b":":
        return int(text), at
    if kind == b"_" or text.startswith(b"-"):
        return None, at
    count = int(text)
    if kind == b"$":
        return data[at : at + count].decode("latin1"), at + count + 2
    items = []
    for _ in range(count * (2 if kind == b"%" else 1)):
        item, at = parse(data, at)
        items.append(item)
    if kind == b"%":
        return dict(zip(items[::2], items[1::2])), at
    return ("set", items) if kind == b"~" else items, at


def notation(value):
    """The form that the crate's `notation` module reads."""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        bare = value and all(c.isalnum() or c in "_|-" for c in value) and not value.lstrip("-").isdigit()
        return value if bare else '"%s"' % value.replace("\\", "\\\\").replace('"', '\\"')
    if isinstance(value, dict):
        return "{%s}" % " ".join(notation(x) for pair in value.items() for x in pair)
    if isinstance(value, tuple) and value[0] == "simple":
        return "+" + value[1]
    if isinstance(value, tuple) and value[0] == "set":
        return "<%s>" % " ".join(map(notation, value[1]))
    return "[%s]" % " ".join(map(notation, value))


def ordered(value):
    """Subcommands in the order of their names: the server's is that of a hash table."""
    if isinstance(value, dict) and "subcommands" in value:
        value["subcommands"] = dict(sorted(value["subcommands"].items()))
    return value


def write(folder, name, lines):
    with open(os.path.join(folder, name), "w", encoding="ascii", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)


WORDS = """a b c d e 0 1 2 3 4 02 -1 4294967297 99999999999999999999 STREAMS streams STORE store STOREDIST KEYS
COUNT BLOCK GROUP BY GET LIMIT NOACK AUTH AUTH2 COPY OVERFLOW SET INCRBY EX NX u8 WITHDIST""".split() + [" 1", "2x", ""]

BY_HAND = """
sort k | sort k STORE | sort k STORE d | sort k BY STORE STORE d | sort k GET STORE | sort k STORE STORE d
sort k LIMIT 0 STORE d | sort k STORE d STORE e | sort_ro k STORE d | sort k by p store d desc alpha
migrate h 1 k 0 1 | migrate h 1 k 0 1 KEYS a | migrate h 1 % 0 1 KEYS a b | migrate h 1 % 0 1 AUTH KEYS KEYS a
migrate h 1 % 0 1 COPY REPLACE AUTH2 KEYS p KEYS a b c | migrate h 1 % 0 1 KEYS | migrate h 1 % 0 1
georadius k 1 1 1 m | georadius k 1 1 1 m STORE d | georadius k 1 1 1 m STORE d STOREDIST e
georadius k 1 1 1 m STORE STORE d | georadius k 1 1 1 m ASC STOREDIST | georadiusbymember k m 1 m STORE d
georadiusbymember k STORE STORE STORE STORE d | georadiusbymember k m 1 STORE d | georadius_ro k 1 1 1 m STORE d
xread STREAMS a 0 | xread COUNT 1 STREAMS a b 0 0 | xread BLOCK 0 STREAMS a 0 | xread STREAMS STREAMS a 0 0
xread COUNT STREAMS STREAMS a 0 | xread STREAMS a b 0 | xread COUNT 1 BLOCK 2 STREAMS a b c 0 0 0 | xread a b c
xread NOACK STREAMS a 0 | xread GROUP a b STREAMS c 0 | xread COUNT 1 STREAMS
xreadgroup GROUP g c STREAMS a > | xreadgroup GROUP g c NOACK STREAMS a b > > | xreadgroup GROUP g c COUNT 1 BLOCK 0 STREAMS a >
xreadgroup GROUP g STREAMS STREAMS a > | xreadgroup GROUP STREAMS STREAMS STREAMS a b > > | xreadgroup GROUP g c a b >
eval s 0 | eval s 0 a b | eval s 1 a | eval s 2 a b c | eval s 3 a b | eval s -1 a | eval s x a | eval s 01 a
eval s 4294967297 a | eval s 9223372036854775807 a | eval s 1.5 a | evalsha s 2 a b | eval_ro s 1 a x | fcall f 0 | fcall f 2 a b
fcall_ro f 1 a | fcall f 2 a | evalsha_ro s 0 a
msetex 1 a v | msetex 2 a v b v EX 10 | msetex 2 a v b | msetex 3 a v b v EX 10 | msetex 0 a v | msetex 02 a v b v | msetex 4 a v b v
zunionstore d 2 a b | zunionstore d 2 a b WEIGHTS 1 2 | zunionstore d 3 a b | zunionstore d 0 a | zunionstore d 02 a b
zinterstore d 1 a | zdiffstore d 2 a b | zunion 2 a b | zinter 1 a b | zdiff 3 a b | zintercard 2 a b LIMIT 1 | sintercard 2 a b
lmpop 2 a b LEFT | zmpop 1 a MIN | blmpop 0 2 a b LEFT | bzmpop 0 1 a MAX | blmpop 0 3 a b LEFT | lmpop 02 a b LEFT
set k v | set k v GET | set k GET | set k v EX GET | set k v NX get | bitfield k | bitfield k GET u8 0 | bitfield k SET u8 0 1
bitfield k GET u8 | bitfield k OVERFLOW WRAP | bitfield k OVERFLOW WRAP GET u8 0 | bitfield k GET u8 0 INCRBY u8 0 1
blpop a 0 | blpop a b c 0 | brpop a b 0 | bzpopmin a b 0 | blmove a b LEFT RIGHT 0 | brpoplpush a b 0 | bitop AND d a b | bitop NOT d a
mset a 1 b 2 | mset a 1 b | msetnx a 1 b 2 | mget a b c | del a b | unlink a a | exists a b | touch a | pfmerge d | pfmerge d a b
pfcount a b | rename a b | copy a b | lcs a b | smove a b m | object ENCODING k | object HELP | memory USAGE k | memory USAGE
spublish a m | ssubscribe a b | sunsubscribe | sunsubscribe a b | clusterscan 0 | watch a b | publish a m | nosuch a | config
config foo | config GET a | xgroup CREATE k g $ | xinfo STREAM k | geosearchstore d k FROMLONLAT 1 1 BYRADIUS 1 m | zrangestore d k 0 1
restore-asking k 0 v | pfdebug GETREG k | move k 1 | sdiffstore d a b | get | get a b | command GETKEYS get a | hset k f v | delifeq k v
"""


def cases(commands):
    """Commands by hand, and of every command that has keys some of every length."""
    seen = set()
    rng = random.Random(912)
    for case in BY_HAND.replace("\n", "|").split("|"):
        words = tuple("" if word == "%" else word for word in case.split())
        if words and words not in seen:
            seen.add(words)
            yield words
    for command in commands:
        name, arity, flags, specs = command[0], command[1], command[2][1], command[8][1]
        if not specs:
            continue
        movable = ("simple", "movablekeys") in flags or name in ("set", "bitfield")
        head = tuple(name.split("|"))
        for count in range(abs(arity), abs(arity) + (1 if arity > 0 else 4)):
            yield head + tuple("abcdefghijklmnop"[: count - len(head)])
        for _ in range(40 if movable else 2):
            length = rng.randint(max(1, abs(arity) - 2), abs(arity) + 6)
            words = head + tuple(rng.choice(WORDS) for _ in range(length))
            if words not in seen:
                seen.add(words)
                yield words


def routed(cluster, client, words):
    """How the first node of the cluster routes a command: no key, one, or keys of two slots."""
    reply = cluster.raw(*words)
    if reply.startswith(b"-CROSSSLOT "):
        return "*"
    if not reply.startswith(b"-MOVED "):
        return "-"
    slot = int(reply.split()[1])
    found = {word for word in words[1:] if client.value("CLUSTER", "KEYSLOT", word) == slot}
    assert len(found) == 1, "which of %s is the key of %s?" % (found, words)
    return encode(found.pop())


def encode(word):
    return urllib.parse.quote(word, safe="|>$") or "%"


def answer(client, words):
    value = client.value("COMMAND", "GETKEYSANDFLAGS", *words)
    if isinstance(value, tuple):
        return "!" + value[1]
    return " ".join("%s=%s" % (encode(key), "|".join(f[1] for f in flags)) for key, flags in value)


def fnv(data):
    """FNV-1a of 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def flatten(commands):
    for command in commands:
        yield command
        yield from flatten(command[9])


def capture(client2, client3, cluster_port, folder):
    commands = sorted(client3.value("COMMAND"), key=lambda command: command[0])
    flat = sorted(flatten(commands), key=lambda command: command[0])
    docs = client3.value("COMMAND", "DOCS")
    write(folder, "docs.txt", ("%s\t%s" % (name, notation(ordered(docs[name]))) for name in sorted(docs)))
    notes = (
        (command[0], number, spec["notes"])
        for command in flat
        for number, spec in enumerate(command[8][1])
        if "notes" in spec
    )
    write(folder, "key-spec-notes.tsv", ("%s\t%d\t%s" % note for note in notes))
    lines = []
    for command in flat:
        if command[9]:
            continue
        for kind in ("INFO", "DOCS"):
            for protocol, client in ((2, client2), (3, client3)):
                raw = client.raw("COMMAND", kind, command[0])
                lines.append("%s\t%s\t%d\t%d\t%016x" % (kind, command[0], protocol, len(raw), fnv(raw)))
    write(folder, "captured/replies.tsv", lines)
    lines = []
    for words in cases(flat):
        if words[0] in ("command", "publish", "object", "memory", "config") and len(words) < 3:
            way = "-"
        else:
            way = routed(Client(cluster_port), client2, words)
        lines.append("%s\t%s\t%s" % (" ".join(map(encode, words)), way, answer(client2, words)))
    write(folder, "captured/keys.tsv", lines)


def start(server, port, *options):
    folder = tempfile.mkdtemp()
    return subprocess.Popen(
        [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder, *options],
        stdout=subprocess.DEVNULL,
    )


def main():
    server, folder = sys.argv[1], sys.argv[2]
    port = int(sys.argv[3]) if len(sys.argv) > 3 else 34060
    os.makedirs(os.path.join(folder, "captured"), exist_ok=True)
    cluster = ("--cluster-enabled", "yes", "--cluster-port")
    servers = [start(server, port)]
    servers += [start(server, port + n, *cluster, str(port + 10 + n)) for n in (1, 2)]
    try:
        time.sleep(1)
        one, two = Client(port + 1), Client(port + 2)
        two.raw("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        one.raw("CONFIG", "SET", "cluster-require-full-coverage", "no")
        one.raw("CLUSTER", "MEET", "127.0.0.1", port + 2, port + 12)
        while not one.raw("GET", "a").startswith(b"-MOVED"):
            time.sleep(0.2)
        capture(Client(port), Client(port, 3), port + 1, folder)
    finally:
        for process in servers:
            process.terminate()


if __name__ == "__main__":
    main()
