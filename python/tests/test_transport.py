"""Connections, retries and errors, with a scripted stand-in."""

import os
import pickle
import shutil
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from stand_in import StandIn, problem, response

import stellar_score.transport
from stellar_score import (
    Client,
    Conflict,
    ConnectionFailed,
    ForeignResponse,
    InternalError,
    Overloaded,
    Problem,
    Unavailable,
)


@pytest.fixture
def client(stand_in):
    with Client(stand_in.url, key="", patience=5) as client:
        yield client


@pytest.fixture
def waits(monkeypatch):
    """The pauses of the client, which are not made."""
    found = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=found.append)
    monkeypatch.setattr(stellar_score.transport, "time", clock)
    return found


def test_requests_share_a_connection(client, stand_in):
    for _ in range(20):
        client.get("v1", "metrics")
    assert (len(stand_in.requests), stand_in.connections) == (20, 1)


def test_no_more_connections_than_allowed(stand_in):
    stand_in.pause = 0.02
    with Client(stand_in.url, key="", connections=3) as client, ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: client.get("v1"), range(24)))
    assert stand_in.most == stand_in.connections == 3


def test_a_connection_closed_while_idle_is_replaced_at_once(stand_in):
    with Client(stand_in.url, key="", patience=0) as client:
        for _ in range(3):
            client.get("v1")
            stand_in.drop()
            time.sleep(0.05)
    assert (len(stand_in.requests), stand_in.connections) == (3, 3)


def test_a_connection_closed_at_the_moment_of_reuse_is_replaced_without_patience(stand_in, monkeypatch):
    monkeypatch.setattr(stellar_score.transport, "_has_ended", lambda connection: False)
    with Client(stand_in.url, key="", patience=0) as client:
        client.get("v1")
        stand_in.drop()
        client.get("v1")
    assert stand_in.connections == 2


def test_a_closed_connection_is_noticed_before_a_request_that_must_not_be_repeated(client, stand_in):
    client.get("v1")
    stand_in.drop()
    time.sleep(0.05)
    client.request("POST", "v1", "preferences", body=b"{}")
    assert stand_in.connections == 2


def test_refusals_are_repeated_after_their_pause(client, stand_in, waits):
    stand_in.script = [
        problem(429, "overloaded", [("Retry-After", "2")]),
        problem(503, "unavailable", [("Retry-After", "1")]),
        problem(507, "storage_full", [("Retry-After", "1")]),
    ]
    assert client.get("v1") == {}
    assert len(stand_in.requests) == 4
    assert 2 <= waits[0] <= 2.5
    assert all(1 <= wait <= 1.25 for wait in waits[1:])


def test_pauses_grow_and_have_jitter(stand_in, waits):
    stand_in.script = [problem(503, "unavailable")] * 8
    with Client(stand_in.url, key="", patience=60) as client:
        client.get("v1")
    bases = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert all(0.5 * base <= wait <= 1.5 * base for base, wait in zip(bases, waits))
    assert len({round(wait / base, 6) for base, wait in zip(bases, waits)}) > 4


def test_patience_ends_with_the_problem_of_the_service(stand_in):
    stand_in.otherwise = problem(429, "key_limit", [("Retry-After", "30")])
    told = []
    with Client(stand_in.url, key="", patience=10, on_wait=told.append) as client, pytest.raises(Overloaded) as caught:
        client.get("v1")
    assert (caught.value.code, caught.value.retry_after, caught.value.request_id) == ("key_limit", 30, "r1")
    assert len(stand_in.requests) == 1, "the pause would be longer than the patience"
    assert told == []


def test_the_caller_hears_why_it_waits(client, stand_in, waits):
    told = []
    client.transport._on_wait = told.append
    stand_in.script = [problem(503, "unavailable", [("Retry-After", "1")])]
    client.get("v1")
    assert told == ["503 unavailable: the detail (request r1)"]


@pytest.mark.parametrize(("status", "code"), [(400, "malformed_request"), (409, "run_conflict"), (500, "internal")])
def test_other_problems_are_not_repeated(client, stand_in, status, code):
    stand_in.script = [problem(status, code, [("Retry-After", "0")])]
    with pytest.raises(Problem) as caught:
        client.get("v1")
    assert (caught.value.status, caught.value.code, caught.value.detail) == (status, code, "the detail")
    assert len(stand_in.requests) == 1


def test_a_service_that_starts_late_is_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}", key="", patience=10)
    late = StandIn.__new__(StandIn)
    timer = threading.Timer(0.4, lambda: (late.__init__(port=port), late.__enter__()))
    timer.start()
    assert client.get("v1") == {}
    client.close()
    late.__exit__()


def test_a_service_that_is_not_there_fails_after_the_patience():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(ConnectionFailed, match=f"http://127.0.0.1:{port} does not respond: .*refused"):
        Client(f"http://127.0.0.1:{port}", key="", patience=0.3).get("v1")
    assert time.monotonic() - started < 2
    assert not Client(f"http://127.0.0.1:{port}", key="").ready()


def test_broken_responses_are_repeated(client, stand_in, waits):
    whole = response(200, {"a": 1})
    stand_in.script = [(b"", "close"), (whole[:-3], "close"), (b"not HTTP\r\n\r\n", "close"), whole]
    assert client.get("v1") == {"a": 1}
    assert len(stand_in.requests) == 4


