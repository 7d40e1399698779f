#!/usr/bin/env python3
"""Fills in the replies of captured/cluster/*.txt from a real cluster.

usage: capture_cluster.py VALKEY_SERVER [FILE...]

For every file three nodes are started: `a` and `b` with half of the slots each, `r` a replica of
`a`. The lines are those of capture.py, and `@ NODE [new]` turns to a node. Node ids and ports are
written as <id NODE> and <port NODE>.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import time

import capture

FOLDER = capture.FOLDER / "cluster"
HALF = 8192


class Nodes:
    def __init__(self, binary, folder):
        self.processes, self.ports, self.admin = [], {}, {}
        for name in "abr":
            sub = pathlib.Path(folder) / name
            sub.mkdir()
            process, port = capture.start(binary, str(sub), "--cluster-node-timeout", "2000",
                                          "--repl-ping-replica-period", "1")
            self.processes.append(process)
            self.ports[name] = port
            self.admin[name] = capture.connect(port)
        self.ids = {name: self.ask(name, "CLUSTER MYID").split(b"\r\n")[1].decode() for name in "abr"}
        for epoch, name in enumerate("abr", 1):
            self.ask(name, f"CLUSTER SET-CONFIG-EPOCH {epoch}")
        self.ask("a", f"CLUSTER ADDSLOTSRANGE 0 {HALF - 1}")
        self.ask("b", f"CLUSTER ADDSLOTSRANGE {HALF} 16383")
        for name in "br":
            self.ask(name, f"CLUSTER MEET 127.0.0.1 {self.ports['a']}")
        self.wait(lambda: all(self.ask(n, "CLUSTER NODES").count(b"connected") == 3 for n in "abr"))
        self.wait(lambda: self.ask("r", f"CLUSTER REPLICATE {self.ids['a']}") == b"+OK\r\n")
        self.wait(lambda: all(b"cluster_state:ok" in self.ask(n, "CLUSTER INFO") for n in "abr"))
        self.wait(lambda: b"master_link_status:up" in self.ask("r", "INFO replication"))
        self.wait(lambda: all(b"slave" in self.ask(n, "CLUSTER NODES") for n in "abr"))

    def ask(self, name, words):
        return self.admin[name].ask(*words.encode().split(b" "))

    def wait(self, condition):
        for _ in range(300):
            if condition():
                return
            time.sleep(0.1)
        sys.exit("the cluster did not come up")

    def settle(self):
        """Waits until the replica has what the primary has."""
        self.ask("a", "WAIT 1 1000")
        time.sleep(0.05)

    def stop(self):
        for process in self.processes:
            process.terminate()
            process.wait()

    def fill_in(self, line):
        return re.sub(r"<(id|port) (\w)>", lambda m: str(self.table(m[1])[m[2]]), line)

    def table(self, what):
        return self.ids if what == "id" else self.ports

    def abstract(self, reply):
        text = capture.escape(reply)
        for name in "abr":
            text = text.replace(self.ids[name], f"<id {name}>")
            text = text.replace(f":{self.ports[name]}", f":<port {name}>")
        return text


def replies(binary, lines, proto):
    out, connections, current = [], {}, None
    with tempfile.TemporaryDirectory() as folder:
        nodes = Nodes(binary, folder)
        try:
            for line in lines:
                if line.startswith("@ "):
                    current, *new = line[2:].split(" ")
                    if new:
                        connections[current] = capture.connect(nodes.ports[current])
                        connections[current].ask(b"HELLO", proto)
                    nodes.settle()
                elif line.startswith("> "):
                    request = capture.arguments(nodes.fill_in(line))
                    out.append(nodes.abstract(connections[current].ask(*request)))
        finally:
            nodes.stop()
    return out


def main():
    binary, *files = sys.argv[1:]
    for path in map(pathlib.Path, files or sorted(FOLDER.glob("*.txt"))):
        capture.fill(path, lambda lines, proto: replies(binary, lines, proto))


main()
