"""The status page in Chromium, before a demo under load. See tests/page."""

import json
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from playwright.sync_api import expect, sync_playwright

DOCS = pathlib.Path(__file__).parent.parent / "docs"
PORTS = {"--port": 0, "--read-port": 0, "--admin-port": 0}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Demo:
    """A demo of its own, and clients that keep it busy."""

    def __init__(self, keyway):
        self.folder = tempfile.TemporaryDirectory()
        self.ports = {option: free_port() for option in PORTS}
        arguments = [str(part) for pair in self.ports.items() for part in pair]
        self.child = subprocess.Popen(
            [keyway, "demo", "--dir", self.folder.name, *arguments], stdout=subprocess.DEVNULL
        )
        self.url = f"http://127.0.0.1:{self.ports['--admin-port']}"
        self.ended = threading.Event()

    def wait(self):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(self.url + "/readyz", timeout=2).read()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("the demo is not ready")

    def client(self, port):
        trust = ssl.create_default_context(cafile=f"{self.folder.name}/ca.pem")
        plain = socket.create_connection(("127.0.0.1", self.ports[port]))
        return trust.wrap_socket(plain, server_hostname="localhost")

    def load(self, port):
        with self.client(port) as client:
            number = 0
            while not self.ended.is_set():
                command = "EXISTS" if port == "--read-port" else "INCR"
                keys = [f"k{(number + step) % 5000}" if step < 6 else f"hot{step}" for step in range(8)]
                number += 8
                client.sendall("".join(f"{command} {key}\r\n" for key in keys).encode())
                left = 8
                while left > 0:
                    replies = client.recv(65536)
                    if not replies:
                        return
                    left -= replies.count(b":")

    def end(self):
        self.ended.set()
        self.child.terminate()
        self.child.wait(20)
        self.folder.cleanup()


