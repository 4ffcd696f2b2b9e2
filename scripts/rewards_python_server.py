#!/usr/bin/env python3
"""A reward server as trainers write them, for scripts/rewards_bench.py: one process and one model, onnxruntime and Pillow.

    scripts/rewards_python_server.py PACK REWARD PORT [--threads N] [--batch N] [--cache-texts]

`POST /` takes raw pixels (a .npy file, uint8 [N, H, W, 3]) with the prompts as JSON in the header `X-Prompts`, and responds
with a list of numbers. Unlike the servers of most trainers it batches over its clients: whatever waits when a batch ends is
the next one. It runs the pack's own graphs, so the arithmetic inside the models is that of the service.
"""

import argparse
import io
import json
import queue
import tempfile
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy
import onnxruntime
from PIL import Image

# The graphs of a reward: of the image, and of the text.
GRAPHS = {"pick_score": ("pick.image", "pick.text"), "hpsv2": ("hpsv2.image", "hpsv2.text"), "clip_t": ("clip.image", "clip.text"),
          "aesthetic": ("clip_l.image", None)}


def tokenizer(pack):
    """CLIP's tokenizer of transformers, with the vocabulary that follows from the merges."""
    from transformers import CLIPTokenizerFast
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    merges = pack / "tokenizers/clip-merges.txt"
    pairs = [line for line in merges.read_text().splitlines() if line and not line.startswith("#version")]
    letters = list(bytes_to_unicode().values())
    words = letters + [letter + "</w>" for letter in letters] + ["".join(pair.split()) for pair in pairs]
    words += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, copied = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text(json.dumps({word: at for at, word in enumerate(words)}))
        copied.write_text("#version: 0.2\n" + "\n".join(pairs) + "\n")
        return CLIPTokenizerFast(str(vocabulary), str(copied))


class Model:
    """The graphs of one reward."""

    def __init__(self, pack, reward, threads, cache_texts=False, sessions=None):
        """`sessions` has the sessions of files that are open already, for models that share them."""
        pack, sessions = Path(pack), {} if sessions is None else sessions
        graphs = {graph["role"]: graph for graph in tomllib.loads((pack / "pack.toml").read_text())["graph"]}
        image, text = GRAPHS[reward]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Threads that spin take cores from the other servers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")

        def session(role):
            path = str(pack / graphs[role]["files"][0]["path"])
            if path not in sessions:
                sessions[path] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            return sessions[path]

        self.image, self.text = session(image), session(text) if text else None
        self.side, self.letterbox = graphs[image]["geometry"]["height"], graphs[image]["geometry"]["resize"] == "letterbox"
        self.tokenizer = tokenizer(pack) if text else None
        self.texts = {} if cache_texts else None

    def prepare(self, pixels):
        """Resizes the shortest edge and crops the centre, as transformers' processor of CLIP does, or without rounding, as
        HPSv2 does; the images of this benchmark are squares."""
        if self.letterbox:
            planes = [Image.fromarray(pixels[..., at].astype(numpy.float32)) for at in range(3)]
            return numpy.stack([plane.resize((self.side, self.side), Image.BICUBIC) for plane in planes], axis=-1) / 255
        image = Image.fromarray(pixels)
        scale = self.side / min(image.size)
        width, height = (max(self.side, int(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.BICUBIC)
        left, top = (width - self.side) // 2, (height - self.side) // 2
        return numpy.asarray(image.crop((left, top, left + self.side, top + self.side)))

    def tokenize(self, prompts):
        """Token ids of prompts, padded to the longest."""
        ids = self.tokenizer(prompts, padding=True, max_length=77, truncation=True, return_tensors="np").input_ids
        return ids.astype(numpy.int64)

    def encode(self, prompts):
        """Embeddings of prompts; with a cache, each is computed once."""
        if self.texts is not None and all(prompt in self.texts for prompt in prompts):
            return numpy.stack([self.texts[prompt] for prompt in prompts])
        found = self.text.run(["embedding"], {"input_ids": self.tokenize(prompts)})[0]
        if self.texts is not None:
            self.texts.update(zip(prompts, found))
        return found

    def score(self, images, prompts):
        pixels = numpy.stack([self.prepare(image) for image in images])
        if self.text is None:
            return self.image.run(["aesthetic"], {"pixels": pixels})[0].reshape(-1).tolist()
        of_image, of_text = self.image.run(["embedding"], {"pixels": pixels})[0], self.encode(prompts)
        norms = numpy.linalg.norm(of_image, axis=1) * numpy.linalg.norm(of_text, axis=1)
        return ((of_image * of_text).sum(axis=1) / norms).tolist()


def serve(model, port, most):
    waiting = queue.Queue()

    def work():
        while True:
            batch = [waiting.get()]
            while len(batch) < most:
                try:
                    batch.append(waiting.get_nowait())
                except queue.Empty:
                    break
            scores = model.score([image for image, _, _ in batch], [prompt for _, prompt, _ in batch])
            for (_, _, answer), score in zip(batch, scores):
                answer.put(score)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            images = numpy.load(io.BytesIO(self.rfile.read(int(self.headers["Content-Length"]))))
            answers = [queue.Queue() for _ in images]
            for image, prompt, answer in zip(images, json.loads(self.headers["X-Prompts"]), answers):
                waiting.put((image, prompt, answer))
            body = json.dumps([answer.get() for answer in answers]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 1024

    threading.Thread(target=work, daemon=True).start()
    Server(("127.0.0.1", port), Handler).serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pack")
    parser.add_argument("reward", choices=sorted(GRAPHS))
    parser.add_argument("port", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--cache-texts", action="store_true", help="compute each prompt once")
    arguments = parser.parse_args()
    model = Model(arguments.pack, arguments.reward, arguments.threads, arguments.cache_texts)
    serve(model, arguments.port, arguments.batch)


if __name__ == "__main__":
    main()
