"""The types against openapi/openapi.json, so that they cannot drift."""

import json
import re
import typing
from pathlib import Path

import models as generator
import pytest
from stand_in import response

from stellar_score import AsyncClient, AsyncRun, Client, Run, __version__, errors, models, rewards

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = json.loads((ROOT / "openapi/openapi.json").read_text())
SCHEMAS = DOCUMENT["components"]["schemas"]


def annotations(name):
    """The annotations of a class with those of its bases, as text, and whether each is required."""
    found = typing.cast(typing.Any, getattr(models, name)).__annotations__
    text = {key: getattr(value, "__forward_arg__", value) for key, value in found.items()}
    return {key: (not str(value).startswith("NotRequired["), str(value)) for key, value in text.items()}


def properties(schema):
    """The properties of a schema with those it is composed of, and whether each is required."""
    if "$ref" in schema:
        return properties(SCHEMAS[schema["$ref"].rsplit("/", 1)[1]])
    found = {}
    for part in schema.get("allOf", []):
        found.update(properties(part))
    for key, value in schema.get("properties", {}).items():
        found[key] = (key in schema.get("required", []), value)
    return found


def test_the_types_are_those_of_the_document():
    assert generator.TARGET.read_text() == generator.render(DOCUMENT), "run python/tools/models.py"


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_field_is_in_the_document(name):
    """Checks the written file without the program that wrote it."""
    expected = properties(SCHEMAS[name])
    if not expected:
        assert hasattr(models, name)
        return
    found = annotations(name)
    assert found.keys() == expected.keys()
    words = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
    words.update(array="List[", object="Dict[")
    for key, (required, schema) in expected.items():
        assert found[key][0] == required, key
        kinds = schema.get("type", [])
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            word = "bytes" if schema.get("format") == "binary" else words.get(kind, "Optional[")
            assert word in found[key][1] or "Literal[" in found[key][1], key


def test_every_code_has_a_family():
    known = [code for codes in errors.FAMILIES.values() for code in codes]
    assert sorted(known) == sorted(SCHEMAS["Code"]["enum"])
    for family, codes in errors.FAMILIES.items():
        for code in codes:
            assert type(errors.problem(418, {"code": code})) is family


def test_schemas_that_the_document_does_not_have_yet():
    either = {"oneOf": [{"type": "string"}, {"type": "object", "properties": {"tensor": {"type": "integer"}}}]}
    assert generator.type_of(either) == "Union[str, Dict[str, Any]]"
    with pytest.raises(SystemExit, match="no Python type"):
        generator.type_of({"type": "unheard-of"})


@pytest.mark.parametrize(
    ("name", "mine"), [("RewardsResponse", rewards.Rewards), ("GroupStatistics", rewards.GroupStatistics)]
)
def test_types_that_are_not_generated_agree_with_the_document(name, mine):
    assert set(mine.__annotations__) == set(properties(SCHEMAS[name]))


