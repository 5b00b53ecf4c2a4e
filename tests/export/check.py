"""Reads exported files with what others publish, and prints what is in them as JSON.

check.py perfetto FILE | parquet FOLDER | otlp FILE
"""

import base64
import collections
import json
import os
import sys
from pathlib import Path


def perfetto(path):
    """With Perfetto's own protobufs: nothing unknown, and every track, slice and flow in order."""
    from google.protobuf import unknown_fields
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

    trace = pb.Trace()
    trace.ParseFromString(Path(path).read_bytes())
    event = pb.TrackEvent
    tracks, open_slices, flows, kinds = {}, {}, collections.defaultdict(list), collections.Counter()
    slices, counters, processes, faults = collections.Counter(), collections.Counter(), [], []

    def unknown(message):
        if len(unknown_fields.UnknownFieldSet(message)):
            faults.append(f"unknown field in {message}")
        for field, value in message.ListFields():
            if field.message_type:
                for one in value if field.is_repeated else [value]:
                    unknown(one)

    for packet in trace.packet:
        if kinds.total() % 50 == 0:
            unknown(packet)
        kinds[packet.WhichOneof("data")] += 1
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            tracks[track.uuid] = track
            if track.HasField("process"):
                processes.append([track.process.pid, track.process.process_name])
    moments = [packet for packet in trace.packet if packet.HasField("track_event")]
    moments.sort(key=lambda packet: packet.timestamp)
    for packet in moments:
        one = packet.track_event
        track = tracks.get(one.track_uuid)
        if track is None:
            faults.append(f"no track {one.track_uuid}")
            continue
        if one.type == event.TYPE_COUNTER:
            counters[track.name] += 1
            if not track.HasField("counter"):
                faults.append(f"{track.name} is no counter track")
        for flow in one.flow_ids:
            flows[flow].append([packet.timestamp, track.name, one.name])
        if one.type == event.TYPE_SLICE_BEGIN:
            slices[one.name] += 1
            open_slices[track.uuid] = open_slices.get(track.uuid, 0) + 1
            if open_slices[track.uuid] > 1:
                faults.append(f"slices overlap on {track.name} at {packet.timestamp}")
        elif one.type == event.TYPE_SLICE_END:
            open_slices[track.uuid] = open_slices.get(track.uuid, 0) - 1
    left = [tracks[uuid].name for uuid, count in open_slices.items() if count != 0]
    parents = {}
    for track in tracks.values():
        parent = tracks.get(track.parent_uuid)
        if not track.HasField("process") and parent is None:
            faults.append(f"{track.name} has no parent")
        parents[track.name] = parent.name if parent is not None else ""
    requests = sum(1 for name, parent in parents.items() if parent == "requests")
    joined = collections.Counter(
        f"{one[0][1].split()[0]} -> {one[1][1]}" for one in flows.values() if len(one) > 1
    )
    return {
        "packets": kinds, "slices": slices, "counters": counters, "processes": processes, "requests": requests,
        "flows": joined, "not_closed": left, "faults": faults[:10], "tracks": sorted(parents)[:200],
        "sequences": sorted({packet.trusted_packet_sequence_id for packet in trace.packet}),
    }


def parquet(folder):
    """With DuckDB: rows, schema, and the queries of docs/export.md."""
    import duckdb

    database, tables = duckdb.connect(), {}
    for path in sorted(Path(folder).glob("*.parquet")):
        columns = database.execute(f"describe select * from '{path}'").fetchall()
        rows = database.execute(f"select count(*) from '{path}'").fetchall()[0][0]
        tables[path.stem] = {"rows": rows, "columns": {name: kind for name, kind, *_ in columns}}
    page = Path(__file__).parents[2] / "docs" / "export.md"
    queries = [part.split("```")[0] for part in page.read_text().split("```sql\n")[1:]]
    os.chdir(folder)
    answers = [database.execute(query).fetchall() for query in queries]
    sums = database.execute("select sum(num_tokens) from 'batch_utilization.parquet'").fetchall()[0]
    return {"tables": tables, "answers": [len(answer) for answer in answers], "tokens": int(sums[0])}


def otlp(path):
    """With OpenTelemetry's own protobufs; its JSON has ids in hexadecimal, which protobuf's JSON has in base64."""
    from google.protobuf import json_format
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    def ids(value):
        if isinstance(value, dict):
            return {
                key: base64.b64encode(bytes.fromhex(one)).decode() if key in ("traceId", "spanId") else ids(one)
                for key, one in value.items()
            }
        return [ids(one) for one in value] if isinstance(value, list) else value

    spans, names, links, known, faults = 0, collections.Counter(), 0, set(), []
    for line in Path(path).read_text().splitlines():
        request = json_format.ParseDict(ids(json.loads(line)), ExportTraceServiceRequest())
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    spans += 1
                    names[span.name] += 1
                    links += len(span.links)
                    if len(span.trace_id) != 16 or len(span.span_id) != 8 or span.span_id in known:
                        faults.append(f"ids of {span.name}")
                    if span.end_time_unix_nano < span.start_time_unix_nano:
                        faults.append(f"{span.name} ends before it begins")
                    known.add(span.span_id)
    return {"spans": spans, "names": names, "links": links, "faults": faults[:10]}


def prometheus(path):
    """With the parser of Prometheus's Python client."""
    from prometheus_client.parser import text_string_to_metric_families as parse

    return exposition(parse(Path(path).read_text()))


def openmetrics(path):
    """With the OpenMetrics parser of Prometheus's Python client, which is strict."""
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

    return exposition(parse(Path(path).read_text()))


def exposition(families):
    kinds, exemplars = {}, 0
    for family in families:
        kinds[family.name] = family.type
        exemplars += sum(1 for sample in family.samples if sample.exemplar)
    return {"families": kinds, "exemplars": exemplars}


if __name__ == "__main__":
    formats = [perfetto, parquet, otlp, prometheus, openmetrics]
    print(json.dumps({one.__name__: one for one in formats}[sys.argv[1]](sys.argv[2])))
