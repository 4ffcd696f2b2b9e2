"""Rewards, against a stand-in written from the description of `POST /v1/rewards`."""

import statistics

import numpy
import pytest
from PIL import Image
from rewards_stand_in import answer
from stand_in import problem, response

from stellar_score import Client, ForeignResponse, InvalidRequest, MissingScore, rows, summary


def image(level, height=8, width=6):
    return numpy.full((height, width, 3), level, numpy.uint8)


@pytest.fixture
def server(stand_in):
    stand_in.otherwise = answer
    return stand_in


@pytest.fixture
def client(server):
    with Client(server.url, key="", patience=1) as client:
        yield client


def document(request):
    return request.sent.document


@pytest.mark.parametrize("kind", ["pixels", "sizes", "files", "both"])
def test_the_rewards_of_the_service_are_its_scores(service, goldens, kind):
    names = ("astronaut-face.jpg", "coffee.jpg") if kind == "sizes" else ("coffee.jpg", "coffee.jpg")
    photo = goldens / "astronaut-face.jpg"
    files = [goldens / name for name in names]
    images = files if kind == "files" else [numpy.asarray(Image.open(file)) for file in files]
    reference = photo if kind in ("files", "both") else numpy.asarray(Image.open(photo))
    with Client(f"http://127.0.0.1:{service.port}", key="") as client:
        result = client.rewards(
            {"clip_t": 1.0, "clip_i": 0.5},
            images,
            ["a cup", "coffee"],
            references=[reference, reference],
            groups=["g", "g"],
            on_null="fail",
        )
        expected = [client.score(file, text, reference=photo) for file, text in zip(files, ("a cup", "coffee"))]
        scores = client.grpo_reward("clip_t")(images, ["a cup", "coffee"])
    for code in ("clip_t", "clip_i"):
        # The size of a batch may change the last digits.
        values = [each["scores"][code]["value"] for each in expected]
        assert result["rewards"][code] == pytest.approx(values, abs=1e-5)
    assert scores == pytest.approx(result["rewards"]["clip_t"], abs=1e-5)
    assert (result["groups"]["g"]["items"], result["groups"]["g"]["n"]) == ([0, 1], 2)
    assert result["errors"] == result["reasons"] == {}


def test_a_batch_of_one_size_is_one_tensor(client, server):
    batch = numpy.stack([image(level) for level in (10, 20, 30)])
    result = client.rewards("ips", batch, ["a", "b", "ü"], ids=["x", "y", "z"])
    assert result["rewards"] == {"ips": [13.0, 23.0, 33.0]}
    (request,) = server.requests
    assert {name: tensor.shape for name, tensor in request.sent.tensors.items()} == {"images": (3, 8, 6, 3)}
    assert document(request) == {
        "rewards": ["ips"],
        "items": [
            {"image": {"tensor": at}, "prompt": prompt, "id": name}
            for at, (prompt, name) in enumerate([("a", "x"), ("b", "y"), ("ü", "z")])
        ],
    }
    assert summary(result) == {"ips": 23.0, "ips/std": pytest.approx((200 / 3) ** 0.5), "ips/n": 3.0}
    assert rows(result) == [{"ips": 13.0}, {"ips": 23.0}, {"ips": 33.0}]


def test_the_format_is_that_of_the_safetensors_package(client, server):
    safetensors = pytest.importorskip("safetensors.numpy")
    client.rewards("ips", [image(1), image(2, 3, 4)], references=[image(3), image(3)])
    loaded = safetensors.load(server.requests[0].body)
    assert {name: tensor.shape for name, tensor in loaded.items()} == {
        "images.0": (8, 6, 3),
        "images.1": (3, 4, 3),
        "references": (2, 8, 6, 3),
    }


def test_images_of_several_sizes_and_photos_arrive_at_their_places(client, server):
    photo, other = image(7), image(5, 4, 4)
    result = client.rewards(
        "ips",
        [image(1), image(2, 9, 9), image(3)],
        "one prompt for all",
        references=[photo, None, [photo, image(9)]],
        auxiliary=[None, [other, other], other],
        metadata=[{"detectables": ["dog"]}, None, None],
    )
    assert result["rewards"]["ips"] == [7004.0, 10_000_005.0, 5_016_006.0]
    (request,) = server.requests
    assert [name for name in request.sent.tensors if name.startswith("references")] == ["references"]
    assert request.sent.tensors["references"].shape[0] == 2, "the same photo is sent once"
    assert request.sent.tensors["auxiliary"].shape[0] == 1
    assert [item.get("metadata") for item in document(request)["items"]] == [{"detectables": ["dog"]}, None, None]
    assert {item["prompt"] for item in document(request)["items"]} == {"one prompt for all"}


def test_files_go_into_a_form_and_are_not_changed(client, server, goldens):
    photo = goldens / "astronaut-face.jpg"
    level = float(numpy.asarray(Image.open(photo)).mean())
    result = client.rewards("ips", [image(1), image(2)], references=[photo, str(photo)])
    assert result["rewards"]["ips"] == pytest.approx([4 + 1000 * level, 5 + 1000 * level])
    (request,) = server.requests
    assert set(request.sent.parts) == {"images.0", "images.1", "references.0"}
    assert request.sent.parts["references.0"] == photo.read_bytes()
    assert request.sent.parts["images.0"].startswith(b"\x89PNG")


