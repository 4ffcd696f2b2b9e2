#!/usr/bin/env python3
"""Writes Grafana's dashboards to docker/grafana/dashboards/. The text below is their source.

    scripts/dashboards.py            writes the files
    scripts/dashboards.py --check    fails if a file differs from what would be written
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "docker/grafana/dashboards"
PROMETHEUS = {"type": "prometheus", "uid": "stellar-prometheus"}
POSTGRES = {"type": "grafana-postgresql-datasource", "uid": "stellar-postgres"}
HERE = '{instance=~"$instance"}'
PROBES = 'route!~"/livez|/readyz|/metrics"'
# Panels are as high as this, in Grafana's grid of 24 columns.
HEIGHT = 8


def prom(expr, legend=""):
    """A query to Prometheus. `@` stands for the selection of instances."""
    expr = expr.replace("{@,", '{instance=~"$instance",').replace("@", HERE)
    return {"datasource": PROMETHEUS, "expr": expr, "legendFormat": legend or "__auto", "editorMode": "code", "range": True}


def sql(text, form="table"):
    """A query to PostgreSQL, as a table or as the series of `metric` and `value` over `time`."""
    return {"datasource": POSTGRES, "rawSql": " ".join(text.split()), "format": form, "rawQuery": True, "editorMode": "code"}


def panel(title, queries, kind="timeseries", unit="short", width=8, text="", stack=False, most=None, steps=()):
    defaults = {"unit": unit}
    if kind == "timeseries":
        defaults["custom"] = {"fillOpacity": 10, "showPoints": "never"}
        if stack:
            defaults["custom"] |= {"fillOpacity": 40, "stacking": {"mode": "normal"}}
    if kind == "timeseries" and unit not in ("short", "none"):
        defaults["min"] = 0
    if most is not None:
        defaults |= {"min": 0, "max": most}
    if steps:
        base = {"color": steps[0], "value": None}
        defaults["thresholds"] = {
            "mode": "absolute", "steps": [base, *({"color": color, "value": value} for value, color in steps[1:])]
        }
    made = {"title": title, "type": kind, "description": text, "fieldConfig": {"defaults": defaults, "overrides": []}}
    made["targets"] = [query | {"refId": chr(ord("A") + at)} for at, query in enumerate(queries)]
    made["datasource"] = queries[0]["datasource"]
    if kind == "stat":
        made["options"] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"}
        for query in made["targets"]:
            query |= {"instant": True, "range": False} if "expr" in query else {}
    if kind == "timeseries":
        made["options"] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return made | {"width": width}


def variable(name, label, query, source, several=True):
    made = {"name": name, "label": label, "type": "query", "datasource": source, "query": query, "refresh": 2, "sort": 1}
    if several:
        made |= {"multi": True, "includeAll": True, "current": {"text": ["All"], "value": ["$__all"]}}
        # Regular expressions only where the query is one: SQL gets the list of all values.
        made |= {"allValue": ".*"} if source is PROMETHEUS else {}
    return made


def dashboard(uid, title, text, variables, rows, since="now-6h"):
    panels, y, number = [], 0, 1
    for name, members in rows:
        panels.append({"type": "row", "title": name, "id": number, "collapsed": False, "panels": [],
                       "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}})
        number, y, x = number + 1, y + 1, 0
        height = 4 if all(member["type"] == "stat" for member in members) else HEIGHT
        for member in members:
            width = member.pop("width")
            if x + width > 24:
                x, y = 0, y + height
            panels.append(member | {"id": number, "gridPos": {"h": height, "w": width, "x": x, "y": y}})
            x, number = x + width, number + 1
        y += height
    return {
        "uid": uid, "title": title, "description": text, "tags": ["stellar-score"], "schemaVersion": 39, "version": 1,
        "editable": False, "graphTooltip": 1, "refresh": "30s", "time": {"from": since, "to": "now"}, "timezone": "browser",
        "templating": {"list": variables}, "panels": panels, "annotations": {"list": []},
        "links": [{"type": "dashboards", "tags": ["stellar-score"], "title": "stellar-score", "asDropdown": False,
                   "keepTime": True}],
    }


def quantile(q, metric, by, more=""):
    return f"histogram_quantile({q}, sum by ({by}le) (rate({metric}_bucket{{@,{more}}}[$__rate_interval])))"


def mean(metric, by, more=""):
    """The mean of a histogram, 0 in a time without observations."""
    total, count = (f"sum by ({by}) (rate({metric}_{part}{{@,{more}}}[$__rate_interval]))" for part in ("sum", "count"))
    return f"{total} / ({count} > 0) or 0 * {count}"


def service():
    good_if_one = ("red", (1, "green"))
    return dashboard(
        "stellar-service", "stellar-score: service", "Is the service healthy, and what limits it?",
        [variable("instance", "Instance", "label_values(stellar_build_info, instance)", PROMETHEUS)],
        [
            ("Is it healthy?", [
                panel("Ready", [prom("min(stellar_ready@)")], "stat", width=4, steps=good_if_one,
                      text="1 if every instance is ready. GET /readyz says why one is not."),
                panel("Instances", [prom("count(stellar_build_info@)")], "stat", width=4),
                panel("Offloaded instances", [prom("sum(stellar_engine_offloaded@)")], "stat", width=4,
                      steps=("green", (1, "blue")), text="Their models are lent to a trainer: POST /v1/engine/offload."),
                panel("Firing alerts", [prom('count(ALERTS{alertname=~"Stellar.*",alertstate="firing"}) or vector(0)')], "stat", width=4,
                      steps=("green", (1, "red")), text="docs/OPERATIONS.md, Alerts: what to do for each."),
                panel("Failed requests", [prom("max(instance:stellar_http_errors:ratio_rate5m@)")], "stat", "percentunit", 4,
                      "The share of responses with a 5xx status in 5 minutes.", steps=("green", (0.01, "orange"), (0.05, "red"))),
                panel("Unhealthy graphs", [prom("count(stellar_engine_lane_healthy@ == 0) or vector(0)")], "stat", width=4,
                      steps=("green", (1, "red"))),
                panel("Task restarts", [prom("sum(increase(stellar_background_restarts_total@[$__range]))")], "stat", width=4,
                      steps=("green", (1, "orange"))),
            ]),
            ("Requests", [
                panel("By route", [prom(f"sum by (route, method) (rate(stellar_http_requests_total{{@,{PROBES}}}[$__rate_interval]))",
                                        "{{method}} {{route}}")], unit="reqps"),
                panel("By status", [prom(f"sum by (status) (rate(stellar_http_requests_total{{@,{PROBES}}}[$__rate_interval]))")],
                      unit="reqps", stack=True),
                panel("Time of POST /v1/score",
                      [prom(quantile(q, "stellar_http_request_seconds", "", 'route="/v1/score"'), name)
                       for q, name in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))], unit="s"),
                panel("Error responses by code", [prom("sum by (code) (rate(stellar_http_problems_total@[$__rate_interval]))")],
                      unit="reqps", text="The code in the body says what was wrong: docs/API.md, Errors."),
                panel("In flight", [prom("sum by (instance) (stellar_http_requests_in_flight@)"),
                                    prom("sum by (instance) (stellar_http_connections@)", "{{instance}} connections")]),
                panel("Size of bodies, 95 %", [prom(quantile(0.95, "stellar_http_request_body_bytes", ""))], unit="bytes"),
            ]),
            ("What limits it?", [
                panel("Bounds in use", [prom("max by (bound) (instance_bound:stellar_use:ratio@)")], unit="percentunit", most=1,
                      text="The bound at 100 % is what refuses work. docs/LIMITS.md has the keys."),
                panel("Refusals by reason", [prom("sum by (reason) (rate(stellar_refusals_total@[$__rate_interval]))")],
                      unit="reqps", stack=True),
                panel("Busy share by graph", [prom("sum by (graph) (instance_graph:stellar_engine_lane_busy:ratio_rate5m@)")],
                      unit="percentunit", text="The share of the time in which the lane ran a batch, over 5 minutes. "
                      "The graph near 100 % limits the throughput."),
                panel("Queued items", [prom("sum by (graph) (stellar_engine_queue_depth@)")]),
                panel("Items of rewards", [prom("sum(stellar_rewards_items@)", "being scored"),
                                           prom("sum(stellar_rewards_waiting_items@)", "waiting")]),
                panel("Items of trainers' clients", [prom("sum by (protocol, outcome) (rate(stellar_adapter_items_total@[$__rate_interval]))")],
                      text="Items that came through the adapters of `[[rewards.adapter]]`. A failed item has a reward without a number."),
                panel("Generated images", [prom("sum by (outcome) (rate(stellar_generated_images_total@[$__rate_interval]))"),
                                           prom("sum(stellar_generation_images@)", "in progress")],
                      text="Requests of `POST /v1/generate`, and images that are being generated."),
                panel("Wait in the queue, 95 %", [prom("max by (graph) (instance_graph:stellar_engine_queue_wait_seconds:p95_rate5m@ >= 0) "
                                                       "or 0 * sum by (graph) (stellar_engine_queue_depth@)")], unit="s"),
                panel("Items per batch", [prom(mean("stellar_engine_batch_size", "graph"))],
                      text="Large batches use the device well. 1 under load: the requests differ in shape, or arrive one by one."),
                panel("Time of a batch", [prom(mean("stellar_engine_stage_seconds", "graph", 'stage="run"'))], unit="s"),
                panel("Preparation of an item", [prom(mean("stellar_engine_stage_seconds", "graph", 'stage="prepare"'))], unit="s"),
                panel("Items by outcome", [prom("sum by (outcome) (rate(stellar_engine_items_total@[$__rate_interval]))"),
                                           prom("sum(rate(stellar_engine_retried_items_total@[$__rate_interval]))", "retried alone")]),
            ]),
            ("Memory and device", [
                panel("CPU", [prom('rate(process_cpu_seconds_total{@,job="stellar-score"}[$__rate_interval])', "{{instance}}")],
                      text="Cores in use."),
                panel("Memory", [prom("stellar_resident_memory_bytes@", "{{instance}} resident"),
                                 prom("stellar_peak_memory_bytes@", "{{instance}} peak")], unit="bytes"),
                panel("Memory by purpose", [
                    prom("sum by (graph) (stellar_engine_lane_memory_bytes@)", "graph {{graph}}"),
                    prom("sum(stellar_engine_cache_bytes@)", "feature cache"),
                    prom("sum by (of) (stellar_response_cache_bytes@)", "responses: {{of}}"),
                    prom("sum(stellar_pixel_bytes@)", "pixels"),
                    prom("sum(stellar_upload_bytes@)", "uploads"),
                ], unit="bytes", stack=True),
                panel("Feature cache: hits", [prom("sum by (outcome) (rate(stellar_engine_cache_requests_total@[$__rate_interval]))"),
                                              prom("sum(rate(stellar_engine_cache_evictions_total@[$__rate_interval]))", "evictions")]),
                panel("GPU memory", [prom("stellar_device_memory_used_bytes@", "{{instance}} {{device}}"),
                                     prom("stellar_device_memory_bytes@", "{{instance}} {{device}} size")], unit="bytes"),
                panel("GPU busy", [prom("stellar_device_busy_ratio@", "{{instance}} {{device}}")], unit="percentunit", most=1),
            ]),
            ("Store and disk", [
                panel("Operations, 95 %", [prom(quantile(0.95, "stellar_store_operation_seconds", "resource, "))], unit="s",
                      text="By resource, with the wait for a connection. group_commit is recording."),
                panel("Wait for a connection, 95 %", [prom(quantile(0.95, "stellar_store_connection_wait_seconds", "access, "))], unit="s"),
                panel("Connections", [prom('sum by (pool) (stellar_store_connections{@,state="busy"})', "{{pool}} busy"),
                                      prom("sum by (pool) (stellar_store_connections_limit@)", "{{pool}} limit")]),
                panel("Samples by outcome", [prom("sum by (outcome) (rate(stellar_samples_total@[$__rate_interval]))")], stack=True),
                panel("Samples per transaction", [prom("sum(rate(stellar_store_group_size_sum@[$__rate_interval])) "
                                                       "/ (sum(rate(stellar_store_group_size_count@[$__rate_interval])) > 0) or vector(0)")]),
                panel("Spool and disk", [prom("stellar_spool_bytes@", "{{instance}} spool"), prom("stellar_spool_limit_bytes@", "{{instance}} spool limit"),
                                         prom("stellar_disk_free_bytes@", "{{instance}} free")], unit="bytes"),
            ]),
            ("Versions", [
                panel("Build", [prom("sum by (instance, version) (stellar_build_info@)", "{{instance}}: {{version}}")], "stat", width=8),
                panel("Pack", [prom("sum by (instance, pack, weights, digest) (stellar_pack_info@)", "{{instance}}: {{pack}} ({{weights}})")], "stat", width=8,
                      text="Instances with different packs alert after 30 minutes."),
                panel("Certificate", [prom("max by (state) (stellar_pack_certificate@)", "{{state}}")], "stat", width=8),
            ]),
        ],
    )


CHOSEN = "digest = '$digest' AND method IN (${method:sqlstring}) AND metric IN (${metric:sqlstring}) AND $__timeFilter(created)"
# Versions of a metric are never averaged.
VERSIONED = "metric || CASE WHEN metric_version > 1 THEN ' v' || metric_version ELSE '' END"


def quality():
    digests = "SELECT pack || ' (' || left(digest, 8) || ')' AS __text, digest AS __value FROM report_packs ORDER BY created DESC"
    return dashboard(
        "stellar-quality", "stellar-score: quality",
        "Scores by method and metric, from PostgreSQL. Scores of different packs, versions or metrics are never averaged.",
        [
            variable("digest", "Pack", digests, POSTGRES, several=False),
            variable("method", "Method", "SELECT DISTINCT method FROM report_runs ORDER BY method", POSTGRES),
            variable("metric", "Metric", "SELECT DISTINCT metric FROM report_summaries ORDER BY metric", POSTGRES),
        ],
        [
            ("Over time", [
                panel("Mean score", [sql(f"""
                    SELECT $__timeGroupAlias(created, $__interval), method || ': ' || {VERSIONED} AS metric, AVG(value) AS value
                    FROM report_scores WHERE value IS NOT NULL AND {CHOSEN} GROUP BY 1, 2 ORDER BY 1""", "time_series")], width=16,
                    text="By the time of scoring. Weights named demo know nothing of real images: their scores mean nothing."),
                panel("Samples scored", [sql(f"""
                    SELECT $__timeGroupAlias(created, $__interval), method AS metric, COUNT(*) FILTER (WHERE first) AS value
                    FROM (SELECT created, method, metric = MIN(metric) OVER (PARTITION BY digest) AS first
                          FROM report_scores WHERE {CHOSEN}) AS scored GROUP BY 1, 2 ORDER BY 1""", "time_series")],
                    text="Counted by the first of the chosen metrics."),
                panel("Share of null scores", [sql(f"""
                    SELECT $__timeGroupAlias(created, $__interval), {VERSIONED} AS metric, AVG(CASE WHEN value IS NULL THEN 1.0 ELSE 0.0 END) AS value
                    FROM report_scores WHERE {CHOSEN} GROUP BY 1, 2 ORDER BY 1""", "time_series")], unit="percentunit", width=16, most=1),
                panel("Null scores by reason", [sql(f"""
                    SELECT metric, reason, COUNT(*) AS scores FROM report_scores
                    WHERE reason IS NOT NULL AND {CHOSEN} GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 100""")], "table"),
                panel("Flags", [sql(f"""
                    SELECT metric, flag, COUNT(*) AS scores FROM report_scores, jsonb_array_elements_text(CAST(flags AS jsonb)) AS flag
                    WHERE {CHOSEN} GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 100""")], "table", width=12,
                    text="truncated: the prompt was longer than the text model reads."),
                panel("Null scores a second by reason", [prom("sum by (metric, reason) (rate(stellar_null_scores_total[$__rate_interval]))")],
                      width=12, stack=True, text="From Prometheus, over all methods."),
            ]),
            ("Runs", [
                panel("Means of runs with their intervals", [sql("""
                    SELECT method, run, metric, metric_version AS version, policy, samples, n, nulls, mean, low, high, std, computed
                    FROM report_summaries WHERE digest = '$digest' AND method IN (${method:sqlstring}) AND metric IN (${metric:sqlstring})
                    ORDER BY metric, policy, mean DESC LIMIT 1000""")], "table", width=24,
                    text="95 % intervals as in the leaderboard (docs/ANALYSIS.md). Compare methods with GET /v1/runs/{a}/compare/{b}, "
                    "which pairs the samples."),
            ]),
        ],
        since="now-7d",
    )


def runs():
    return dashboard(
        "stellar-runs", "stellar-score: runs", "Runs: progress, backlog, failures.",
        [variable("method", "Method", "SELECT DISTINCT method FROM report_runs ORDER BY method", POSTGRES)],
        [
            ("Now", [
                # All instances of one database export the same counts.
                panel("Pending samples", [prom('max(stellar_run_samples{state="pending"})')], "stat", width=4),
                panel("Failed samples", [prom('max(stellar_run_samples{state="failed"})')], "stat", width=4, steps=("green", (1, "orange"))),
                panel("Scored a second", [prom('sum(rate(stellar_background_attempts_total{outcome="recorded"}[$__rate_interval]))')], "stat", width=4),
                panel("Time left", [prom('max(stellar_run_samples{state="pending"}) '
                                         '/ clamp_min(sum(rate(stellar_background_attempts_total{outcome="recorded"}[$__rate_interval])), 0.001)')],
                      "stat", "s", 4, "Pending samples by the present rate."),
                panel("Oldest pending sample", [prom("max(stellar_pending_oldest_seconds)")], "stat", "s", 4),
                panel("Blocked samples", [prom("sum(stellar_blocked_samples)")], "stat", width=4, steps=("green", (1, "orange")),
                      text="They need a pack that is not loaded."),
            ]),
            ("Over time", [
                panel("Runs by state", [prom("max by (state) (stellar_runs)")]),
                panel("Samples by state", [prom("max by (state) (stellar_run_samples)")]),
                panel("Attempts by outcome", [prom("sum by (outcome) (rate(stellar_background_attempts_total[$__rate_interval]))")], stack=True),
                panel("Age of the oldest pending sample", [prom("stellar_pending_oldest_seconds", "{{instance}}")], unit="s"),
                panel("Runs that cannot be finished or summarised", [prom("max by (what) (stellar_failing_runs)")]),
                panel("Spool", [prom("stellar_spool_bytes", "{{instance}}")], unit="bytes"),
            ]),
            ("Runs", [
                panel("Unfinished runs", [sql("""
                    SELECT method, run, state, pack, weights, pending, failed, scored,
                        ROUND(100.0 * scored / GREATEST(pending + failed + scored, 1), 1) AS percent, created
                    FROM report_runs WHERE state <> 'finished' AND method IN (${method:sqlstring}) ORDER BY created DESC LIMIT 200""")],
                    "table", width=24),
                panel("Finished runs", [sql("""
                    SELECT method, run, pack, weights, dataset, split, scored, failed, created, finished,
                        EXTRACT(epoch FROM finished - created) AS seconds
                    FROM report_runs WHERE state = 'finished' AND method IN (${method:sqlstring}) ORDER BY finished DESC LIMIT 200""")],
                    "table", width=16),
                panel("Failed samples by reason", [sql("""
                    SELECT method, run, reason, samples FROM report_failures WHERE method IN (${method:sqlstring})
                    ORDER BY samples DESC LIMIT 200""")], "table"),
            ]),
        ],
        since="now-24h",
    )


def workers():
    """Of the queue, all instances of a pack export the same numbers."""
    recorded = 'sum(rate(stellar_background_attempts_total{outcome="recorded"}[$__rate_interval]))'
    waiting = "(sum(digest:stellar_dispatch_pending:max) + sum(digest:stellar_dispatch_in_flight:max))"
    by_pack = "{{pack}} ({{digest}})"
    return dashboard(
        "stellar-workers", "stellar-score: workers", "Many workers on one queue (dispatch.kind = \"nats\"): is it worked off, and by whom?",
        [variable("instance", "Instance", "label_values(stellar_build_info, instance)", PROMETHEUS)],
        [
            ("Now", [
                panel("Broker", [prom("min(stellar_dispatch_connected@)")], "stat", width=4, steps=("red", (1, "green")),
                      text="1 if every instance is connected to NATS."),
                panel("Workers", [prom("max(stellar_workers@)")], "stat", width=4, steps=("red", (1, "green")),
                      text="That answered the last request for a place, as the API instances count them."),
                panel("Waiting", [prom("sum(digest:stellar_dispatch_pending:max)")], "stat", width=4,
                      text="Samples in the queues of all packs that no worker has yet."),
                panel("In flight", [prom("sum(digest:stellar_dispatch_in_flight:max)")], "stat", width=4),
                panel("Time left", [prom(f"{waiting} / clamp_min({recorded}, 0.001)")], "stat", "s", 4, "Waiting samples by the present rate."),
                panel("Suspects", [prom("sum(increase(stellar_dispatch_suspects_total@[$__range]))")], "stat", width=4,
                      steps=("green", (1, "orange")), text="Samples tried alone, because workers died with them."),
            ]),
            ("Queue", [
                panel("Waiting", [prom("digest:stellar_dispatch_pending:max", by_pack)], text="KEDA scales the workers of a pack by this and the next."),
                panel("In flight", [prom("digest:stellar_dispatch_in_flight:max", by_pack)],
                      text="Samples that workers have. At dispatch.nats.max_ack_pending, the broker gives out no more."),
                panel("Scored", [prom('sum by (instance) (rate(stellar_background_attempts_total{@,outcome="recorded"}[$__rate_interval]))')],
                      stack=True, text="Recorded samples a second, by worker."),
                panel("Published", [prom("sum by (outcome) (rate(stellar_dispatch_published_total@[$__rate_interval]))"),
                                    prom("sum(rate(stellar_dispatch_republished_total@[$__rate_interval]))", "published again")],
                      text="Messages that the broker lost, or that could not be published, are published again."),
                panel("Delivered again", [prom("sum by (instance) (rate(stellar_dispatch_redelivered_total@[$__rate_interval]))")],
                      text="By the worker that got the sample."),
                panel("Samples of the database", [prom("max by (state) (stellar_run_samples)")],
                      text="What is true: the queue only says who works on it."),
            ]),
            ("Requests and roles", [
                panel("Forwarded requests", [prom("sum by (outcome) (rate(stellar_forwarded_total@[$__rate_interval]))")], unit="reqps", stack=True),
                panel("Workers that answered", [prom("stellar_workers@", "{{instance}}")]),
                panel("Connected", [prom("stellar_dispatch_connected@", "{{instance}}")], most=1),
                panel("Duties", [prom("max by (duty, instance) (stellar_leader@) > 0", "{{duty}}: {{instance}}")],
                      text="Who writes summaries, publishes samples again, finishes the runs of its pack, or scores a bucket without a broker. One instance at a time."),
            ]),
        ],
    )


def files():
    for made in (service(), quality(), runs(), workers()):
        yield FOLDER / f"{made['uid'].removeprefix('stellar-')}.json", json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def main():
    check = "--check" in sys.argv[1:]
    stale = [path for path, text in files() if not path.exists() or path.read_text() != text]
    if check and stale:
        sys.exit(f"dashboards.py: run scripts/dashboards.py and commit {', '.join(path.name for path in stale)}")
    if not check:
        for path, text in files():
            path.write_text(text)


if __name__ == "__main__":
    main()
