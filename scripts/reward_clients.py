#!/usr/bin/env python3
"""Runs the trainers' own reward clients against the adapters, with the demo pack, and compares their rewards.

    make reward-clients
    scripts/reward_clients.py [--program target/release/stellar-score] [--sources FOLDER]

The clients are fetched from GitHub at the commits below, or read from FOLDER as owner+name/path. They run unchanged but
for their URL; what they import of their trainer is replaced by empty stand-ins. Expected are the trainer's formula and
the raw value that POST /v1/score returns for the same bytes, to 1e-5. Needs Python with PyTorch, Pillow and requests
(`make export-setup`); aiohttp is installed under .runtime/reward-clients on first use.
"""

import argparse
import asyncio
import contextlib
import importlib.abc
import importlib.machinery
import io
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import types
import urllib.error
import urllib.request
from pathlib import Path

from service import FORM, Service, form, without_settings

HERE = Path(__file__).resolve().parent
LIBRARIES = HERE.parent / ".runtime/reward-clients"
AIOHTTP = "aiohttp==3.13.2"
CLOSE = 1e-5

SOURCES = {
    "flow_grpo": ("yifan123/flow_grpo", "54809b5fcf4d3930d2a17fa553928704bd0b719e", "flow_grpo/rewards.py"),
    "verl-omni": ("verl-project/verl-omni", "0ef63e57e2af137519e24aeb375b9717dd018826", "verl_omni/utils/reward_score/http_scorer_client.py"),
    "verl-omni pickscore": ("verl-project/verl-omni", "0ef63e57e2af137519e24aeb375b9717dd018826", "verl_omni/utils/reward_score/pickscore_http_client.py"),
    "deepgen": ("deepgenteam/deepgen_rl", "688394cd0e312dd3b7854118f7ceff804b0549ee", "deepgen_rl/reward_evaluator/reward_evaluator.py"),
    "UniRL": ("Tencent-Hunyuan/UniRL", "0e713d6307ab5ab45e6c912a4c1bd8a71f009f55", "unirl/reward/remote.py"),
    "UniRL SDK": ("Tencent-Hunyuan/UniRL", "1a7b501e8fe8517b432a130220d2ff462f9b5afa", "unirl-reward-service/reward_service/client.py"),
    "Flow-Factory": ("X-GenGroup/Flow-Factory", "696af0711dbda2d7b717970f82c1af54bdcb5eb6", "src/flow_factory/rewards/my_reward_remote.py"),
    "cosmos-rl": ("nvidia-cosmos/cosmos-rl", "0766726776c813f54dd4eaf736adf92d039e875e", "cosmos_rl/reward/remote_calculator.py"),
    "cosmos-rl retries": ("nvidia-cosmos/cosmos-rl", "0766726776c813f54dd4eaf736adf92d039e875e", "cosmos_rl/utils/network_util.py"),
    "cosmos-rl constants": ("nvidia-cosmos/cosmos-rl", "0766726776c813f54dd4eaf736adf92d039e875e", "cosmos_rl/utils/constant.py"),
    "cosmos-rl example": ("nvidia-cosmos/cosmos-rl", "0766726776c813f54dd4eaf736adf92d039e875e", "reward_service/cosmos_rl_reward/example/image_client.py"),
}

REWARDS = {
    "pickscore": "pick_score@flow_grpo", "clip": "clip_t@flow_grpo", "imagereward": "image_reward@unit",
    "aesthetic": "aesthetic@tenth", "hpsv2": "hpsv2@v2.1",
}
ADAPTERS = [{"protocol": protocol, "name": name, "reward": reward} for protocol in ("pickle", "flow-factory") for name, reward in REWARDS.items()]
ADAPTERS += [{"protocol": protocol, "reward": REWARDS} for protocol in ("unirl", "cosmos")]

# The trainers' formulas over (the raw value, the logits): PickScore and CLIP divide logits; these are not our code.
FORMULAS = {
    "pickscore": ("pick_score", lambda raw, logits: logits / 26),
    "clip": ("clip_t", lambda raw, logits: raw * 100 / 30),
    "imagereward": ("image_reward", lambda raw, logits: (raw + 2) / 4),
    "aesthetic": ("aesthetic", lambda raw, logits: raw / 10),
    "hpsv2": ("hpsv2", lambda raw, logits: raw),
}
PROMPTS = ["a photo of a horse", "größer, 猫 🐎", "an astronaut on the moon"]


