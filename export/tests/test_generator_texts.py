"""Texts of generator packs: the words of a photo among the tokens, padding, the pooled state; and the photo itself."""

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from stellar_export.errors import ExportError
from stellar_export.generator import demo, goldens
from stellar_export.generator.base import Base
from stellar_export.generator.export import IMAGE_ENCODERS, encoder_folder, text_config, text_job
from stellar_export.generator.splice import splice
from stellar_export.generator.words import PhotoWords, encoder, pixels_of_photo, trained
from stellar_export.nn import FP32
from stellar_export.onnx_graph import run_torch

pytest.importorskip("diffusers", reason="requirements-reference.txt is not installed")

NASTY = (
    "{}",
    "{}'s portrait",
    "a{}b",
    "a photo of {}, smiling",
    "  {}   and\tsomeone   else ",
    "({}) -- \"{\" } 100%",
    "wow! {} won!!! yes !",
    "#{}# ##hashtags #42",
    "Café für {} — 한국어 \U0001f600 don’t ﬁne &amp; <b>",
    "a photo of {} <|endoftext|> after the end",
    "{} " + "and a very long road that leads over seven hills " * 12,
    "and a very long road " * 14 + "{} at its end",
    "and a very long road " * 15 + "{} at its end",
)
PIECES = ("{}", " ", "'s", "a", "photo", "of", "!", ",", "#", "Ü", "skiing", "\n", "…", "42", "é", "person", ".", "😀", "-", "((")


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return demo.checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def base(options) -> Base:
    return Base.open(options.base)


@pytest.fixture(scope="module")
def reference(base, options) -> goldens.Reference:
    """diffusers' pipeline, whose tokenizers and encoders have the words as new tokens."""
    return goldens.Reference(base, options)


@pytest.fixture(scope="module")
def tokenizers(base):
    from transformers import CLIPTokenizer

    return [CLIPTokenizer.from_pretrained(base.path / name) for name in ("tokenizer", "tokenizer_2")]


def expanded(reference, index: int, prompt: str) -> list[int]:
    """Ids by diffusers' expansion of a placeholder with several vectors."""
    pipeline = reference.pipeline
    tokenizer = (pipeline.tokenizer, pipeline.tokenizer_2)[index]
    text = pipeline.maybe_convert_prompt(prompt.replace("{}", goldens.TOKEN), tokenizer)
    return tokenizer(text, padding="max_length", max_length=77, truncation=True)["input_ids"]


def check_ids(reference, tokenizers, prompt: str) -> None:
    for index, (tokenizer, pad) in enumerate(zip(tokenizers, (49407, 0), strict=True)):
        expected = expanded(reference, index, prompt)
        spliced = splice(tokenizer, prompt, demo.WORDS, pad)
        inside = [i for i, token in enumerate(expected) if token > goldens.END]
        assert spliced.ids == [0 if token > goldens.END else token for token in expected], (prompt, index)
        assert inside == (list(range(spliced.at, spliced.at + demo.WORDS)) if "{}" in prompt else [])
        assert spliced.ids[spliced.eos] == goldens.END


@pytest.mark.parametrize("prompt", NASTY[:-1])
def test_ids_are_those_of_diffusers_for_nasty_prompts(reference, tokenizers, prompt):
    check_ids(reference, tokenizers, prompt)
    check_ids(reference, tokenizers, prompt.replace("{}", "someone"))


def test_ids_are_those_of_diffusers_for_random_prompts(reference, tokenizers):
    draw = random.Random(0)
    for _ in range(150):
        pieces = [draw.choice(PIECES[1:]) for _ in range(draw.randrange(25))]
        pieces.insert(draw.randrange(len(pieces) + 1), "{}")
        check_ids(reference, tokenizers, "".join(pieces))


def test_words_stay_in_a_prompt_that_is_too_long_before_them(reference, tokenizers):
    """diffusers cuts them off."""
    prompt = NASTY[-1]
    assert max(expanded(reference, 0, prompt)) == goldens.END
    spliced = splice(tokenizers[0], prompt, 5, 49407)
    assert spliced.truncated and len(spliced.ids) == 77
    assert (spliced.at, spliced.eos) == (71, 76) and spliced.ids[71:] == [0] * 5 + [goldens.END]
    assert not splice(tokenizers[0], "a photo of {}", 5, 49407).truncated


def test_an_exclamation_mark_is_padding_to_the_second_tokenizer(tokenizers):
    first, second = (splice(t, "wow! hello!!!", 5, 0) for t in tokenizers)
    assert first.ids[1 : first.eos] == [2781, 256, 3306, 995]
    assert second.ids[1 : second.eos] == [2781, 0, 3306, 0, 0, 0]


def test_a_second_placeholder_is_refused(tokenizers):
    with pytest.raises(ExportError, match="2 placeholders"):
        splice(tokenizers[0], "{} and {}", 5, 49407)


# ---- the encoders


