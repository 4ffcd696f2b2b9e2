"""A stand-in for `POST /v1/rewards`, written from the description of the route and not from the client's code.

A reward is the mean level of an image, plus 1000 times that of each reference and 1,000,000 times that of each
auxiliary image, plus the length of the reward's name. So a test sees whether every image arrived at its place. A prompt
`null` gives a null, and `broken` an error.
"""

import email
import json
import statistics
import struct

import numpy
from PIL import Image
from stand_in import response


class Sent:
    """The images of a request."""

    def __init__(self, request):
        kind, body = request.headers["content-type"], request.body
        self.tensors, self.parts = {}, {}
        if kind == "application/x-safetensors":
            (length,) = struct.unpack("<Q", body[:8])
            assert (8 + length) % 8 == 0
            header = json.loads(body[8 : 8 + length])
            self.document = json.loads(header.pop("__metadata__")["request"])
            data, end = body[8 + length :], 0
            for name, entry in header.items():
                assert entry["dtype"] == "U8"
                start, end = entry["data_offsets"]
                self.tensors[name] = numpy.frombuffer(data[start:end], numpy.uint8).reshape(entry["shape"])
            assert end == len(data)
        else:
            message = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
            for part in message.get_payload():
                name = part.get_param("name", header="content-disposition")
                self.parts[name] = part.get_payload(decode=True)
            self.document = json.loads(self.parts.pop("request"))

    def image(self, kind, source):
        if "part" in source:
            import io

            return numpy.asarray(Image.open(io.BytesIO(self.parts[source["part"]])).convert("RGB"))
        at = source["tensor"]
        return self.tensors[f"{kind}.{at}"] if f"{kind}.{at}" in self.tensors else self.tensors[kind][at]

    def reward(self, item):
        if item.get("prompt") == "null":
            return None
        parts = [(1, "images", [item["image"]])]
        parts += [(1000, "references", item.get("references", []))]
        parts += [(1_000_000, "auxiliary", item.get("auxiliary", []))]
        return float(sum(factor * self.image(kind, each).mean() for factor, kind, all_ in parts for each in all_))


def answer(request):
    sent = Sent(request)
    request.sent = sent
    document = sent.document
    items = document["items"]
    error = {"code": "image_corrupt", "detail": "d"}
    broken = {str(at): error for at, item in enumerate(items) if item.get("prompt") == "broken"}
    column = [None if str(at) in broken else sent.reward(item) for at, item in enumerate(items)]
    nulls = {str(at): "no_prompt" for at, value in enumerate(column) if value is None and str(at) not in broken}
    columns = {name: [None if v is None else v + len(name) for v in column] for name in document["rewards"]}
    result = {
        "rewards": columns,
        "reasons": {name: nulls for name in columns} if nulls else {},
        "errors": broken,
        "provenance": {"pack": {"digest": "d1"}, "metrics": {}, "scales": {}},
        "timings": {"total_ms": 2.0},
    }
    if "combine" in document:
        weights, on_null = document["combine"]["weights"], document["combine"]["on_null"]
        assert on_null in ("skip", "zero", "fail")
        result["combined"] = [
            None if value is None else sum(weight * columns[name][at] for name, weight in weights.items())
            for at, value in enumerate(column)
        ]
    if document.get("statistics"):
        of = result.get("combined") or next(iter(columns.values()))
        result["groups"] = {}
        for group in {item["group"] for item in items if "group" in item}:
            members = [at for at, item in enumerate(items) if item.get("group") == group]
            values = [of[at] for at in members]
            mean, std = statistics.fmean(values), statistics.pstdev(values)
            result["groups"][group] = {
                "items": members,
                "n": len(values),
                "mean": mean,
                "std": std,
                "advantage": [(value - mean) / (std + 1e-4) for value in values],
                "rank": [1 + sum(other > value for other in values) for value in values],
            }
    return response(200, result)