def look(browser, demo, **options):
    """A page that must load nothing but its own, and break nothing."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.troubles = []
    page.on("console", lambda said: said.type == "error" and page.troubles.append(said.text))
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith((demo.url, "data:")) or page.troubles.append(asked.url))
    return page


def opened(page, demo):
    answer = page.goto(demo.url + "/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy, policy
    page.wait_for_selector("body[data-live=yes]")
    assert not page.troubles, page.troubles
    return page


def fits(page):
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"the page is {wide} px too wide"


def everything_is_there(page, demo):
    expect(page.locator("#state")).to_contain_text("ready")
    page.wait_for_function("Number(document.getElementById('rate').textContent.replace(/,/g, '')) > 0", timeout=20000)
    page.wait_for_function("document.querySelectorAll('#latency td')[2].textContent !== '-'", timeout=30000)
    assert page.locator("#latency tr").count() == 5
    expect(page.locator("#latency")).to_contain_text("client TLS")
    page.wait_for_function("document.querySelectorAll('#latency td')[14].textContent !== '-'", timeout=30000)
    expect(page.locator("#phases-caption")).to_contain_text("From left to right, by p50: client TLS ", timeout=30000)
    bars = page.locator("#phases rect")
    wide = sum(bars.nth(index).bounding_box()["width"] for index in range(bars.count()))
    assert abs(wide - page.locator("#phases").bounding_box()["width"]) < 4, wide
    assert page.locator("#covered").inner_text() == "16384 of 16384 have an owner"
    shards = page.locator("#strip rect[data-shard]")
    assert shards.count() == 3, shards.count()
    assert page.locator("#strip text").count() == 3
    fills = {shards.nth(index).get_attribute("fill") for index in range(3)}
    assert len(fills) == 3, fills
    assert page.locator("#nodes h3").count() == 3  # zones
    told = json.load(urllib.request.urlopen(demo.url + "/topology"))
    for shard in told["shards"]:
        for node in shard["nodes"]:
            expect(page.locator("#nodes")).to_contain_text(node["address"])
    expect(page.locator("#nodes")).to_contain_text("online")
    expect(page.locator("#events")).to_contain_text("found 3 shards, 6 nodes")
    expect(page.locator("#certificates")).to_contain_text("days")
    assert page.locator("#heat rect").count() == 256
    expect(page.locator("#heat-caption")).to_contain_text("times the mean")
    expect(page.locator("#hot-keys")).to_contain_text("hot7", timeout=20000)  # the demo shows keys
    assert page.locator("#hot-slots tr").count() == 8
    fits(page)


def a_failover_shows(page, demo):
    """A replica of the embedded cluster takes over."""
    told = json.load(urllib.request.urlopen(demo.url + "/topology"))
    replica = next(node["address"] for node in told["shards"][0]["nodes"] if node["role"] == "replica")
    host, port = replica.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as node:
        node.sendall(b"CLUSTER FAILOVER\r\n")
        reply = node.recv(100)
        assert reply == b"+OK\r\n", reply
    expect(page.locator("#events")).to_contain_text(f"{replica} became primary", timeout=20000)


def what_is_wrong_shows(page, demo):
    """A cluster that is unwell, as the proxy would tell it."""

    def status(route):
        told = route.fetch().json()
        told.update(ready=False, not_ready_because="100 slots have no owner")
        told["nodes"][0].update(health="failed", trouble="Connection refused")
        told["certificates"][0].update(days_left=3)
        route.fulfill(json=told)

    def topology(route):
        told = route.fetch().json()
        told["slots_covered"] = 16284
        told["revision"] += 1
        told["events"].append({
            "at_ms": told["events"][0]["at_ms"], "until_ms": told["events"][0]["at_ms"] + 9000, "revision": 2,
            "kind": "failover", "what": "<b>10.0.0.9:6379</b> became primary", "why": "a node redirected a command",
        })
        route.fulfill(json=told)

    def heat(route):
        told = route.fetch().json()
        told["keys"][0]["key"] = "<i>key</i>"
        route.fulfill(json=told)

    page.route("**/heat", heat)
    expect(page.locator("#hot-keys")).to_contain_text("<i>key</i>")
    page.route("**/status", status)
    page.route("**/topology", topology)
    expect(page.locator("#state")).to_contain_text("not ready: 100 slots have no owner")
    expect(page.locator("#covered")).to_contain_text("16284 of 16384")
    expect(page.locator("#nodes")).to_contain_text("no connection")
    expect(page.locator("#certificates")).to_contain_text("! 3 days")
    # Text from outside stays text.
    expect(page.locator("#events")).to_contain_text("failover: <b>10.0.0.9:6379</b> became primary")
    page.unroute("**/status")
    page.route("**/status", lambda route: route.abort())
    expect(page.locator("#state")).to_contain_text("does not answer")


def main():
    keyway, *options = sys.argv[1:]
    demo = Demo(keyway)
    try:
        demo.wait()
        for port in ("--port", "--port", "--read-port", "--read-port"):
            threading.Thread(target=demo.load, args=(port,), daemon=True).start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            desk = {"viewport": {"width": 1200, "height": 900}}
            light = opened(look(browser, demo, color_scheme="light", **desk), demo)
            everything_is_there(light, demo)
            dark = opened(look(browser, demo, color_scheme="dark", **desk), demo)
            everything_is_there(dark, demo)
            ground = "getComputedStyle(document.body).backgroundColor"
            assert light.evaluate(ground) != dark.evaluate(ground)
            phone = opened(look(browser, demo, viewport={"width": 390, "height": 844}, has_touch=True), demo)
            everything_is_there(phone, demo)
            strip = phone.locator("#strip").bounding_box()["width"]
            parts = phone.locator("#strip rect[data-shard]")
            filled = sum(parts.nth(index).bounding_box()["width"] for index in range(3))
            assert abs(filled - strip) < 4, (filled, strip)
            a_failover_shows(light, demo)
            if "--screenshots" in options:
                time.sleep(20)  # for charts with something in them
                light.screenshot(path=DOCS / "status-light.png", full_page=True)
                dark.screenshot(path=DOCS / "status-dark.png", full_page=True)
                phone.screenshot(path=DOCS / "status-phone.png", full_page=True)
            assert not (light.troubles + dark.troubles + phone.troubles), light.troubles
            what_is_wrong_shows(light, demo)
            browser.close()
    finally:
        demo.end()
    print("the status page: everything is as it should be")


main()
