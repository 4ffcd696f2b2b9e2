"""API keys, with a service that has one."""

import os
import subprocess

import pytest
from conftest import PROGRAM, ROOT

from stellar_score import Client, Forbidden, Unauthorized


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A service with a key that may read, and the key."""
    from service import Service

    folder = tmp_path_factory.mktemp("guarded")
    started = Service(PROGRAM, folder, settings={"STELLAR_PACK": str(ROOT / "packs/demo")}).start().ready()
    environment = {**os.environ, "STELLAR_STORE__URL": started.store, "STELLAR_STORE__SPOOL": str(started.files)}
    command = [PROGRAM, "keys", "create", "reader", "--scopes", "read"]
    created = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert created.returncode == 0, created.stderr
    yield started, created.stdout.strip()
    started.stop()


def test_a_key_is_sent_as_an_argument_a_variable_or_a_password(guarded, monkeypatch):
    service, key = guarded
    url = f"http://127.0.0.1:{service.port}"
    with Client(url, key=key) as client:
        assert client.methods() == []
    with Client(url.replace("http://", f"http://any:{key}@")) as client:
        assert client.methods() == []
    monkeypatch.setenv("STELLAR_KEY", key)
    with Client(url) as client:
        assert client.methods() == []


def test_a_missing_key_and_a_missing_scope_are_named(guarded, goldens):
    service, key = guarded
    url = f"http://127.0.0.1:{service.port}"
    with Client(url, key="") as client:
        assert client.ready()
        with pytest.raises(Unauthorized) as refused:
            client.methods()
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")
    with Client(url, key=key) as client, pytest.raises(Forbidden, match="score") as forbidden:
        client.score(goldens / "coffee.jpg", "a cup")
    assert forbidden.value.code == "scope_missing"
    assert key not in str(forbidden.value)
