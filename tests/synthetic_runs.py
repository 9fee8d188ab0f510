"""Folders of runs that never were, with logs as training writes them: healthy, collapsing, undone.

The curves do what the paper tells of Section 4: G's first layer grows and explodes at collapse, D's
singular values grow in jumps, its accuracy on held-out images stays near chance.
"""

import json
import math

import numpy as np
from PIL import Image

from biggan.toml import to_toml
from biggan.training.config import load_recipe

G_LAYERS = ("linear", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "head.conv")
D_LAYERS = ("blocks.0.conv1", "blocks.1.conv1", "blocks.2.conv2", "head.linear")


def signal(step, random, *, severity=0.0):
    """A line of signals; `severity` is 0 in health and 1 at the height of a collapse."""
    grown = 1 + step / 800

    def values(index, layers, network):
        noise = math.exp(random.normal(0, 0.002 if network == "generator" else 0.006))
        first = (1 + 0.3 * index) * grown * noise
        if network == "generator" and index == 0:
            first *= 1 + 40 * severity**2
        if network == "discriminator" and step == 400 and index < 2:
            first *= 1.6  # a spike, gone at the next line
        second = first / (1.1 + 0.1 * index + (9 * severity if index == 0 else 0))
        if layers[index] == "head.linear":  # one output: a single singular value
            return [first]
        return [first, second, 0.9 * second]

    def logits(mean):
        return {"mean": mean, "std": 0.4, "min": mean - 1.2, "max": mean + 1.2}

    networks = {"generator": G_LAYERS, "discriminator": D_LAYERS}
    return {
        "step": step,
        "singular_values": {
            network: {layer: values(i, layers, network) for i, layer in enumerate(layers)}
            for network, layers in networks.items()
        },
        "frobenius_norms": {
            network: {layer: 5.0 + i + step / 2000 for i, layer in enumerate(layers)}
            for network, layers in networks.items()
        },
        "gradient_norms": {
            "generator": (2 + random.normal(0, 0.1)) * (1 + 50 * severity),
            "discriminator": (20 + random.normal(0, 2)) * (1 + 20 * severity),
        },
        "logits": {
            "real": logits(0.6 + step / 2000 + 60 * severity),
            "fake": logits(-0.7 - step / 2000 - 80 * severity),
            "trained": logits(0.5 + step / 2000),
            "held_out": logits(0.1 - step / 4000),
        },
        "accuracy": {
            "real": min(1.0, 0.7 + step / 2000),
            "fake": 0.85 + 0.15 * severity,
            "trained": min(1.0, 0.7 + step / 2000),
            "held_out": 0.55,
        },
        "batch_norm": {
            f"blocks.{i}.bn1": {"mean": 0.4 + i / 10, "var": 0.5 * (1 + severity)} for i in range(2)
        },
        "diversity": 0.5 * (1 - 0.98 * severity),
    }


def metric(step, random, *, severity=0.0):
    return {
        "step": step,
        "d_loss": 1.2 + random.normal(0, 0.05) + 40 * severity,
        "g_loss": 0.5 + random.normal(0, 0.1) + 60 * severity,
        "d_real": 0.6,
        "d_fake": -0.7,
        "orthogonal": 0.01,
        "steps_per_second": 5.0,
    }


def write_lines(path, lines):
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def write_run(run, *, last=600, collapse_at=None, events=(), seed=0):
    """A run with a line every 10 steps; from `collapse_at` on it falls apart in 50 steps."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.toml").write_text(to_toml(load_recipe("digits").to_dict()))
    write_lines(run / "signals.jsonl", stretch(signal, 10, last, collapse_at, seed))
    write_lines(run / "metrics.jsonl", stretch(metric, 10, last, collapse_at, seed))
    if events:
        write_lines(run / "events.jsonl", events)
    (run / "previews").mkdir(exist_ok=True)
    for step in range(200, last + 1, 200):
        Image.new("L", (40, 30), 99).save(run / "previews" / f"step-{step:08d}.png")
    return run


def stretch(line, first, last, collapse_at=None, seed=0):
    random = np.random.RandomState(seed)
    severities = {
        step: 0.0 if collapse_at is None else min(1.0, max(0.0, (step - collapse_at) / 50))
        for step in range(first, last + 1, 10)
    }
    return [line(step, random, severity=severity) for step, severity in severities.items()]


COLLAPSE = {
    "step": 530,
    "event": "collapse",
    "reason": "the largest singular value of linear in G grew 15-fold within 40 steps",
    "rule": "sigma0-explosion",
    "values": {"linear": 27.5, "limit": 10.0},
}


def healthy_run(run):
    return write_run(run)


def collapsed_run(run):
    stop = {"step": 540, "event": "stop", "reason": "collapse.action is stop"}
    return write_run(run, last=540, collapse_at=500, events=[COLLAPSE, stop])


def rolled_back_run(run):
    """Collapsed, went back to step 400 with a smaller learning rate, and got to its end."""
    rollback = {
        "step": 530,
        "event": "rollback",
        "reason": "collapse was called",
        "to": 400,
        "changes": {"optimizer.g_lr": 1.5e-4},
    }
    intervention = {
        "step": 200,
        "event": "intervention",
        "reason": "the recipe says so",
        "changes": {"optimizer.d_lr": 4e-4},
    }
    write_run(run, events=[intervention, COLLAPSE, rollback])
    for name, line in (("signals", signal), ("metrics", metric)):
        undone = stretch(line, 410, 530, collapse_at=500, seed=1)
        write_lines(run / f"{name}.before-rollback-1.jsonl", undone)
    return run
