"""Networks of other software in their simplest form, to compare with what is read from their files.

Written from the descriptions of their layers, with nothing of ours. All are BigGAN and BigGAN-deep
as ajbrock wrote them; a table for each software has its names of the layers and what it does
otherwise. A network asks for each weight by its foreign name, and `RandomWeights` invents it. So
the same function gives the state dict and what that software computes from it.
"""

import json
import re

import torch
from torch.nn import functional as F

COMMON = {
    "classes": 5,  # 0 for a discriminator without
    "dim": 6,  # of the shared embedding
    # What conditions a BatchNorm: "shared" embedding with noise, "embedding" alone, "noise" alone,
    # or "tables" of gains and biases.
    "condition": "shared",
    "class_first": True,  # in a condition
    "deep": False,
    "depth": 2,  # blocks of a resolution, of BigGAN-deep
    "rgb": 3,  # channels of the last convolution
    "in_place": False,  # the ReLU before a discriminator's shortcut
    "channels_last": False,  # the first linear layer's output
    "kernels_last": False,  # the matrix of a kernel: height, width, channels
    "sn_eps": 1e-6,
    # How spectral norms are stored and used: "ajbrock", "stored", or "converged" by its evaluation.
    "norm": "stored",
    # Of BatchNorm: "running", "stored", "mybn" or "cross_replica" (all ajbrock's), or a "table".
    "statistics": "running",
    "inner": ".bn",  # the BatchNorm within a conditional one
    "bns": ("bn1", "bn2", "bn3", "bn4"),
    "parts": ("gain", "bias"),
    "skip": "shortcut",
    "gamma": "gamma",
    "gamma_shape": (),
    "last_parts": ("weight", "bias"),
}
BROCK = COMMON | {
    "first": "linear",
    "shared": "shared",
    "block": "blocks.{number}.0.",
    "attention": "blocks.{last}.1.",
    "pairs": {"block": "blocks.{stage}.{half}.", "attention": "blocks.{last_stage}.2."},
    "convs": ("conv1", "conv2", "conv3", "conv4"),
    "skip": "conv_sc",
    "attend": ("theta", "phi", "g", "o"),
    "last_bn": "output_layer.0",
    "last_parts": ("gain", "bias"),
    "last_bn_eps": 1e-5,  # whatever --BN_eps says
    "last_conv": "output_layer.2",
    "stem": "input_conv",
    "logit": "linear",
    "embedding": "embed",
    "bn_eps": 1e-5,
    "norm": "ajbrock",
    "statistics": "stored",
    "inner": "",
}
STUDIOGAN = COMMON | {
    "first": "linear0",
    "shared": "shared",
    "block": "blocks.{place}.0.",
    "attention": "blocks.{place}.0.",
    "convs": ("conv2d1", "conv2d2", "conv2d3", "conv2d4"),
    "skip": "conv2d0",
    "gamma": "sigma",
    "gamma_shape": (1,),
    "attend": ("conv1x1_theta", "conv1x1_phi", "conv1x1_g", "conv1x1_attn"),
    "last_bn": "bn4",
    "last_conv": "conv2d5",
    "stem": "input_conv",
    "logit": "linear1",
    "embedding": "embedding",
    "bn_eps": 1e-4,
    "norm": "converged",
    "in_place": True,
}
MMGENERATION = COMMON | {
    "first": "noise2feat",
    "shared": "shared_embedding",
    "block": "conv_blocks.{place}.",
    "attention": "conv_blocks.{place}.",
    "convs": ("conv1.conv", "conv2.conv", "conv3.conv", "conv4.conv"),
    "skip": "shortcut.conv",
    "attend": ("theta.conv", "phi.conv", "g.conv", "o.conv"),
    "last_bn": "output_layer.bn",
    "last_conv": "output_layer.conv",
    "stem": "input_conv.conv",
    "logit": "decision",
    "embedding": "proj_y",
    "bn_eps": 1e-5,
}
IVCLAB = COMMON | {
    "first": "g_z.g_linear",
    "shared": "linear",
    "block": "gblock{_number}.",
    "attention": "attention.",
    "convs": ("conv0", "conv1"),
    "skip": "conv_sc",
    "gamma_shape": (1,),
    "attend": ("theta", "phi", "g", "o_conv"),
    "bns": ("hyperbn", "hyperbn_1"),
    "inner": ".crossreplicabn",
    "parts": ("gamma", "beta"),
    "last_bn": "scaledcrossreplicabn",
    "last_conv": "conv_2d",
    "bn_eps": 1e-4,
    "sn_eps": 1e-4,
    "class_first": False,
    "channels_last": True,
    "kernels_last": True,
    "statistics": "table",
    "truncation": 1.0,
}
LABELS = torch.tensor([0, 4])