@pytest.mark.parametrize("name", ["text_encoder", "text_encoder_2"])
def test_states_with_words_are_those_of_transformers(base, reference, tokenizers, name):
    index = 1 if name == "text_encoder_2" else 0
    job = text_job(base, text_config(base, name), FP32)
    encoder = getattr(reference.pipeline, name)
    words = torch.randn(5, job.inputs[1].shape[1], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        encoder.get_input_embeddings().weight[goldens.END + 1 :] = words
        for prompt in ("a photo of {} in a café!", "{}", "no words at all", NASTY[-2]):
            expected = encoder(torch.tensor([expanded(reference, index, prompt)]), output_hidden_states=True)
            s = splice(tokenizers[index], prompt, 5, job.text["pad"])
            given = [torch.tensor([v]) for v in (s.ids, s.at, s.eos)]
            found = job.module(given[0], words[None], *given[1:])
            torch.testing.assert_close(found[0], expected.hidden_states[-2], rtol=1e-5, atol=1e-5)
            if index:
                torch.testing.assert_close(found[1], expected.text_embeds, rtol=1e-5, atol=1e-5)
                if s.at >= 0:
                    # Where the end token were without the words, which take five places instead of one.
                    early = job.module(given[0], words[None], given[1], given[2] - 4)[1]
                    assert (early - expected.text_embeds).abs().max() > 0.1


def test_what_follows_the_end_counts(base, tokenizers):
    """All 77 states condition the picture, so the padding must be each tokenizer's own."""
    job = text_job(base, text_config(base, "text_encoder_2"), FP32)
    own, other = (splice(tokenizers[1], "a photo", 5, pad) for pad in (0, 49407))
    assert job.text["pad"] == 0 and own.eos == other.eos
    none = [torch.zeros(1, 1, job.inputs[1].shape[1]), torch.tensor([-1]), torch.tensor([own.eos])]
    (a, pooled), (b, same) = (job.module(torch.tensor([s.ids]), *none) for s in (own, other))
    assert torch.equal(a[0, : own.eos + 1], b[0, : own.eos + 1]) and torch.equal(pooled, same)
    assert (a[0, own.eos + 1 :] - b[0, own.eos + 1 :]).abs().max() > 0.1


def test_ids_under_the_words_do_not_matter(base):
    job = text_job(base, text_config(base, "text_encoder"), FP32)
    probe = job.probes[1]
    (expected,) = run_torch(job.module, probe)
    ids = probe.inputs["input_ids"].copy()
    for row, at in enumerate(probe.inputs["at"]):
        if at >= 0:
            ids[row, at : at + 5] = 12345
    assert (ids != probe.inputs["input_ids"]).any()
    (found,) = run_torch(job.module, type(probe)({**probe.inputs, "input_ids": ids}))
    np.testing.assert_array_equal(found, expected)


# ---- photos


def test_any_colour_of_a_mask_is_foreground():
    """The dataset's masks are colours of parts of a face: skin (204, 0, 0) has neither green nor blue."""
    photo = Image.new("RGB", (40, 20), (10, 200, 30))
    for colour in ((204, 0, 0), (0, 1, 0), (0, 0, 204)):
        mask = Image.new("RGB", (4, 2))
        mask.paste(colour, (0, 0, 2, 2))
        pixels = pixels_of_photo(photo, mask)
        assert pixels.shape == (224, 224, 3) and pixels.dtype == np.uint8
        assert (pixels[:, :100] == (10, 200, 30)).all() and (pixels[:, 124:] == 0).all()
    assert (pixels_of_photo(photo, None) == (10, 200, 30)).all()


def test_the_golden_mask_is_a_palette_without_white():
    mask = Image.open(io.BytesIO(goldens.picture("mask-colours.png")))
    assert mask.mode == "P"
    colours = {c for _, c in mask.convert("RGB").getcolors()}
    assert {(0, 0, 0), (204, 0, 0), (0, 0, 204), (76, 153, 0)} == colours


def test_the_golden_photo_is_turned():
    photo = Image.open(io.BytesIO(goldens.picture("turned.jpg")))
    assert photo.size == (120, 96) and ImageOps.exif_transpose(photo).size == (96, 120)


def test_words_of_a_photo_are_those_of_transformers(base, options, reference):
    mapper, config = trained(options.stellarnet, (32, 40))
    encoders = {n: encoder(encoder_folder(base, options, n), config["layers"][n], FP32) for n in IMAGE_ENCODERS}
    module = PhotoWords(encoders, mapper)
    for golden in goldens.GOLDENS[:3]:
        with torch.no_grad():
            found = module(torch.from_numpy(goldens.golden_pixels(golden))[None])
        for a, b in zip(found, reference.words.of(golden), strict=True):
            torch.testing.assert_close(a[0], b, rtol=1e-5, atol=1e-5)


def test_a_checkpoint_for_other_encoders_is_refused(options):
    with pytest.raises(ExportError, match=r"words are of \(32, 40\) values, the base model's text encoders take \(768, 1280\)"):
        trained(options.stellarnet, (768, 1280))