def test_a_post_of_the_caller_is_repeated_only_if_it_was_refused(client, stand_in, waits):
    stand_in.script = [(b"", "close")]
    with pytest.raises(ConnectionFailed):
        client.request("POST", "v1", "preferences", body=b"{}")
    assert len(stand_in.requests) == 1
    stand_in.script = [problem(504, "deadline_exceeded")]
    with pytest.raises(Problem):
        client.request("POST", "v1", "preferences", body=b"{}")
    stand_in.script = [problem(429, "overloaded", [("Retry-After", "1")])]
    client.request("POST", "v1", "preferences", body=b"{}")
    assert len(stand_in.requests) == 4


def test_a_silent_service_times_out(stand_in):
    stand_in.pause = 1
    with Client(stand_in.url, key="", timeout=0.1, patience=0) as client:
        with pytest.raises(ConnectionFailed, match=r"within 0\.1 s"):
            client.get("v1")


def test_a_response_before_the_body_is_read_is_the_result(client, stand_in):
    stand_in.early = True
    stand_in.otherwise = (problem(413, "payload_too_large"), "close")
    for _ in range(5):
        with pytest.raises((Problem, ConnectionFailed)) as caught:
            client.transport.request("PUT", ["v1"], body=[b"x" * (1 << 20)] * 16, patience=0)
        if isinstance(caught.value, Problem):
            assert caught.value.code == "payload_too_large"
            return
    pytest.fail("the response was never seen")


def test_foreign_responses_are_named(client, stand_in):
    page = response(404, body=b"<html>nginx", headers=[("Content-Type", "text/html")])
    stand_in.script = [page]
    with pytest.raises(ForeignResponse, match="404, but not as stellar-score: <html>nginx") as caught:
        client.get("v1")
    assert caught.value.status == 404
    stand_in.script = [response(301, headers=[("Location", "https://elsewhere/")])]
    with pytest.raises(ForeignResponse, match="redirects to https://elsewhere/"):
        client.get("v1")
    stand_in.script = [response(200, body=b"hello")]
    with pytest.raises(ForeignResponse, match="did not respond with JSON"):
        client.get("v1")


def test_codes_of_a_newer_service_are_of_the_family_of_their_status(client, stand_in):
    for status, family in ((409, Conflict), (503, Unavailable), (500, InternalError)):
        stand_in.script = [problem(status, "new_code")]
        with pytest.raises(family) as caught:
            client.transport.request("GET", ["v1"], patience=0)
        assert caught.value.code == "new_code"


def test_keys_and_passwords_are_sent_and_never_shown(stand_in, monkeypatch):
    address = stand_in.url.replace("http://", "http://any:p%40ss@")
    monkeypatch.setenv("STELLAR_KEY", "stellar_env")
    for client, sent in (
        (Client(stand_in.url, key="stellar_secret\n"), "Bearer stellar_secret"),
        (Client(stand_in.url), "Bearer stellar_env"),
        (Client(stand_in.url, key=""), None),
        (Client(address), "Basic YW55OnBAc3M="),
    ):
        with client:
            client.get("v1")
            assert stand_in.requests[-1].headers.get("authorization") == sent
            assert "secret" not in repr(client)
            assert "ss@" not in repr(client)
    stand_in.script = [problem(500, "internal")]
    with Client(address) as client, pytest.raises(Problem) as caught:
        client.get("v1")
    assert "p%40ss" not in str(caught.value)
    for key in ("stellar_secret\r\nX: y", "stellar_sécret", "stellar secret"):
        with pytest.raises(ValueError, match="characters that no key has") as refused:
            Client(stand_in.url, key=key)
        assert "cret" not in str(refused.value)
    with pytest.raises(ValueError, match="use one of them"):
        Client(address, key="stellar_key")


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://", "http://host:x", "http://host/?a=b"])
def test_other_addresses_are_refused(url):
    with pytest.raises(ValueError, match="address"):
        Client(url)


def test_paths_are_encoded_and_kept_below_the_prefix(stand_in):
    with Client(stand_in.url + "/scores/", key="") as client:
        client.get("v1", "runs", "a/b ü?", metrics=["clip_t", "ips"], published=True, pack=None, limit=3)
    expected = "/scores/v1/runs/a%2Fb%20%C3%BC%3F?metrics=clip_t%2Cips&published=true&limit=3"
    assert stand_in.requests[0].path == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_opens_its_own_connections(client, stand_in):
    client.get("v1")
    child = os.fork()
    if child == 0:
        try:
            client.get("child")
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    client.get("v1")
    assert [request.connection for request in stand_in.requests] == [1, 2, 1]


def test_clients_and_problems_can_be_pickled(client, stand_in):
    with pickle.loads(pickle.dumps(client)) as copy:
        assert copy.get("v1") == {}
    stand_in.script = [problem(409, "run_conflict")]
    with pytest.raises(Conflict) as caught:
        client.get("v1")
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (type(copied), copied.code, str(copied)) == (Conflict, "run_conflict", str(caught.value))


def test_a_client_that_nobody_closes_leaves_no_open_socket(stand_in):
    client = Client(stand_in.url, key="")
    client.get("v1")
    ((connection, _),) = client.transport._idle
    del client
    assert connection.sock is None


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls_verifies_the_certificate(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    name = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *name, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with StandIn(context) as server:
        trusting = ssl.create_default_context(cafile=str(certificate))
        with Client(server.url, key="stellar_k", context=trusting) as client:
            client.get("v1")
            client.get("v1")
        assert (server.connections, server.requests[0].headers["authorization"]) == (1, "Bearer stellar_k")
        started = time.monotonic()
        with pytest.raises(ConnectionFailed, match="certificate verify failed"):
            Client(server.url, key="stellar_k").get("v1")
        assert time.monotonic() - started < 5, "a wrong certificate is not waited for"