@pytest.mark.parametrize(("asynchronous", "plain"), [(AsyncClient, Client), (AsyncRun, Run)])
def test_asyncio_has_every_method(asynchronous, plain):
    def public(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    left_out = {"ddpo_reward", "grpo_reward"} if plain is Client else {"close"}
    assert public(plain) - public(asynchronous) == left_out


ID = "01a22593-79ed-76c2-8bd5-b6373e564056"
CALLS = {
    "answer_study": lambda client: client.answer_study(ID, "ada", 1, 2, question="overall"),
    "compare": lambda client: client.compare(ID, ID, metrics="ips", policy="none"),
    "create_study": lambda client: client.create_study({"name": "s", "runs": [ID, ID]}),
    "ddpo_reward": lambda client: client.ddpo_reward("ips")([b""], ["x"]),
    "generate": lambda client: generate(client),
    "get": lambda client: client.get("v1", "methods", limit=1),
    "grpo_reward": lambda client: client.grpo_reward("ips")([b""]),
    "leaderboard": lambda client: client.leaderboard(sort="ips", by="run"),
    "methods": lambda client: client.methods(),
    "metrics": lambda client: client.metrics(),
    "models": lambda client: client.models(),
    "next_study_item": lambda client: client.next_study_item(ID, "ada"),
    "offload": lambda client: client.offload(),
    "offloaded": lambda client: client.offloaded().__enter__(),
    "open_run": lambda client: client.open_run(ID),
    "ready": lambda client: client.ready(),
    "reload": lambda client: client.reload(),
    "report": lambda client: client.report(ID, policy="none", pack="all", percentiles=True, common_with=[ID]),
    "report_text": lambda client: client.report_text(ID, "csv", policy="none"),
    "request": lambda client: client.request("PUT", "v1", "datasets", "x", "prompts", body=b"{}"),
    "rewards": lambda client: client.rewards("ips", [b""]),
    "run": lambda client: client.run("m", "r", dataset="d", split="s", flags={}, settings={}, metrics=["ips"]),
    "runs": lambda client: client.runs("m", "open"),
    "sample": lambda client: client.sample(ID, percentiles=True),
    "score": lambda client: client.score(
        b"",
        "p",
        reference=b"",
        auxiliary=b"",
        metadata={"identity": "x"},
        metrics=["ips"],
        method="m",
        run="r",
        name="n",
        evidence=True,
    ),
    "set_study_state": lambda client: client.set_study_state(ID, "open"),
    "slices": lambda client: client.slices(ID, kind="category"),
    "study_results": lambda client: client.study_results(ID, question="overall"),
    "Run.failed": lambda client: client.open_run(ID).failed(),
    "Run.finish": lambda client: client.open_run(ID).finish(),
    "Run.flush": lambda client: add(client.open_run(ID)),
    "Run.refresh": lambda client: client.open_run(ID).refresh(),
    "Run.report": lambda client: client.open_run(ID).report(),
    "Run.samples": lambda client: client.open_run(ID).samples("failed"),
    "Run.summary": lambda client: client.open_run(ID).summary(),
    "Run.wait": lambda client: client.open_run(ID).wait(),
}
ANSWER = {
    "run_id": ID,
    "method": "m",
    "run": "r",
    "state": "finished",
    "counts": {"accepted": 0, "pending": 0},
    "rows": [],
    "runs": [],
    "methods": [],
    "items": [],
    "rewards": {"ips": [0.5]},
}


def generate(client):
    # The response of the stand-in is no image.
    with pytest.raises(errors.ForeignResponse):
        client.generate("{}", b"", b"", seed=1, steps=2, guidance=3, width=64, height=64, negative_prompt="n")


def add(run):
    with run:
        run.add("x", b"", "p", reference=b"", auxiliary=b"", metadata={"identity": "x"})


def schema_of(operation, kind):
    return operation["requestBody"]["content"][kind.split(";")[0]]["schema"]


@pytest.mark.parametrize("name", sorted(CALLS))
def test_every_request_is_in_the_document(name, stand_in):
    stand_in.otherwise = response(200, ANSWER)
    with Client(stand_in.url, key="") as client:
        CALLS[name](client)
    assert stand_in.requests
    for request in stand_in.requests:
        path, _, query = request.path.partition("?")
        templates = {re.sub(r"\{\w+\}", "[^/]+", template): each for template, each in DOCUMENT["paths"].items()}
        found = [each for template, each in templates.items() if re.fullmatch(template, path)]
        if path == "/v1/rewards" and not found:
            continue
        operation = found[0][request.method.lower()]
        parameters = {each["name"] for each in operation.get("parameters", []) if each["in"] == "query"}
        assert {pair.split("=")[0] for pair in query.split("&") if query} <= parameters
        if path == "/v1/rewards" or not request.body or name == "request":
            continue
        fields = set(properties(schema_of(operation, request.headers["content-type"])))
        if request.headers["content-type"] == "application/json":
            assert set(request.json()) <= fields
        else:
            assert {each.decode() for each in re.findall(b'; name="(\\w+)"', request.body)} <= fields


def test_the_list_of_requests_is_complete():
    no_request = {"close", "Run.add", "Run.add_folder", "Run.close", "Run.failures", "Run.id", "Run.info"}
    public = {name for name in dir(Client) if not name.startswith("_")}
    public |= {f"Run.{name}" for name in dir(Run) if not name.startswith("_")}
    assert public - no_request == set(CALLS)


def test_the_version_is_that_of_the_service():
    assert re.search(r'\[workspace.package\]\nversion = "([^"]+)"', (ROOT / "Cargo.toml").read_text())[1] == __version__
    assert DOCUMENT["info"]["version"] == __version__
