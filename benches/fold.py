"""Folded stacks of a Keyway process, from `inferno-collapse-perf`, made readable.

What is kept of a stack: whether a client's or a node's socket is served, functions of Keyway, TLS,
system calls and what the kernel does in them. Generics, closures, the standard library and the
runtime's own frames go; their time stays with the frame that called them.
"""

import re
import sys

OURS = re.compile(r"\b(keyway|dataplane|session|upstream|resp|routing|command|topology|heat)::")
# Frames of the kernel that say something, and what they say.
KERNEL = {
    "tcp_sendmsg": "TCP: send",
    "tcp_recvmsg": "TCP: receive",
    "process_backlog": "loopback: the receiver's TCP",
    "sock_def_readable": "wakes the receiver",
    "ep_poll": "waits for events",
    "schedule": "schedules",
}
SYSTEM_CALL = re.compile(r"^(?:__x64_sys_|__sys_|do_)(sendto|recvfrom|writev|epoll_wait|epoll_ctl|close|read|write)$")


def plain(frame: str) -> str:
    """The frame's path without generics, closures and implementations."""
    before = None
    while before != frame:
        before, frame = frame, re.sub(r"<[^<>]*>|\{[^{}]*\}", "", frame)
    parts = [part for part in frame.replace(" as ", "::").split("::") if part.strip("<> ")]
    return "::".join(parts[-2:])


def readable(frames: list[str]) -> list[str]:
    """The frames that are kept of one stack."""
    kept = [frames[0]]
    side = next((name for name, where in (("clients", "keyway::downstream::"), ("nodes", "keyway::upstream::"))
                 if any(where in frame for frame in frames)), "runtime")
    if frames[0].startswith("worker"):
        kept.append(side)
    for frame in frames[1:]:
        call = SYSTEM_CALL.match(frame)
        if call:
            name = f"{call[1]}()"
        elif frame in KERNEL:
            name = KERNEL[frame]
        elif frame.startswith("aws_lc"):
            name = "AES-GCM" if "gcm" in frame.lower() or "aead" in frame.lower() else "aws-lc"
        elif "process_tls_records" in frame or frame.startswith("<rustls") or frame.startswith("rustls::"):
            name = "rustls"
        elif OURS.match(frame.lstrip("<")):
            name = plain(frame)
        else:
            continue
        if name and kept[-1] != name:
            kept.append(name)
    return kept


def main() -> None:
    """Filters standard input."""
    sums: dict[str, int] = {}
    for line in sys.stdin:
        stack, count = line.rsplit(" ", 1)
        key = ";".join(readable(stack.split(";")))
        sums[key] = sums.get(key, 0) + int(count)
    for key, count in sorted(sums.items()):
        print(key, count)


main()