def of_each_kind(names):
    """One of the names that differ in numbers alone."""
    return list({re.sub(r"\d+", "0", name): name for name in names}.values())


class RandomWeights:
    """Invents a tensor for every name that is asked for; `tensors` is the state dict."""

    def __init__(self, seed=0):
        self.tensors = {}
        self._random = torch.Generator().manual_seed(seed)

    def __call__(self, name, *shape):
        if name not in self.tensors:
            self.tensors[name] = self._invent(name.split(".")[-1], shape)
        return self.tensors[name]

    def _invent(self, kind, shape):
        noise = torch.randn(shape, generator=self._random)
        if kind in ("stored_var", "running_var", "standing_vars"):
            return 0.5 + torch.rand(shape, generator=self._random)
        if kind in ("stored_mean", "running_mean", "standing_means", "bias"):
            return 0.2 * noise
        if kind == "gain":  # of the last BatchNorm; elsewhere a gain is a layer
            return 1 + 0.2 * noise
        if kind in ("sigma", "gamma"):
            return noise / 2
        if kind in ("weight_u", "weight_v"):
            return F.normalize(noise, dim=0)
        if kind.startswith("sv"):
            return torch.ones(shape)
        return noise  # weights are normalized by their use, and u0 is by nature not


def near_singular_vectors(matrix, u):
    """Vectors as training leaves them: close to the leading ones, but not equal to them.

    From random ones sigma would be near zero, and the network's output a matter of rounding.
    """
    for _ in range(5):
        v = F.normalize(matrix.T @ u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
    return F.normalize(u + 0.01 * torch.ones_like(u), dim=0), v


class Network:
    """Layers by their foreign names, in the order in which they are used.

    Args:
        weights: `RandomWeights`.
        net: One of the tables above, with changes.
    """

    def __init__(self, weights, net):
        self.weights, self.net = weights, net
        self._blocks, self._attended = 0, 0

    def next_block(self):
        number = self._blocks
        self._blocks += 1
        return self.net["block"].format(
            number=number,
            _number=f"_{number}" if number else "",
            place=number + self._attended,
            stage=number // 2,
            half=number % 2,
        )

    def normalized(self, name, *shape):
        if self.net["norm"] == "ajbrock":  # one power iteration from u0, in every forward
            weight, eps = self.weights(f"{name}.weight", *shape), self.net["sn_eps"]
            matrix = weight.flatten(1)
            u = self.weights(f"{name}.u0", 1, shape[0])
            self.weights(f"{name}.sv0", 1)
            v = F.normalize(u @ matrix, eps=eps)
            u = F.normalize(v @ matrix.T, eps=eps)
            return weight / (v @ matrix.T @ u.T).squeeze()
        weight = self.weights(f"{name}.weight_orig", *shape)
        last = self.net["kernels_last"] and weight.ndim == 4
        matrix = (weight.permute(0, 2, 3, 1) if last else weight).flatten(1)
        if f"{name}.weight_v" not in self.weights.tensors:
            u, v = near_singular_vectors(matrix, self.weights(f"{name}.weight_u", shape[0]))
            self.weights.tensors |= {f"{name}.weight_u": u, f"{name}.weight_v": v}
        if self.net["norm"] == "converged":
            return weight / torch.linalg.svdvals(matrix)[0]
        u, v = self.weights(f"{name}.weight_u"), self.weights(f"{name}.weight_v")
        return weight / torch.dot(u, matrix @ v)

    def conv(self, name, x, out, size, bias=True):
        weight = self.normalized(name, out, x.shape[1], size, size)
        bias = self.weights(f"{name}.bias", out) if bias else None
        return F.conv2d(x, weight, bias, padding=size // 2)

    def linear(self, name, x, out):
        return x @ self.normalized(name, out, x.shape[1]).T + self.weights(f"{name}.bias", out)

    def moments(self, name, channels):
        style = self.net["statistics"]
        if style in ("mybn", "cross_replica"):  # layers within the layer
            name += ".bn"
        if style == "mybn":
            self.weights(f"{name}.accumulation_counter", 1).zero_()
        elif style != "stored":
            self.weights.tensors[f"{name}.num_batches_tracked"] = torch.tensor(7)
        kind = "stored" if style in ("stored", "mybn") else "running"
        moments = [self.weights(f"{name}.{kind}_{part}", channels) for part in ("mean", "var")]
        if style == "table":
            row = round(self.net["truncation"] / 0.02) - 1
            names = (f"{name}.standing_{part}" for part in ("means", "vars"))
            moments = [self.weights(name, 50, channels)[row] for name in names]
        return moments

    def bn(self, name, x, condition):
        """A conditional BatchNorm and ReLU; labels as the condition are for tables."""
        net, channels = self.net, x.shape[1]
        out = F.batch_norm(x, *self.moments(name + net["inner"], channels), eps=net["bn_eps"])
        affine = []
        for part in net["parts"]:
            layer = f"{name}.{part}"
            if condition.dtype != torch.int64:
                affine.append(condition @ self.normalized(layer, channels, condition.shape[1]).T)
            elif net["norm"] == "converged":
                affine.append(self.normalized(layer, channels, net["classes"]).T[condition])
            else:
                affine.append(self.weights(f"{layer}.weight", net["classes"], channels)[condition])
        gain, bias = (value[:, :, None, None] for value in affine)
        return F.relu(out * (1 + gain) + bias)

    def attention(self, x):
        last = self._blocks - 1
        name = self.net["attention"].format(place=self._blocks, last=last, last_stage=last // 2)
        self._attended = 1
        n, c, h, w = x.shape
        theta, phi, g, o = (name + part for part in self.net["attend"])
        query = self.conv(theta, x, c // 8, 1, bias=False).flatten(2)
        key = F.max_pool2d(self.conv(phi, x, c // 8, 1, bias=False), 2).flatten(2)
        value = F.max_pool2d(self.conv(g, x, c // 2, 1, bias=False), 2).flatten(2)
        beta = F.softmax(torch.einsum("ncq,nck->nqk", query, key), -1)
        attended = torch.einsum("nck,nqk->ncq", value, beta).reshape(n, c // 2, h, w)
        gamma = self.weights(name + self.net["gamma"], *self.net["gamma_shape"])
        return x + gamma * self.conv(o, attended, c, 1, bias=False)


def _double(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def generator(weights, z, labels, widths, attention, net):
    """Images of a network of `widths` channels, from 4x4 pixels on; `attention` is a resolution."""
    layers, deep = Network(weights, net), net["deep"]
    undivided = deep or net["condition"] in ("tables", "embedding")
    first, *others = [z] if undivided else z.chunk(len(widths), 1)
    conditions = others or [z if deep else labels] * (len(widths) - 1)
    if net["condition"] in ("shared", "embedding"):
        y = weights(net["shared"] + ".weight", net["classes"], net["dim"])[labels]
        both = [[y, noise] if net["class_first"] else [noise, y] for noise in conditions]
        conditions = [y if net["condition"] == "embedding" else torch.cat(b, 1) for b in both]
    x = layers.linear(net["first"], conditions[0] if deep else first, 16 * widths[0])
    if net["channels_last"]:
        x = x.view(len(z), 4, 4, -1).permute(0, 3, 1, 2)
    else:
        x = x.view(len(z), -1, 4, 4)
    ups = [*[False] * (net["depth"] - 1), True] if deep else [True]
    for stage, (out, condition) in enumerate(zip(widths[1:], conditions, strict=True)):
        for up in ups:
            name, made, before = layers.next_block(), out if up else widths[stage], x
            hidden = x.shape[1] // 4
            conv, bn = ([name + part for part in net[key]] for key in ("convs", "bns"))
            h = layers.bn(bn[0], x, condition)
            if not deep:
                h = layers.conv(conv[0], _double(h), made, 3)
                h = layers.conv(conv[1], layers.bn(bn[1], h, condition), made, 3)
                x = h + layers.conv(name + net["skip"], _double(x), made, 1)
                continue
            h = layers.bn(bn[1], layers.conv(conv[0], h, hidden, 1), condition)
            h = layers.conv(conv[1], _double(h) if up else h, hidden, 3)
            h = layers.conv(conv[2], layers.bn(bn[2], h, condition), hidden, 3)
            h = layers.conv(conv[3], layers.bn(bn[3], h, condition), made, 1)
            x = h + (_double(before) if up else before)[:, :made]
        if x.shape[-1] == attention:
            x = layers.attention(x)
    moments = layers.moments(net["last_bn"], widths[-1])
    gain, bias = (weights(f"{net['last_bn']}.{part}", widths[-1]) for part in net["last_parts"])
    eps = net.get("last_bn_eps", net["bn_eps"])
    x = F.relu(F.batch_norm(x, *moments, gain, bias, eps=eps))
    return torch.tanh(layers.conv(net["last_conv"], x, net["rgb"], 3)[:, :3])


def discriminator(weights, x, labels, widths, down, attention, net):
    """Logits; `widths` is what each block makes, before it the stem, `down` of them halve."""
    deep = net["deep"]
    net = net | net.get("pairs", {}) if deep else net
    layers, is_first = Network(weights, net), not deep
    if deep:
        x, widths = layers.conv(net["stem"], x, widths[0], 3), widths[1:]
    for stage, out in enumerate(widths):
        for second in (False, True) if deep else (False,):
            name, before = layers.next_block(), x.shape[1]
            halves = stage < down and not second
            conv = [name + part for part in net["convs"]]
            h = x if is_first else F.relu(x)
            is_first = False
            if net["in_place"]:
                x = h
            if deep:
                h = layers.conv(conv[0], h, out // 4, 1)
                h = layers.conv(conv[1], F.relu(h), out // 4, 3)
                h = F.relu(layers.conv(conv[2], F.relu(h), out // 4, 3))
                if halves:
                    h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
                h = layers.conv(conv[3], h, out, 1)
                if out != before:
                    x = torch.cat([x, layers.conv(name + net["skip"], x, out - before, 1)], 1)
                x = h + x
                continue
            h = layers.conv(conv[1], F.relu(layers.conv(conv[0], h, out, 3)), out, 3)
            if halves or out != before:
                x = layers.conv(name + net["skip"], x, out, 1)
            x = F.avg_pool2d(h + x, 2) if halves else h + x
        if stage < down and x.shape[-1] == attention:
            x = layers.attention(x)
    h = F.relu(x).sum((2, 3))
    logits = layers.linear(net["logit"], h, 1)
    if net["classes"]:
        table = layers.normalized(net["embedding"], net["classes"], h.shape[1])
        logits = logits + (table[labels] * h).sum(1, keepdim=True)
    return logits


@torch.no_grad()
def random_generator(widths, attention, z_dim, net):
    """The state dict of a `generator`, noise, and its images for `LABELS`."""
    weights, z = RandomWeights(), torch.randn(2, z_dim, generator=torch.Generator().manual_seed(3))
    images = generator(weights, z, LABELS, widths, attention, net)
    assert images.std() > 0.05  # neither flat nor saturated
    assert images.abs().mean() < 0.95
    return weights.tensors, z, images


@torch.no_grad()
def random_discriminator(resolution, attention, net):
    """The state dict of a `discriminator`, images, and its logits for `LABELS`."""
    widths = {
        32: [24, 24, 24, 24],
        64: [8, 16, 32, 64, 128],
        128: [8, 8, 16, 32, 64, 64],
        256: [4, 8, 16, 32, 32, 64, 64],
        512: [4, 4, 8, 16, 32, 32, 64, 64],
    }[resolution]
    down = 2 if resolution == 32 else len(widths) - 1
    weights, random = RandomWeights(), torch.Generator().manual_seed(3)
    images = torch.rand(2, 3, resolution, resolution, generator=random) * 2 - 1
    logits = discriminator(weights, images, LABELS, widths, down, attention, net)
    return weights.tensors, images, logits


# --- pytorch_pretrained_biggan ---


def hugging_face_weights():
    """The state dict of a small network of `pytorch_pretrained_biggan`, and its settings."""
    import pytorch_pretrained_biggan as package

    widths = [(16, 16), (16, 4), (4, 4), (4, 1)]
    config = package.BigGANConfig(
        output_dim=16,
        z_dim=4,
        class_embed_dim=4,
        channel_width=4,
        num_classes=3,
        layers=[[i % 2 == 1, *pair] for i, pair in enumerate(widths)],
        attention_layer_position=2,
        n_stats=3,
    )
    state = package.BigGAN(config).state_dict()  # in part never initialized
    tensors = {n: torch.nan_to_num(t) if t.is_floating_point() else t for n, t in state.items()}
    return tensors, json.loads(config.to_json_string())
