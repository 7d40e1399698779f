#!/usr/bin/env python3
"""Writes the dashboards beside this file: `python3 deploy/grafana/generate.py [FOLDER]`.

Change them here, not in Grafana: a test holds the JSON to what this writes, gives every expression
to promtool, and looks for every metric in what `keyway --list-metrics` prints.
"""

import json
import pathlib
import sys

WHERE = 'job="keyway",namespace=~"$namespace",instance=~"$instance"'
PER_SECOND = "[$__rate_interval]"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24


# What the process has only once, however many clusters it serves; all else has the label `cluster`, when
# there are several. Where there is none, "All" asks for that too.
OF_THE_PROCESS = ("up", "keyway_build_info", "keyway_config_reloads_total", "keyway_traces_total", "process_")


def metric(name, labels=""):
    of_a_cluster = '' if name.startswith(OF_THE_PROCESS) else ',cluster=~"$cluster"'
    return f"{name}{{{WHERE}{of_a_cluster}{',' + labels if labels else ''}}}"


def rate(name, labels="", by=""):
    """The sum of a counter's rates, over everything or for each value of a label."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric(name, labels)}{PER_SECOND}))"


def quantile(share):
    buckets = rate("keyway_request_duration_seconds_bucket", by="le")
    return f"histogram_quantile({share}, {buckets})"


FAILED = 'kind=~"unavailable|unknown_outcome|overtaken"'


def panel(title, kind, unit, targets, about="", width=8, height=8, **more):
    """A panel; `targets` are pairs of expression and legend."""
    defaults = {"unit": unit, "min": 0, **more.pop("defaults", {})}
    made = {
        "title": title,
        "description": about,
        "type": kind,
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + i), "expr": expr, "legendFormat": legend, "datasource": DATASOURCE}
            for i, (expr, legend) in enumerate(targets)
        ],
    }
    made.update(more)
    return made


def graph(title, unit, *targets, about="", stacked=False, width=8, limit=None):
    custom = {"fillOpacity": 10, "showPoints": "never"}
    if stacked:
        custom = {"fillOpacity": 40, "showPoints": "never", "stacking": {"mode": "normal", "group": "A"}}
    defaults = {"custom": custom}
    if limit is not None:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        defaults["thresholds"] = steps(limit)
    legend = {"displayMode": "table", "placement": "bottom", "calcs": ["mean", "max"], "showLegend": True}
    options = {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel(title, "timeseries", unit, targets, about, width, options=options, defaults=defaults)


def steps(limit, below="green", above="red"):
    return {
        "mode": "absolute",
        "steps": [{"color": below, "value": None}, {"color": above, "value": limit}],
    }


def stat(title, unit, expr, about="", thresholds=None, legend="", width=4):
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value" if thresholds else "none",
        "textMode": "name" if legend else "auto",
    }
    defaults = {"thresholds": thresholds} if thresholds else {}
    return panel(title, "stat", unit, [(expr, legend or title)], about, width, 4, options=options, defaults=defaults)


def overview():
    failed = f"{rate('keyway_errors_total', FAILED)} / {rate('keyway_requests_total')}"
    recorded = '{job="keyway",namespace=~"$namespace"}'
    return [
        ("Now", [
            stat("Instances that answer", "short", f"sum({metric('up')})"),
            stat("Slots with an owner", "short", f"min({metric('keyway_topology_slots_covered')})",
                 "Of 16384, as the instance that knows the fewest sees it.", steps(16384, "red", "green")),
            stat("Clients", "short", f"sum({metric('keyway_client_connections')})"),
            stat("Commands a second", "ops", rate("keyway_requests_total")),
            stat("Failed", "percentunit", failed, "Commands that failed through no fault of the client.", steps(0.001)),
            stat("Version", "none", f"count by (version) ({metric('keyway_build_info')})", legend="{{version}}"),
        ]),
        ("Rate, errors, duration", [
            graph("Commands by instance", "ops", (rate("keyway_requests_total", by="instance"), "{{instance}}")),
            graph("Errors that Keyway gave", "ops", (rate("keyway_errors_total", by="kind"), "{{kind}}"),
                  about="Errors of the nodes are passed on and not counted here."),
            graph("Duration", "s", (quantile(0.5), "p50"), (quantile(0.99), "p99"), (quantile(0.999), "p999"),
                  about="From a command's arrival to the last byte of its reply; commands that block count with their wait."),
            graph("Where the time goes, in the mean", "s",
                  (f"{rate('keyway_request_phase_seconds_sum', by='phase')} / {rate('keyway_request_phase_seconds_count', by='phase')}", "{{phase}}"),
                  about="By a sample. client_tls: TLS and reading on the client's side, both ways. "
                        "queue: until written to the node. node: the network and the node.", stacked=True, width=12),
            graph("Where the time goes, p99", "s",
                  (f"histogram_quantile(0.99, {rate('keyway_request_phase_seconds_bucket', by='le, phase')})", "{{phase}}"),
                  about="Of each part for itself; they do not add up.", width=12),
            graph("Share that failed, against the objective of 99.9 %", "percentunit",
                  (f"namespace_job:keyway_failures:ratio_rate5m{recorded}", "5 minutes"),
                  (f"namespace_job:keyway_failures:ratio_rate1h{recorded}", "1 hour"),
                  (f"namespace_job:keyway_failures:ratio_rate6h{recorded}", "6 hours"), limit=0.001, width=12,
                  about="Of all clusters, from the recording rules in deploy/prometheus/rules.yml."),
            graph("Ten most used commands", "ops",
                  (f"topk(10, {rate('keyway_requests_total', by='command')})", "{{command}}"), width=12),
        ]),
        ("Topology", [
            graph("Changes of the topology", "short", (f"max(changes({metric('keyway_topology_revision')}{PER_SECOND}))", "changes"),
                  about="Moves of slots, failovers, nodes that come and go."),
            graph("Slots with an owner that is served, by instance", "short",
                  (f"min by (instance) ({metric('keyway_topology_slots_served')})", "{{instance}}"),
                  about="Of 16384. Fewer: their owners are down or out of reach, or there is none."),
            graph("Redirects", "ops", (rate("keyway_redirects_total", by="kind"), "{{kind}}"), about="Clients do not see these."),
        ]),
        ("Process", [
            graph("Processor", "none", (rate("process_cpu_seconds_total", by="instance"), "{{instance}}"), about="Cores in use.", width=6),
            graph("Memory", "bytes", (f"sum by (instance) ({metric('process_resident_memory_bytes')})", "{{instance}}"), width=6),
            graph("Open files of those allowed", "percentunit",
                  (f"{metric('process_open_fds')} / {metric('process_max_fds')}", "{{instance}}"), limit=0.8, width=6),
            graph("Up since", "s", (f"time() - {metric('process_start_time_seconds')}", "{{instance}}"), width=6),
        ]),
    ]


def upstream():
    own = rate("keyway_reads_total", 'zone="own"')
    return [
        ("Zones", [
            stat("Reads in the own zone", "percentunit", f"{own} / {rate('keyway_reads_total')}",
                 "Of the reads for which a replica would do (READONLY, the read port).", width=6),
            stat("Bytes to and from other zones", "Bps",
                 rate("keyway_upstream_received_bytes_total", 'zone="other"') + " + " + rate("keyway_upstream_sent_bytes_total", 'zone="other"'),
                 "What clouds charge for.", width=6),
            stat("Node connections", "short", f"sum({metric('keyway_upstream_connections')})", width=6),
            stat("Commands in flight", "short", f"sum({metric('keyway_upstream_in_flight')})", width=6),
            graph("Reads by zone", "ops", (rate("keyway_reads_total", by="zone"), "{{zone}}"), stacked=True),
            graph("Bytes from nodes by zone", "Bps", (rate("keyway_upstream_received_bytes_total", by="zone"), "{{zone}}"), stacked=True),
            graph("Bytes to nodes by zone", "Bps", (rate("keyway_upstream_sent_bytes_total", by="zone"), "{{zone}}"), stacked=True),
        ]),
        ("Nodes", [
            graph("Mean time of a command at its node", "s",
                  (f"{rate('keyway_node_command_seconds_total', by='node')} / {rate('keyway_node_commands_total', by='node')}", "{{node}}"), width=12,
                  about="What nodes say of themselves (INFO commandstats), of all of their clients. Known while they are watched: with a read "
                        "port, while clients read from replicas, or somebody looks at a status page."),
            graph("Time at work, of a second", "percentunit",
                  (f"max by (cluster, node) (rate({metric('keyway_node_command_seconds_total')}{PER_SECOND}))", "{{node}}"), width=12,
                  about="How much of the time a node is busy with commands."),
        ]),
        ("Connections", [
            graph("Connections by state", "short", (f"sum by (state) ({metric('keyway_upstream_connections')})", "{{state}}")),
            graph("Attempts to connect", "ops", (rate("keyway_upstream_connects_total", by="result"), "{{result}}")),
            graph("Commands in flight, by instance", "short", (f"sum by (instance) ({metric('keyway_upstream_in_flight')})", "{{instance}}")),
            graph("Nodes that owed an answer", "ops", (rate("keyway_upstream_stalls_total", by="instance"), "{{instance}}"),
                  about="For half a second; they are sent nothing more until they answer."),
            graph("Replies that could not be trusted", "short",
                  (f"sum by (reason) (increase({metric('keyway_upstream_poisoned_total')}{PER_SECOND}))", "{{reason}}"),
                  about="Should be none, ever; see docs/runbooks/KeywayReplyMismatch.md."),
            graph("Questions for the topology", "ops", (rate("keyway_topology_looks_total", by="result"), "{{result}}")),
        ]),
        ("Redirects", [
            graph("Redirects by kind", "ops", (rate("keyway_redirects_total", by="kind"), "{{kind}}"), stacked=True, width=12),
            graph("Redirects for each command", "percentunit",
                  (f"{rate('keyway_redirects_total')} / {rate('keyway_requests_total')}", "share"), limit=0.05, width=12),
        ]),
    ]


def clients():
    bad = 'result=~"tls|plaintext|timeout|evicted"'
    return [
        ("Connections", [
            graph("Clients", "short", (f"sum by (instance) ({metric('keyway_client_connections')})", "{{instance}}")),
            graph("Clients of those allowed", "percentunit",
                  (f"{metric('keyway_client_connections')} / {metric('keyway_client_connections_max')}", "{{instance}} {{cluster}}"), limit=0.8),
            graph("New connections", "ops", (rate("keyway_client_connections_total", by="instance"), "{{instance}}")),
            graph("Bytes that wait for clients", "bytes",
                  (f"sum by (instance) ({metric('keyway_client_waiting_bytes')})", "{{instance}}"), width=12,
                  about="Replies that clients have not read yet, and commands that they have half sent."),
            graph("Waiting bytes of those allowed", "percentunit",
                  (f"{metric('keyway_client_waiting_bytes')} / {metric('keyway_client_waiting_bytes_max')}", "{{instance}} {{cluster}}"), limit=0.8,
                  width=12, about="At 1, the clients for which most waits are closed; the log says which."),
        ]),
        ("TLS", [
            graph("Handshakes by how they ended", "ops", (rate("keyway_handshakes_total", by="result"), "{{result}}"), stacked=True, width=12,
                  about="io: the connection broke, as probes and balancers do. no_place: more clients than allowed."),
            graph("Handshakes that failed", "percentunit",
                  (rate("keyway_handshakes_total", bad) + " / " + rate("keyway_handshakes_total", 'result!="io"'), "share"), limit=0.2, width=12,
                  about="Without connections that broke before they said anything."),
        ]),
        ("Traffic", [
            graph("Bytes from and to clients", "Bps", (rate("keyway_client_bytes_total", by="direction"), "{{direction}}"), about="Before TLS."),
            graph("Bytes for each command", "bytes",
                  (rate("keyway_client_bytes_total", 'direction="in"') + " / " + rate("keyway_requests_total"), "in"),
                  (rate("keyway_client_bytes_total", 'direction="out"') + " / " + rate("keyway_requests_total"), "out")),
            graph("What clients did wrong", "ops",
                  (rate("keyway_errors_total", 'kind=~"protocol|refused|auth"', by="kind"), "{{kind}}"),
                  about="protocol: broken frames. refused: unknown, malformed or refused commands. auth: no credentials, or wrong ones."),
            graph("Commands", "ops", (f"topk(20, {rate('keyway_requests_total', by='command')})", "{{command}}"), stacked=True, width=24),
        ]),
    ]


def heat():
    ten = metric("keyway_hot_slots_ratio", 'top="10"')
    first = metric("keyway_hot_keys_ratio", 'top="1"')
    def shards(name):
        return f"sum by (cluster, shard) ({metric(name)})"

    def busiest(name):
        return f"max by (cluster) ({shards(name)}) / avg by (cluster) ({shards(name)})"

    operations, volume = "keyway_shard_operations_per_second", "keyway_shard_bytes_per_second"
    lately = "What is ten seconds old counts half. Several instances before one cluster add up."
    return [
        ("How even", [
            stat("Hottest slot, of the mean", "none", f"max({metric('keyway_slot_max_over_mean')})",
                 "1 is even; a single hot key can be all of a slot.", width=6),
            stat("Share of the ten hottest slots", "percentunit", f"max({ten})",
                 "Of all commands with keys.", width=6),
            stat("Share of the hottest key", "percentunit", f"max({first})",
                 "By a sample. Its name: KEYWAY HOTKEYS.", steps(0.1), width=6),
            stat("Biggest value", "bytes", f"max({metric('keyway_value_max_bytes')})",
                 "Read or written within ten minutes. Its name: KEYWAY BIGKEYS.", steps(1 << 20), width=6),
        ]),
        ("Shards", [
            graph("Commands by shard", "ops", (shards(operations), "shard {{shard}} {{cluster}}"),
                  about=lately, stacked=True, width=12),
            graph("Bytes by shard", "Bps", (shards(volume), "shard {{shard}} {{cluster}}"),
                  about=lately, stacked=True, width=12),
            graph("Busiest shard, of the mean", "none",
                  (busiest(operations), "commands {{cluster}}"), (busiest(volume), "bytes {{cluster}}"), about="1 is even.", width=12),
            graph("Reads and writes", "ops", (rate("keyway_slot_operations_total", by="kind"), "{{kind}}"),
                  about="Commands with keys that nodes have answered; those of a transaction count each.", width=12),
        ]),
        ("Slots and keys", [
            graph("Share of the hottest slots", "percentunit", (f"max by (top) ({metric('keyway_hot_slots_ratio')})", "top {{top}}")),
            graph("Share of the hottest keys", "percentunit", (f"max by (top) ({metric('keyway_hot_keys_ratio')})", "top {{top}}"), about="By a sample."),
            graph("Bytes for each command", "bytes",
                  (f"{rate('keyway_slot_bytes_total')} / {rate('keyway_slot_operations_total')}", "both ways")),
        ]),
    ]


def variable(name, label, query):
    return {
        "name": name, "label": label, "type": "query", "datasource": DATASOURCE,
        "query": {"query": query, "refId": name}, "definition": query, "refresh": 2, "sort": 1,
        "includeAll": True, "allValue": ".*", "multi": True, "current": {"text": ["All"], "value": ["$__all"]},
    }


def place(rows):
    """Panels in rows, left to right, with ids."""
    placed, y = [], 0
    for title, panels in rows:
        placed.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        x, y, tallest = 0, y + 1, 0
        for one in panels:
            size = one["gridPos"]
            if x + size["w"] > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            one["gridPos"] = {"x": x, "y": y, **size}
            x, tallest = x + size["w"], max(tallest, size["h"])
            placed.append(one)
        y += tallest
    for number, one in enumerate(placed, 1):
        one["id"] = number
    return placed


def dashboard(name, title, rows):
    changed = f"changes({metric('keyway_topology_revision')}[1m]) > 0"
    return {
        "uid": f"keyway-{name}",
        "title": title,
        "tags": ["keyway"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "links": [{"type": "dashboards", "title": "Keyway", "tags": ["keyway"], "asDropdown": True, "includeVars": True, "keepTime": True}],
        "annotations": {"list": [{
            "name": "Topology", "enable": True, "datasource": DATASOURCE, "iconColor": "blue",
            "expr": changed, "titleFormat": "the topology changed", "textFormat": "{{instance}} {{cluster}}", "step": "60s",
        }]},
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "current": {}},
            variable("namespace", "Namespace", 'label_values(keyway_build_info{job="keyway"}, namespace)'),
            variable("instance", "Instance", 'label_values(keyway_build_info{job="keyway",namespace=~"$namespace"}, instance)'),
            variable("cluster", "Cluster", f"label_values(keyway_topology_revision{{{WHERE}}}, cluster)"),
        ]},
        "panels": place(rows),
    }


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    for name, title, rows in (
        ("overview", "Keyway / overview", overview()),
        ("upstream", "Keyway / upstream and zones", upstream()),
        ("clients", "Keyway / clients and TLS", clients()),
        ("heat", "Keyway / heat", heat()),
    ):
        text = json.dumps(dashboard(name, title, rows), indent=1)
        (folder / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
