#!/usr/bin/env python3
"""Stands in for the programs in docs/ that need a cluster, a container engine or a running systemd. Linked
under their names; each does as much of its work as can be done here, remembers what was made, and
refuses what it does not know: a command in the docs that names nothing real fails. The commands of kubectl
and helm are read by the real ones too, which get as far as the connection to a cluster.

KEYWAY_KUBECTL and KEYWAY_HELM are these two, DOC_SYSUSERS the real systemd-sysusers. DOC_FOLDER is the root that paths like /etc/keyway stand in, DOC_ADMIN the port of the probes, DOC_CA the
authority that a cluster's Secret would have, DOC_SERVICE the port of a Keyway that its Service leads to.
"""

import base64
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import manifests  # noqa: E402

FOLDER = pathlib.Path(os.environ["DOC_FOLDER"])


def need(condition, what):
    if not condition:
        sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {what}: {' '.join(sys.argv[1:])}")


# ---- a machine ------------------------------------------------------------------------------

INSTALLED = ("/usr/local/bin", "/etc/keyway")


def sudo(arguments):
    if arguments[0] == "-u":
        need(option(arguments, "-u") == unit("User")[0], "not the service's user")
    os.execvp(arguments[0], arguments)


def cargo(arguments):
    need(arguments == ["build", "--release"], "not known")
    (FOLDER / "target/release").mkdir(parents=True, exist_ok=True)
    shutil.copy(os.environ["KEYWAY_BIN"], FOLDER / "target/release/keyway")


def sysusers(arguments):
    need(not arguments, "not known")
    subprocess.run([os.environ["DOC_SYSUSERS"], f"--root={FOLDER}"], check=True)
    unit = (FOLDER / "deploy/systemd/keyway.service").read_text().splitlines()
    for key, made in ("User", "passwd"), ("Group", "group"):
        [name] = [line.split("=")[1] for line in unit if line.startswith(f"{key}=")]
        lines = (FOLDER / "etc" / made).read_text().splitlines()
        need(any(line.startswith(f"{name}:") for line in lines), f"no {key} {name}")


def journalctl(arguments):
    need(arguments[:2] == ["-u", "keyway"], "not known")
    print((FOLDER / "journal").read_text(), end="")


def unit(key):
    """What the installed unit says, with its paths in this folder."""
    text = (FOLDER / "etc/systemd/system/keyway.service").read_text()
    value = next(line.split("=", 1)[1] for line in text.splitlines() if line.startswith(key + "="))
    for path in INSTALLED:
        value = value.replace(path, f"{FOLDER}{path}")
    return value.split()


def systemctl(arguments):
    pid = FOLDER / "keyway.pid"
    if arguments in (["enable", "--now", "keyway"], ["restart", "keyway"]):
        stop(pid)
        for made in unit("LogsDirectory"):
            (FOLDER / "var/log" / made).mkdir(parents=True, exist_ok=True)
        with open(FOLDER / "journal", "a") as journal:
            started = subprocess.Popen(unit("ExecStart"), stdout=journal, stderr=journal, start_new_session=True)
        pid.write_text(str(started.pid))
        wait_ready()
    elif arguments == ["disable", "--now", "keyway"]:
        stop(pid)
    elif arguments == ["reload", "keyway"]:
        need(unit("ExecReload") == ["/bin/kill", "-HUP", "$MAINPID"], "another way")
        os.kill(int(pid.read_text()), signal.SIGHUP)
        wait_ready()
    elif arguments == ["status", "keyway"]:
        os.kill(int(pid.read_text()), 0)
    else:
        need(arguments == ["daemon-reload"], "not known")


def stop(pid):
    """As systemd does it: nothing follows before the process has ended."""
    if not pid.exists():
        return
    number = int(pid.read_text())
    os.kill(number, signal.SIGTERM)
    seconds = int(unit("TimeoutStopSec")[0].removesuffix("s"))
    for _ in range(seconds * 20):
        if ended(number):
            pid.unlink()
            return
        time.sleep(0.05)
    need(False, "did not end")


def ended(number):
    try:
        return pathlib.Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_ready():
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{os.environ['DOC_ADMIN']}/readyz", timeout=1)
            return
        except OSError:
            time.sleep(0.05)
    need(False, "not ready")


# ---- a cluster ------------------------------------------------------------------------------

STATE = FOLDER / "cluster.json"


def option(arguments, name):
    """Takes `name VALUE` out of the arguments."""
    if name not in arguments:
        return None
    at = arguments.index(name)
    return arguments.pop(at) and arguments.pop(at)


def asked(program, *arguments, given=None):
    """What the real program says to these arguments."""
    return subprocess.run([os.environ[program], *arguments], capture_output=True, text=True, input=given)


def alone(program, *arguments):
    """The real program does it all: no cluster is needed."""
    said = asked(program, *arguments)
    need(said.returncode == 0, said.stderr)
    print(said.stdout, end="", flush=True)


def understood(said):
    need(said.returncode != 0 and "refused" in said.stderr, f"not understood: {said.stderr}")


