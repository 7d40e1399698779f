"""Puts the manifests under deploy/ together without kubectl and helm, and checks what Kubernetes' own
schemas do not know.

    manifests.py kustomize FOLDER            an overlay, as one JSON list
    manifests.py helm CHART [VALUES]         a chart as helm template would print it
    manifests.py shipped                     all that is in deploy/, as one JSON object of lists
    manifests.py crds FILE                   the resources of other makers in a JSON list
    manifests.py values CHART [VALUES]       a chart's values against its schema

Of kustomize it knows resources, components, namespace, images and merge patches of whole files; of
Go's templates what `render` says. What it does not know is an error, never left out.
"""

import copy
import json
import pathlib
import re
import sys

import jsonschema
import yaml

HERE = pathlib.Path(__file__).parent


# ---- kustomize ------------------------------------------------------------------------------

KNOWN = {"apiVersion", "kind", "resources", "components", "namespace", "patches", "images"}
CLUSTER_SCOPED = {"Namespace"}


def kustomize(folder):
    folder = pathlib.Path(folder)
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert not plan.keys() - KNOWN, f"{folder}: cannot do {plan.keys() - KNOWN}"
    made = []
    for name in plan.get("resources", []) + plan.get("components", []):
        path = folder / name
        made += kustomize(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for patch in plan.get("patches", []):
        assert patch.keys() == {"path"}, f"{folder}: cannot do {patch}"
        apply(made, yaml.safe_load((folder / patch["path"]).read_text()))
    for image in plan.get("images", []):
        assert image.keys() == {"name", "newName", "newTag"}, f"{folder}: cannot do {image}"
        for container in containers(made):
            if container["image"].rpartition(":")[0] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    for one in made:
        if "namespace" in plan and one["kind"] not in CLUSTER_SCOPED:
            one["metadata"]["namespace"] = plan["namespace"]
    names = [name_of(one) for one in made]
    assert len(names) == len(set(names)), f"{folder}: twice in {names}"
    return made


def containers(resources):
    for one in resources:
        pod = one.get("spec", {}).get("template", {}).get("spec", {})
        yield from pod.get("initContainers", []) + pod.get("containers", [])


def name_of(resource):
    return resource["apiVersion"], resource["kind"], resource["metadata"]["name"]


def apply(resources, patch):
    targets = [one for one in resources if name_of(one) == name_of(patch)]
    assert len(targets) == 1, f"{name_of(patch)} is there {len(targets)} times"
    merge(targets[0], patch)


# The lists of pods that are merged by a key, in Kubernetes' own types; all others are replaced.
BY_KEY = {"containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}


def merge(into, patch):
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        elif key in BY_KEY and key in into:
            merge_list(into[key], value, BY_KEY[key])
        else:
            into[key] = copy.deepcopy(value)


def merge_list(into, patch, key):
    new = []
    for value in patch:
        known = [one for one in into if one[key] == value[key]]
        if known:
            merge(known[0], value)
        else:
            new.append(copy.deepcopy(value))
    into[:0] = new


# ---- helm -----------------------------------------------------------------------------------


def helm(chart, values_file=None):
    """All templates of a chart, as `helm template keyway CHART --namespace keyway` prints them."""
    chart = pathlib.Path(chart)
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    data = {
        "Values": values_of(chart, values_file),
        "Release": {"Name": "keyway", "Namespace": "keyway"},
        "Chart": {"Name": about["name"], "AppVersion": about["appVersion"]},
    }
    printed = []
    for template in sorted((chart / "templates").glob("*.yaml")):
        text = render(template.read_text(), data).strip("\n")
        if text.strip():
            printed.append(f"---\n# Source: {about['name']}/templates/{template.name}\n{text}\n")
    return "".join(printed)


def values_of(chart, values_file):
    values = yaml.safe_load((pathlib.Path(chart) / "values.yaml").read_text())
    if values_file:
        merge(values, yaml.safe_load(pathlib.Path(values_file).read_text()))
    return values


ACTION = re.compile(r"(\s*\{\{-|\{\{)\s(.*?)\s(-\}\}\s*|\}\})", re.DOTALL)


def render(text, data):
    """Text with `if`, `else`, `end`, and pipelines of paths, quoted words, numbers and the functions
    toYaml, nindent, quote, eq, and, not."""
    out, stack, at = [], [], 0
    for action in ACTION.finditer(text):
        if all(stack):
            out.append(text[at : action.start()])
        at = action.end()
        word, _, rest = action[2].partition(" ")
        if word == "if":
            stack.append(bool(pipeline(rest, data)))
        elif word == "else":
            assert not rest, f"cannot do else {rest}"
            stack[-1] = not stack[-1]
        elif word == "end":
            stack.pop()
        elif all(stack):
            out.append(str(pipeline(action[2], data)))
    assert not stack, "an if without its end"
    out.append(text[at:])
    text = "".join(out)
    assert "{{" not in text and "}}" not in text, "braces that were not understood"
    return text


def pipeline(text, data):
    value = ()
    for call in text.split(" | "):
        name, *words = call.split()
        arguments = [term(word, data) for word in words] + ([value] if value != () else [])
        value = FUNCTIONS[name](*arguments) if name in FUNCTIONS else term(name, data)
    return value


def term(word, data):
    if word.startswith("."):
        for key in word[1:].split("."):
            data = data[key]  # a value that the chart does not have is an error
        return data
    return json.loads(word)


def nindent(width, text):
    return "\n" + "\n".join(" " * width + line if line else line for line in text.split("\n"))


FUNCTIONS = {
    "toYaml": lambda value: yaml.safe_dump(value, default_flow_style=False, width=1000).rstrip("\n"),
    "nindent": nindent,
    "quote": json.dumps,
    "eq": lambda a, b: a == b,
    "and": lambda a, b: a and b,
    "not": lambda a: not a,
}


def shipped():
    """The overlays, and the chart in both of its kinds, by name."""
    deploy = HERE.parent.parent / "deploy"
    overlays = sorted((deploy / "kustomize/overlays").iterdir())
    made = {overlay.name: kustomize(overlay) for overlay in overlays}
    for kind, values_file in ("deployment", None), ("daemonset", deploy / "helm/rendered/daemonset.values.yaml"):
        text = helm(deploy / "helm/keyway", values_file)
        made[f"chart, {kind}"] = [one for one in yaml.safe_load_all(text) if one]
    return made


# ---- checks ---------------------------------------------------------------------------------


def crds(file):
    schemas = json.loads((HERE / "crds.json").read_text())
    for one in json.loads(pathlib.Path(file).read_text()):
        group = one["apiVersion"].split("/")[0]
        if group in schemas["groups"]:
            schema = {**schemas["kinds"][one["kind"]], "definitions": schemas["definitions"]}
            jsonschema.validate({key: one[key] for key in one if key != "metadata"}, schema)


def values(chart, values_file=None):
    schema = json.loads((pathlib.Path(chart) / "values.schema.json").read_text())
    jsonschema.validate(values_of(chart, values_file), schema)


def main():
    command, *arguments = sys.argv[1:]
    if command == "kustomize":
        print(json.dumps(kustomize(*arguments), indent=1))
    elif command == "helm":
        print(helm(*arguments), end="")
    elif command == "shipped":
        print(json.dumps(shipped()))
    else:
        {"crds": crds, "values": values}[command](*arguments)


if __name__ == "__main__":
    main()