def fetch(folder):
    """Reads or fetches every source; returns text by name, and why some are missing."""
    texts, missing = {}, {}
    for name, (repository, commit, path) in SOURCES.items():
        try:
            if folder:
                texts[name] = (Path(folder) / repository.replace("/", "+") / path).read_text()
                continue
            url = f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"
            with urllib.request.urlopen(url, timeout=30) as response:
                texts[name] = response.read().decode()
        except (OSError, urllib.error.URLError) as error:
            missing[name] = f"{repository} {path}: {error}"
    return texts, missing


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of the trainers that are not fetched: every attribute is an empty class, which takes any arguments."""

    ROOTS = ("cosmos_rl", "flow_factory", "unirl", "accelerate")

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.ROOTS:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)

        def attribute(name):
            if name.startswith("__"):
                raise AttributeError(name)
            if name == "require":
                return lambda condition, message: None
            if name == "logger":
                return logging.getLogger(spec.name)
            return type(name, (types.SimpleNamespace,), {"__init__": lambda self, *_, **fields: self.__dict__.update(fields)})

        module.__getattr__ = attribute
        return module

    def exec_module(self, module):
        pass


def load(name, text):
    """Runs a source as a module."""
    module = types.ModuleType(name)
    module.__file__ = name
    sys.modules[name] = module
    exec(compile(text, name, "exec"), module.__dict__)
    return module


class Checks:
    def __init__(self, service):
        self.service, self.failed, self.ran = service, 0, []

    def raw(self, image, prompt, name):
        """The trainer's formula over the service's raw value for the bytes of an image file."""
        metric, formula = FORMULAS[name]
        fields = [("image", image), ("prompt", prompt), ("metrics", metric), ("method", "raw")]
        status, text, _ = self.service.call("POST", "/v1/score", form(fields), FORM)
        scored = json.loads(text) if status == 200 else sys.exit(f"/v1/score: {status} {text[:300]!r}")
        logits = None
        if metric == "pick_score":
            stored = self.service.get(f"/v1/samples/{scored['sample']}?evidence=true")
            details = [each.get("details", {}).get(metric) for each in stored["evidence"]]
            logits = next(each for each in details if each)["published_scale"]
        return formula(scored["scores"][metric]["value"], logits)

    def equal(self, client, found, expected):
        import numpy as np

        found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
        # Clients that go through float32 tensors lose as much.
        worst = np.max(np.abs(found - expected)) if found.shape == expected.shape else np.inf
        good = bool(worst <= CLOSE) and len(set(expected.round(9).tolist())) > 1
        self.note(client, good, f"{len(found)} rewards, furthest {worst:.1e}" + ("" if good else f": {found} for {expected}"))

    def fails(self, client, call, words):
        """A call must raise an error that has these words."""
        try:
            result = call()
        except Exception as error:  # noqa: BLE001: whatever the client raises
            # Some errors have the URL, and with it the key.
            told = re.sub(r"stellar_\w+", "KEY", f"{type(error).__name__}: {error}")
            self.note(client, all(word in told for word in words), f"an error is `{told[:160]}`")
        else:
            self.note(client, False, f"no error but {result}")

    def note(self, client, good, what):
        self.failed += not good
        if client not in self.ran:
            self.ran.append(client)
        print(f"  {'ok ' if good else 'BAD'} {client}: {what}", flush=True)


def encoded(pixels, kind, **options):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind, **options)
    return buffer.getvalue()


def run(sources, checks, base, keyed):
    """Runs every client that was found. `keyed` is the URL with a key as its password."""
    import numpy as np
    import torch
    from PIL import Image

    draw = np.random.default_rng(7)
    smooth = [Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((96, 96)) for _ in PROMPTS]
    pixels = [np.asarray(image) for image in smooth]
    tensors = torch.stack([torch.from_numpy(each.copy()).permute(2, 0, 1) for each in pixels])
    floats = tensors.float() / 255
    jpegs = [encoded(each, "JPEG") for each in pixels]
    of_jpegs = lambda name: [checks.raw(image, prompt, name) for image, prompt in zip(jpegs, PROMPTS)]

    if text := sources.get("flow_grpo"):
        text = re.sub(r'"http://127\.0\.0\.1:18086"', f'"{keyed}/rl/pickle/aesthetic"', text)
        text, count = re.subn(r'"http://10\.82\.120\.15:18085"', f'"{keyed}/rl/pickle/pickscore"', text)
        client = load("client_flow_grpo", text)
        checks.equal("flow_grpo deqa_score_remote", client.deqa_score_remote("cpu")(floats, PROMPTS, {})[0], of_jpegs("aesthetic"))
        unified = client.unifiedreward_score_remote("cpu")

        def quietly(prompts):
            with contextlib.redirect_stdout(io.StringIO()):
                return unified(floats, prompts, {})[0]

        checks.equal("flow_grpo unifiedreward_score_remote", quietly(PROMPTS), of_jpegs("pickscore"))
        # It unpickles whatever comes, so a missing `outputs` is its error.
        checks.fails("flow_grpo unifiedreward_score_remote", lambda: quietly(["a\0b", "a", "b"]), ["KeyError", "outputs"])

    if text := sources.get("verl-omni"):
        client = load("client_verl_omni", text)

        async def wave(url, count):
            calls = [client.compute_score(tensors[at % 3], PROMPTS[at % 3], url) for at in range(count)]
            try:
                return [each["score"] for each in await asyncio.gather(*calls)]
            finally:
                await client.compute_score._session.close()

        expected = of_jpegs("pickscore")
        checks.equal("verl-omni http_scorer_client", asyncio.run(wave(f"{keyed}/rl/pickle/pickscore", 300)), expected * 100)
        checks.fails("verl-omni http_scorer_client", lambda: asyncio.run(wave(f"{keyed}/rl/pickle/nope", 1)), ["404", "[[rewards.adapter]]"])

    if text := sources.get("verl-omni pickscore"):
        client = load("client_verl_pickscore", text)

        async def balanced(name, count):
            urls = f"{keyed}/rl/pickle/{name},{keyed}/rl/pickle/{name}"
            calls = [client.compute_score(floats[at], PROMPTS[at], urls) for at in range(count)]
            try:
                return [each["score"] for each in await asyncio.gather(*calls)]
            finally:
                await client.compute_score._session.close()

        checks.equal("verl-omni pickscore_http_client", asyncio.run(balanced("hpsv2", 3)), of_jpegs("hpsv2"))
        # It reads an error as text. A pickle is none, so it fails instead of training on 0.
        checks.fails("verl-omni pickscore_http_client", lambda: asyncio.run(balanced("nope", 1)), ["UnicodeDecodeError"])

    if text := sources.get("deepgen"):
        os.environ |= {"PICKSCORE_URL": f"{keyed}/rl/pickle/pickscore", "IMAGE_REWARD_URL": f"{keyed}/rl/pickle/imagereward", "IMAGE_REWARD_WORKERS": "2", "HPS_URL": f"{keyed}/rl/pickle/nope"}
        client = load("client_deepgen", text).RewardEvaluatorClient()
        checks.equal("deepgen, one request", client.evaluate("pickscore", smooth, PROMPTS, {})["scores"], of_jpegs("pickscore"))
        checks.equal("deepgen, two workers", client.evaluate("image_reward", smooth, PROMPTS, {}), of_jpegs("imagereward"))
        checks.fails("deepgen, one request", lambda: client.evaluate("hps", smooth, PROMPTS, {}), ["404"])

    best = [encoded(each, "JPEG", quality=95) for each in pixels]
    of_best = lambda name: [checks.raw(image, prompt, name) for image, prompt in zip(best, PROMPTS)]
    if text := sources.get("UniRL"):
        module = load("client_unirl", text)
        module.RewardBackend.__init__ = lambda self, *_, **fields: self.__dict__.update(fields)
        names = ("pickscore", "clip")
        weights = {"pickscore": 0.6, "clip": 0.4}
        spec = module.RemoteRewardSpec(base_url=f"{keyed}/rl/unirl", required_rewards=names, reward_weights=weights)
        client = module.RemoteRewardBackend(config=spec, base_device="cpu")
        assert client.is_available(), "health"
        request = lambda prompts: types.SimpleNamespace(
            is_video=False, batch_size=len(prompts), images=smooth, prompts=prompts, metadata=[{"policy_version": 3}] * 3,
            primitives={}, image_references=[], sample_ids=["a", "b", "c"], group_ids=["g", "g", "g"],
        )
        answer = client.compute_rewards(request(PROMPTS))
        checks.note("UniRL RemoteRewardBackend", answer.successes == [True] * 3, f"successes {answer.successes}")
        for name in names:
            checks.equal("UniRL RemoteRewardBackend", answer.component_rewards[name], of_best(name))
        by_hand = [0.6 * one + 0.4 * other for one, other in zip(of_best("pickscore"), of_best("clip"))]
        checks.equal("UniRL RemoteRewardBackend", answer.rewards, by_hand)
        answer = client.compute_rewards(request([PROMPTS[0], "a\0", PROMPTS[2]]))
        checks.note("UniRL RemoteRewardBackend", answer.successes == [True, False, True] and "U+0000" in answer.errors[1], f"a broken prompt is `{answer.errors[1]}`")
        spec = module.RemoteRewardSpec(base_url=f"{keyed}/rl/unirl", required_rewards=("nope",))
        checks.fails("UniRL RemoteRewardBackend", module.RemoteRewardBackend(config=spec, base_device="cpu").is_available, ["nope", "pickscore"])

    if text := sources.get("UniRL SDK"):
        module = load("client_unirl_sdk", text)
        client = module.RewardClient(f"{keyed}/rl/unirl")
        checks.note("UniRL RewardClient", client.rewards() == sorted(REWARDS), f"rewards {client.rewards()}")
        requests = [module.RewardRequest([(prompt, image)], ["hpsv2"]) for prompt, image in zip(PROMPTS, smooth)]
        checks.equal("UniRL RewardClient", [each["hpsv2"]["hpsv2"] for each in client.score(requests)], of_best("hpsv2"))
        edit = module.RewardRequest([(PROMPTS[0], smooth[0]), (PROMPTS[1], smooth[1])], ["clip"])
        found = client.score([edit, requests[0].__class__([(PROMPTS[0], smooth[0])], ["clip"])])
        checks.equal("UniRL RewardClient", [each["clip"]["clip"] for each in found], [of_best("clip")[1], of_best("clip")[0]])

    if text := sources.get("Flow-Factory"):
        module = load("client_flow_factory", text)
        client = module.RemoteRewardClient(f"{keyed}/rl/flow-factory/clip/")
        checks.note("Flow-Factory RemoteRewardClient", client.health_check(), "health")
        pngs = [encoded(each, "PNG") for each in pixels]
        expected = [checks.raw(image, prompt, "clip") for image, prompt in zip(pngs, PROMPTS)]
        checks.equal("Flow-Factory RemoteRewardClient", client.compute(PROMPTS, image=smooth, condition_images=[[each] for each in smooth]), expected)
        checks.fails("Flow-Factory RemoteRewardClient", lambda: client.compute(["a", "b\0", "c"], image=smooth), ["Server error", "images[1]", "U+0000"])

    of_pixels = lambda name: [checks.raw(encoded(each, "PNG"), PROMPTS[0], name) for each in pixels]
    if all(name in sources for name in ("cosmos-rl", "cosmos-rl retries", "cosmos-rl constants")):
        load("cosmos_rl.utils.constant", sources["cosmos-rl constants"])
        load("cosmos_rl.utils.network_util", sources["cosmos-rl retries"])
        os.environ |= {
            "REMOTE_REWARD_ENQUEUE_URL": f"{base}/rl/cosmos/api/reward/enqueue", "REMOTE_REWARD_FETCH_URL": f"{base}/rl/cosmos/api/reward/pull",
            "REMOTE_REWARD_TOKEN": keyed.split("//any:")[1].split("@")[0],
        }
        module = load("client_cosmos", sources["cosmos-rl"])
        for name in ("pickscore", "imagereward"):
            settings = types.SimpleNamespace(reward_fn={name: 1.0}, score_key=name, reward_clip_min=-10.0, reward_clip_max=10.0, scale=2.0)
            nested = types.SimpleNamespace(train=types.SimpleNamespace(train_policy=types.SimpleNamespace(remote_reward=settings)))
            client = module.RemoteRewardCalculator()
            client.setup(nested)
            payload = types.SimpleNamespace(extra_info={"modality": "image"}, completions=floats, prompt={"prompt": PROMPTS[0]}, prompt_idx=0)
            uuid = client.compute_rewards([payload], False, 0)
            checks.equal("cosmos-rl RemoteRewardCalculator", client.fetch_reward(uuid).tolist(), [2 * each for each in of_pixels(name)])

    if text := sources.get("cosmos-rl example"):
        key = keyed.split("//any:")[1].split("@")[0]
        text = re.sub(r'"http://localhost:8080"', f'"{base}"', text).replace('"/api/reward/', '"/rl/cosmos/api/reward/')
        text = text.replace("token = None", f"token = {key!r}", 1)
        with contextlib.redirect_stdout(io.StringIO()):
            module = load("client_cosmos_example", text)
        found = module.response.json()["scores"]["hpsv2"]
        expected = [checks.raw(encoded(each, "PNG"), prompt, "hpsv2") for each, prompt in zip(module.arr, module.prompts)]
        checks.equal("cosmos-rl example/image_client.py", found, expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/stellar-score")
    parser.add_argument("--sources", help="folder with the clients, as owner+name/path; default: fetched from GitHub")
    arguments = parser.parse_args()
    sources, missing = fetch(arguments.sources)
    for why in missing.values():
        print(f"reward_clients.py: not read: {why}")
    if not sources:
        sys.exit("reward_clients.py: no client was read: this needs https://raw.githubusercontent.com, or --sources FOLDER")
    try:
        import numpy, PIL, requests, torch  # noqa: E401, F401
    except ImportError as error:
        sys.exit(f"reward_clients.py: {error}: run `make export-setup` and this script with .runtime/export/bin/python")
    sys.path.append(str(LIBRARIES))
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", LIBRARIES, AIOHTTP]
        subprocess.run(pip, check=True)
    sys.meta_path.insert(0, StandIns())
    logging.disable(logging.CRITICAL)
    program = str(Path(arguments.program).resolve())
    with tempfile.TemporaryDirectory() as folder:
        adapters = "[" + ", ".join(literal(each) for each in ADAPTERS) + "]"
        service = Service(program, folder, settings={"STELLAR_REWARDS__ADAPTER": adapters}).start().ready()
        try:
            key = create_key(program, service)
            checks = Checks(Keyed(service, key))
            base = f"http://127.0.0.1:{service.port}"
            run(sources, checks, base, base.replace("//", f"//any:{key}@"))
        finally:
            service.stop()
    print(f"{len(checks.ran)} clients ran, {checks.failed} checks failed, {len(missing)} sources are missing")
    return 1 if checks.failed or missing else 0


def literal(value):
    """A value in the syntax of environment variables, which is TOML's but for the equals signs."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {literal(each)}" for name, each in value.items()) + "}"
    return json.dumps(value)


def create_key(program, service):
    environment = without_settings() | {"STELLAR_STORE__URL": service.store}
    create = [program, "keys", "create", "trainer", "--scopes", "score,read"]
    return subprocess.run(create, check=True, capture_output=True, text=True, env=environment).stdout.strip()


class Keyed:
    """Calls of a service with a key."""

    def __init__(self, service, key):
        self.service, self.key = service, key

    def call(self, method, path, body=None, kind="application/json"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.service.port}{path}", data=body, method=method)
        request.add_header("Content-Type", kind)
        request.add_header("Authorization", f"Bearer {self.key}")
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                return response.status, response.read(), 0.0
        except urllib.error.HTTPError as error:
            return error.code, error.read(), 0.0

    def get(self, path):
        status, text, _ = self.call("GET", path)
        return json.loads(text) if status == 200 else sys.exit(f"{path}: {status} {text[:300]!r}")


if __name__ == "__main__":
    sys.exit(main())