def kubectl(arguments):
    if arguments[0] == "kustomize" or "--dry-run=client" in arguments or "--local" in arguments:
        return alone("KEYWAY_KUBECTL", *arguments)
    given = sys.stdin.read() if arguments[-2:] == ["-f", "-"] else None
    understood(asked("KEYWAY_KUBECTL", "--server=http://127.0.0.1:1", *arguments, given=given))
    state = json.loads(STATE.read_text()) if STATE.exists() else []
    namespace = option(arguments, "--namespace")
    told = ("--timeout=", "--tail=", "--types=", "--prefix", "--ignore-errors", "--overwrite")
    arguments = [word for word in arguments if not word.startswith(told)]
    verb, *rest = arguments

    def find(kind, name):
        found = [
            one for one in state
            if (one["kind"].lower(), one["metadata"]["name"]) == (kind, name) and one["metadata"].get("namespace") == namespace
        ]
        need(found, f"there is no {kind} {name} in {namespace}")
        return found[0]

    if verb in ("apply", "delete") and rest[0] == "-k":
        made = manifests.kustomize(rest[1])
        if verb == "apply":
            kubernetes_takes(made)
            keyway_takes(made)
        free(state, made, of=rest[1])
        state = [one for one in state if place(one) not in map(place, made)]
        state += [{**one, "of": rest[1]} for one in made] if verb == "apply" else []
        secrets_exist(state)
    elif verb == "apply" and rest[:1] == ["-f"] and rest[1] != "-":
        made = manifests.resources(pathlib.Path(rest[1]).read_text())
        for one in made:
            one["metadata"]["namespace"] = namespace
        free(state, made, of=rest[1])
        state += made
    elif (verb, rest) == ("apply", ["-f", "-"]):
        state += made_of(given)
    elif verb == "create" and rest[0] == "namespace":
        state.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": rest[1]}})
    elif verb == "label" and rest[0] == "namespace":
        need(exists(state, rest[1]) and rest[2] == "pod-security.kubernetes.io/enforce=restricted", "not known")
    elif verb == "create" and rest[:2] == ["secret", "generic"]:
        need(rest[3].startswith("--from-literal="), "not known")
        state.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": rest[2], "namespace": namespace}})
    elif verb == "rollout":
        need(rest[0] in ("status", "restart"), "not known")
        find(*rest[1].split("/"))
    elif verb == "wait":
        scaler = find("horizontalpodautoscaler", rest[1].split("/")[1])["spec"]
        # A Deployment that says no number has one instance until it is scaled.
        need("replicas" not in find(*rest[1].split("/"))["spec"], "nothing to wait for")
        need(rest[0] == f"--for=jsonpath={{.spec.replicas}}={scaler['minReplicas']}", "never comes")
    elif verb == "events":
        need(not rest and exists(state, namespace), "not known")
    elif (verb, rest[:1]) in (("get", ["pods"]), ("annotate", ["pods"]), ("logs", ["-l"])):
        rest = rest[rest.index("-l") + 1:]
        key, value = rest[0].split("=")
        labels = [one["spec"]["template"]["metadata"]["labels"] for one in state if "template" in one.get("spec", {})]
        need(any(label.get(key) == value for label in labels), "no pods")
        need(verb != "annotate" or "=" in rest[1], "not known")
        if rest[1:] == ["-o", "name"]:
            print("pod/keyway-1")
    elif verb in ("exec", "debug"):
        words, command = rest[:rest.index("--")], rest[rest.index("--") + 1:]
        pod = find("deployment", "keyway")["spec"]["template"]["spec"]
        [container] = [one for one in pod["containers"] if one["name"] == "keyway"]
        if verb == "exec":
            # What the image has, and where the pod has its configuration.
            need(words == ["deployment/keyway"] and command[0] == "/keyway", "not known")
            need(command[2:] == container["args"][1:], "another configuration")
            keyway_takes(state)
        else:
            need(words[0] == "pod/keyway-1" and f"--target={container['name']}" in words, "no such container")
            need(command == ["kill", "-HUP", "1"], "not known")
    elif verb == "get" and rest[0] == "secret":
        need(rest[1] in secrets(state) and rest[3] == r"jsonpath={.data.ca\.crt}", "not known")
        print(base64.b64encode(pathlib.Path(os.environ["DOC_CA"]).read_bytes()).decode(), end="")
    elif verb == "port-forward":
        service = find(*rest[0].split("/"))
        here, there = map(int, rest[1].split(":"))
        need(there in [port["port"] for port in service["spec"]["ports"]], "no such port")
        return forward(here)
    else:
        need(False, "not known")
    STATE.write_text(json.dumps(state))


def place(one):
    return *manifests.name_of(one), one["metadata"].get("namespace")


def exists(state, namespace):
    return any(place(one) == ("v1", "Namespace", namespace, None) for one in state)


def free(state, made, of):
    """Nothing is written over that another command of the page has made, but for the namespace."""
    taken = [place(one) for one in state if one["kind"] != "Namespace" and one.get("of") != of]
    twice = [place(one) for one in made if place(one) in taken]
    need(not twice, f"already there: {twice}")


