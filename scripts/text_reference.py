"""The Python originals of our tokenizers, with and without special tokens.

Needs an environment with transformers 4.33.3, tokenizers 0.13, ftfy 6.3, regex and clip-anytorch (OpenAI's CLIP), and a
folder with a CLIP tokenizer in the Hugging Face layout. If hpsv2 is installed, it is compared too.
"""

import importlib.util
import json
import os
import re
import sys
import types
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
try:
    import pkg_resources  # noqa: F401
except ImportError:  # removed from newer setuptools; clip only needs its `packaging`
    import packaging.version

    sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
    sys.modules["pkg_resources"].packaging = packaging

import clip
import clip.simple_tokenizer
import regex
import transformers
from tokenizers import Tokenizer
from transformers.tokenization_utils import Trie

ROOT = Path(__file__).resolve().parent.parent
VOCAB = ROOT / "packs" / "demo" / "tokenizers" / "bert-vocab.txt"
FLAVOURS = ("hf_slow", "hf_fast", "openai", "bert")
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
START, END = 49406, 49407


def hpsv2_tokenizer():
    """Loads hpsv2's copy of open_clip's tokenizer alone, since its package imports far more."""
    spec = importlib.util.find_spec("hpsv2")
    if spec is None:
        return None
    path = Path(spec.submodule_search_locations[0]) / "src" / "open_clip" / "tokenizer.py"
    code = path.read_text(encoding="utf-8").replace("_tokenizer = SimpleTokenizer()", "")
    module = types.ModuleType("hpsv2_tokenizer")
    module.__file__ = clip.simple_tokenizer.__file__  # the vocabulary file is the same, and the wheel lacks it
    exec(compile(code, str(path), "exec"), module.__dict__)
    return module.SimpleTokenizer()


class Reference:
    """Encodes prompts with the originals: `original` unchanged, `text` with special tokens as plain text."""

    def __init__(self, folder: str):
        folder = os.path.abspath(folder)
        self.slow = transformers.CLIPTokenizer.from_pretrained(folder)
        assert self.slow.fix_text is not None, "ftfy must be installed"
        self.fast = transformers.CLIPTokenizerFast.from_pretrained(folder)
        self.openai = clip.simple_tokenizer.SimpleTokenizer()
        self.hpsv2 = hpsv2_tokenizer()
        self.bert = transformers.BertTokenizer(str(VOCAB), do_lower_case=True)

        plain = regex.compile(PATTERN, regex.IGNORECASE)
        self.slow_text = transformers.CLIPTokenizer.from_pretrained(folder)
        self.slow_text.tokens_trie, self.slow_text.pat, self.slow_text.cache = Trie(), plain, {}
        self.slow_text.unique_no_split_tokens = []
        self.openai_text = clip.simple_tokenizer.SimpleTokenizer()
        self.openai_text.pat, self.openai_text.cache = plain, {}
        model = json.loads(self.fast.backend_tokenizer.to_str())
        model["added_tokens"], model["truncation"], model["padding"] = [], None, None
        self.fast_text = Tokenizer.from_str(json.dumps(model))
        self.bert_text = transformers.BertTokenizer(str(VOCAB), do_lower_case=True)

    def original(self, flavour: str, text: str) -> list[int]:
        """Ids with special tokens, not truncated."""
        if flavour == "hf_slow":
            return self.slow(text).input_ids
        if flavour == "hf_fast":
            return self.fast(text).input_ids
        if flavour == "openai":
            return [START, *self.openai.encode(text), END]
        return self.bert(text).input_ids

    def text(self, flavour: str, text: str) -> list[int]:
        """Ids with special tokens, not truncated; a special token in the prompt is plain text."""
        if flavour == "hf_slow":
            return self.slow_text(text).input_ids
        if flavour == "hf_fast":
            return self.fast_text.encode(text).ids
        if flavour == "openai":
            return [START, *self.openai_text.encode(text), END]
        # Its special tokens are upper case, so lower case turns them into plain text.
        lower = re.sub(r"\[(CLS|SEP|UNK|PAD|MASK)\]", lambda match: match[0].lower(), text)
        return self.bert_text(lower).input_ids

    def cut(self, flavour: str, text: str) -> list[int]:
        """Ids as the original truncates them, at 77 or, for BERT, at 35."""
        if flavour == "hf_slow":
            return self.slow(text, truncation=True, max_length=77).input_ids
        if flavour == "hf_fast":
            return self.fast(text, truncation=True, max_length=77).input_ids
        if flavour == "openai":
            ids = clip.tokenize(text, truncate=True)[0].tolist()
            return ids[: ids.index(END) + 1]
        return self.bert(text, truncation=True, max_length=35).input_ids
