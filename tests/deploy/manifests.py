"""The manifests under deploy/ as JSON: the overlays as kubectl builds them, and what helm has rendered.

    manifests.py shipped     an object of lists of resources, by name

KEYWAY_KUBECTL says where tests/install has put kubectl.
"""

import json
import os
import pathlib
import subprocess
import sys

import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent.parent.parent / "deploy"


def said(program, *arguments):
    done = subprocess.run([os.environ[program], *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def resources(text):
    return [one for one in yaml.safe_load_all(text) if one]


def kustomize(folder):
    return resources(said("KEYWAY_KUBECTL", "kustomize", str(folder)))


def containers(resources):
    for one in resources:
        pod = one.get("spec", {}).get("template", {}).get("spec", {})
        yield from pod.get("initContainers", []) + pod.get("containers", [])


def name_of(resource):
    return resource["apiVersion"], resource["kind"], resource["metadata"]["name"]


def shipped():
    made = {overlay.name: kustomize(overlay) for overlay in sorted((DEPLOY / "kustomize/overlays").iterdir())}
    for kind in ("deployment", "daemonset"):
        made[f"chart, {kind}"] = resources((DEPLOY / f"helm/rendered/{kind}.yaml").read_text())
    return made


if __name__ == "__main__":
    assert sys.argv[1:] == ["shipped"], __doc__
    print(json.dumps(shipped()))