def test_large_batches_are_divided_and_keep_their_order(client, server):
    levels = [(7 * at) % 251 for at in range(40)]
    prompts = ["null" if at == 21 else "broken" if at == 33 else f"p{at}" for at in range(40)]
    side = 512
    images = [image(level, side, side) for level in levels]
    result = client.rewards({"ips": 2.0}, images, prompts, chunk_mib=8, on_null="fail")
    assert len(server.requests) == 4, "ten images of 0.75 MiB each"
    assert all(len(request.body) <= 8 << 20 for request in server.requests)
    expected = [None if at in (21, 33) else level + 3.0 for at, level in enumerate(levels)]
    assert result["rewards"]["ips"] == expected
    assert result["combined"] == [None if value is None else 2 * value for value in expected]
    assert result["reasons"] == {"ips": {"21": "no_prompt"}}
    assert list(result["errors"]) == ["33"]
    assert result["timings"] == {"total_ms": 8.0}


def test_a_group_is_never_divided(client, server):
    groups = [f"g{at % 5}" for at in range(40)]
    levels = [(37 * at) % 251 for at in range(40)]
    images = [image(level, 256, 256) for level in levels]
    result = client.rewards("ips", images, groups=groups, chunk_mib=2)
    assert len(server.requests) == 5, "eight images of 0.19 MiB are a group, and two groups do not fit"
    for request in server.requests:
        assert len({item["group"] for item in document(request)["items"]}) == 1
    assert result["rewards"]["ips"] == [level + 3.0 for level in levels]
    for name, group in result["groups"].items():
        members = [at for at in range(40) if groups[at] == name]
        values = [levels[at] + 3.0 for at in members]
        assert group["items"] == members
        assert (group["n"], group["mean"]) == (8, statistics.fmean(values))
        assert group["advantage"][3] == pytest.approx((values[3] - group["mean"]) / (statistics.pstdev(values) + 1e-4))


def test_a_change_between_two_requests_is_not_mixed(client, server):
    def other(request):
        return answer(request).replace(b'"d1"', b'"d2"')

    server.script = [other]
    with pytest.raises(ForeignResponse, match="changed its pack"):
        client.rewards("ips", [image(1, 512, 512)] * 2, chunk_mib=1, groups=["a", "b"], concurrency=1)


def test_a_response_without_a_number_or_null_for_each_image_is_refused(client, server):
    server.script = [response(200, {"rewards": {"ips": [1.0]}}), response(200, {})]
    for _ in range(2):
        with pytest.raises(ForeignResponse, match="each of 2 images"):
            client.rewards("ips", [image(1), image(2)])


def test_options_and_errors(client, server):
    client.rewards(["ips", "sis"], image(1), "x", wait=12.4)
    assert server.requests[0].headers["prefer"] == "wait=12"
    assert document(server.requests[0])["rewards"] == ["ips", "sis"]
    server.script = [problem(422, "invalid_field")]
    with pytest.raises(InvalidRequest):
        client.rewards("nothing@else", image(1))
    for wrong, words in (
        (lambda: client.rewards("ips", [image(1)], ["a", "b"]), "1 images and 2 prompts"),
        (lambda: client.rewards("ips", []), "no images"),
        (lambda: client.rewards([], [image(1)]), "at least one reward"),
        (lambda: client.rewards({"ips": 1.0}, [image(1)]), "on_null='skip', 'zero' or 'fail'"),
        (lambda: client.ddpo_reward(["ips", "sis"]), "several rewards need weights"),
        (lambda: client.grpo_reward("ips", on_null="zero"), "is for sums"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()


def test_a_ddpo_reward_function(client, server):
    reward = client.ddpo_reward("pick_score@flow_grpo", columns={"references": "photo"})
    metadata = ({"photo": image(1), "anything": 3}, {})
    scores, extra = reward(numpy.stack([image(10), image(20)]) / 255.0, ("a", "b"), metadata)
    assert (scores, extra) == ([1000 + 10 + 20.0, 20 + 20.0], {})
    assert reward.__name__ == "pick_score_flow_grpo"
    assert summary(reward.last)["pick_score.flow_grpo/n"] == 2
    assert reward(numpy.stack([image(10)]), ["a"], [{}]) == ([30.0], {})


def test_a_grpo_reward_function(client, server):
    reward = client.grpo_reward({"ips": 1.0, "sis": 0.5}, on_null="zero")
    chats = [[{"role": "user", "content": "a"}], [{"role": "user", "content": [{"type": "text", "text": "b"}]}]]
    completions = [
        [{"role": "assistant", "content": [{"type": "image", "image": Image.fromarray(image(10))}]}],
        image(20),
    ]
    scores = reward(completions=completions, prompts=chats, references=[image(1), image(2)], seed=[1, 2])
    assert scores == [1.5 * (1013.0), 1.5 * (2023.0)]
    sent = document(server.requests[0])
    assert [item["prompt"] for item in sent["items"]] == ["a", "b"]
    assert sent["combine"] == {"weights": {"ips": 1.0, "sis": 0.5}, "on_null": "zero"}
    assert reward.__name__ == "ips_sis"


def test_a_missing_reward_is_never_silently_zero(client, server):
    images, prompts = [image(1), image(2), image(3)], ["x", "null", "broken"]
    words = "2 of 3 images have no reward: image 1: ips: no_prompt; image 2: image_corrupt: d"
    with pytest.raises(MissingScore, match=words) as caught:
        client.grpo_reward("ips")(images, prompts)
    assert sorted(caught.value.reasons) == [1, 2]
    assert client.grpo_reward("ips", on_null=None)(images, prompts) == [4.0, None, None]
    assert client.ddpo_reward("ips", on_null=-1)(images, prompts, None) == ([4.0, -1.0, -1.0], {})
    with pytest.raises(MissingScore):
        client.grpo_reward({"ips": 1.0})(images, prompts)
    assert document(server.requests[-1])["combine"]["on_null"] == "fail"