def kubernetes_takes(resources):
    """Held against the schemas of a version that has all that the page speaks of."""
    own = [one for one in resources if not one["apiVersion"].startswith(("cert-manager.io/", "monitoring.coreos.com/"))]
    path = FOLDER / "applied.yaml"
    path.write_text("\n---\n".join(map(json.dumps, own)))
    validate = pathlib.Path(sys.executable).with_name("kubernetes-validate")
    said = subprocess.run([validate, "-k", "1.35", "--strict", path], capture_output=True, text=True)
    need(said.returncode == 0, said.stdout + said.stderr)


def keyway_takes(resources):
    """What a pod would start with: configuration, certificate, and its environment from Secrets."""
    key, chain, zone = (FOLDER / name for name in ("pod.key", "pod.crt", "pod.zone"))
    if not key.exists():
        made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=keyway"]
        subprocess.run(["openssl", *made, "-keyout", key, "-out", chain], check=True, capture_output=True)
        zone.touch()
    variables = {one["name"]: "secret" for container in manifests.containers(resources) for one in container.get("env", [])}
    for one in resources:
        if one["kind"] == "ConfigMap":
            text = one["data"]["keyway.toml"]
            for path, here in ("tls/tls.key", key), ("tls/tls.crt", chain), ("pod/zone", zone):
                text = text.replace(f"/etc/keyway/{path}", str(here))
            path = FOLDER / "pod.toml"
            path.write_text(text)
            check = [os.environ["KEYWAY_BIN"], "check", "--config", path]
            said = subprocess.run(check, capture_output=True, text=True, env={**os.environ, **variables})
            need(said.returncode == 0, said.stderr)


def made_of(text):
    """What was piped into `kubectl apply`: ConfigMaps of dashboards, small enough for Kubernetes."""
    resources = manifests.resources(text)
    for one in resources:
        need(one["kind"] == "ConfigMap" and len(text) < 262144, "not known, or too big")
        need(one["metadata"]["labels"] and one["data"], "nothing to see")
        for name, dashboard in one["data"].items():
            need(name.endswith(".json") and json.loads(dashboard)["panels"], f"{name} is no dashboard")
    need(resources, "empty")
    return resources


def forward(port):
    """No sooner than the real one would be there, and until a client has had what it wanted."""
    time.sleep(0.7)
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(30)
        while not served(listener.accept()[0]):
            pass


def served(client):
    """Whether it was the client that left first."""
    with client, socket.create_connection(("127.0.0.1", int(os.environ["DOC_SERVICE"]))) as node:
        back = threading.Thread(target=pump, args=(node, client))
        back.start()
        pump(client, node)
        left_first = back.is_alive()
        back.join()
    return left_first


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError as error:
        print(f"port-forward: {error}", file=sys.stderr)


def secrets(state):
    made = [one["metadata"]["name"] for one in state if one["kind"] == "Secret"]
    return made + [one["spec"]["secretName"] for one in state if one["kind"] == "Certificate"]


def secrets_exist(state):
    for container in manifests.containers(state):
        for variable in container.get("env", []):
            wanted = variable.get("valueFrom", {}).get("secretKeyRef")
            need(not wanted or wanted["name"] in secrets(state), f"no Secret for {variable['name']}")


def helm(arguments):
    verb, *rest = arguments
    need(verb in ("install", "upgrade"), "not known")
    state = json.loads(STATE.read_text()) if STATE.exists() else []
    namespace = arguments[arguments.index("--namespace") + 1]
    need(exists(state, namespace) or "--create-namespace" in rest, "no such namespace")
    if verb == "upgrade":
        # It would look for what is installed.
        understood(asked("KEYWAY_HELM", *arguments, "--kube-apiserver=http://127.0.0.1:1"))
        return alone("KEYWAY_HELM", "template", *[word for word in rest if word != "--reuse-values"])
    made = manifests.resources(asked("KEYWAY_HELM", "template", *rest).stdout)
    need(made, "nothing is made")
    free(state, made, of=rest[0])
    issuers = [one["metadata"]["name"] for one in state if one["kind"] == "Issuer" and place(one)[-1] == namespace]
    wanted = [one["spec"]["issuerRef"]["name"] for one in made if one["kind"] == "Certificate"]
    need(set(wanted) <= set(issuers), f"there is no Issuer for {wanted}")
    alone("KEYWAY_HELM", *arguments, "--dry-run=client")


def docker(arguments):
    need(arguments[0] == "build" and arguments[-1] == ".", "not known")
    need(pathlib.Path(option(arguments, "-f")).exists(), "no Dockerfile")


PROGRAMS = {
    "sudo": sudo, "cargo": cargo, "systemd-sysusers": sysusers, "systemctl": systemctl,
    "journalctl": journalctl, "kubectl": kubectl, "helm": helm, "docker": docker,
}

if __name__ == "__main__":
    PROGRAMS[pathlib.Path(sys.argv[0]).name](sys.argv[1:])
