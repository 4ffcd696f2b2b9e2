#!/usr/bin/env python3
"""Group-relative policy optimisation against the service, with a generator so small that numpy is all it needs.

    examples/grpo_loop.py [--url http://127.0.0.1:8080] [--reward aesthetic] [--steps 50] [--json FILE]

The generator draws a disc before a background; its policy is a Gaussian over the disc's place, size and colours. Every step
draws a group of images for each prompt, and moves the policy's mean along the advantages in the response: the rewards of a
group, less their mean and divided by their deviation. At the end, images of all steps are scored once more by
`POST /v1/score`, which must give the rewards of the training. Prints the mean reward and the service's memory.
"""

import argparse
import json
from pathlib import Path

import numpy

from stellar_score import Client

PROMPTS = ["a red disc", "a small blue ball", "the moon over the sea", "an orange on a table"]
PARAMETERS = 9  # place (2), radius, colour of the disc (3) and of the background (3)


def draw(action, side):
    """Draws the image of an action: `PARAMETERS` numbers, of which any value is allowed."""
    unit = 1 / (1 + numpy.exp(-action))
    y, x = numpy.mgrid[0:side, 0:side] / side
    inside = (x - unit[0]) ** 2 + (y - unit[1]) ** 2 < (0.1 + 0.4 * unit[2]) ** 2
    return numpy.where(inside[:, :, None], 255 * unit[3:6], 255 * unit[6:9]).astype(numpy.uint8)


def resident_mib(client):
    """The memory of the service, from its own metrics."""
    text = client.request("GET", "metrics").body.decode()
    line = next(line for line in text.splitlines() if line.startswith("stellar_resident_memory_bytes"))
    return float(line.split()[1]) / 2**20


def train(client, reward="aesthetic", steps=50, size=8, side=128, rate=0.3, deviation=0.5, seed=0, log=lambda step: None):
    """Trains for some steps. Returns a list of steps: images, prompts, rewards, and the service's memory."""
    dice = numpy.random.default_rng(seed)
    means = {prompt: numpy.zeros(PARAMETERS) for prompt in PROMPTS}
    history = []
    for at in range(steps):
        prompts = [prompt for prompt in PROMPTS for _ in range(size)]
        noise = dice.normal(size=(len(prompts), PARAMETERS))
        actions = numpy.stack([means[prompt] for prompt in prompts]) + deviation * noise
        images = numpy.stack([draw(action, side) for action in actions])
        result = client.rewards(reward, images, prompts, groups=prompts)
        for prompt, group in result["groups"].items():
            advantages = numpy.array(group["advantage"], float)
            # The gradient of the log-probability of an action is noise / deviation.
            means[prompt] += rate * deviation * (advantages[:, None] * noise[group["items"]]).mean(axis=0)
        step = {"step": at + 1, "images": images, "prompts": prompts, "rewards": result["rewards"][reward],
                "mean": float(numpy.mean(result["rewards"][reward])), "mib": resident_mib(client),
                "batching": result["provenance"]["batching"]}
        history.append(step)
        log(step)
    return history


def largest_difference(client, reward, history, of_a_step=2):
    """Scores images of every step by `POST /v1/score`. Returns the largest difference to the training's rewards."""
    largest = 0.0
    for step in history:
        for at in numpy.linspace(0, len(step["images"]) - 1, of_a_step).astype(int):
            scored = client.score(step["images"][at], step["prompts"][at], metrics=reward)
            largest = max(largest, abs(scored["scores"][reward]["value"] - step["rewards"][at]))
    return largest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url")
    parser.add_argument("--reward", default="aesthetic")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    with Client(arguments.url) as client:
        before = resident_mib(client)
        log = lambda step: step["step"] % 10 == 0 and print(f"step {step['step']}: mean {step['mean']:.4f}, {step['mib']:.0f} MiB")
        history = train(client, arguments.reward, arguments.steps, log=log)
        difference = largest_difference(client, arguments.reward, history)
    print(f"{arguments.reward}: mean {history[0]['mean']:.4f} at first, {history[-1]['mean']:.4f} at last; "
          f"largest difference to POST /v1/score: {difference:.3g} ({history[0]['batching']} batches)")
    if arguments.json:
        steps = [{key: step[key] for key in ("step", "mean", "mib")} for step in history]
        found = {"before_mib": before, "steps": steps, "largest_difference": difference, "batching": history[0]["batching"]}
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
