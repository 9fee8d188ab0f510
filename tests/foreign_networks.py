"""Networks of other software in their simplest form, to compare with what is read from their files.

Written from the descriptions of their layers, one function a network, with nothing of ours: a
function asks for each weight by its foreign name, and `RandomWeights` invents it. So the same
function gives the state dict and what that software computes from it.
"""

import json
import re

import torch
from torch.nn import functional as F


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


# --- ajbrock/BigGAN-PyTorch ---


def _sn(weights, name, *shape, eps):
    """A weight over its sigma: one power iteration from the stored row u0, in every forward."""
    weight = weights(f"{name}.weight", *shape)
    matrix = weight.reshape(shape[0], -1)
    u = weights(f"{name}.u0", 1, shape[0])
    weights(f"{name}.sv0", 1)
    v = F.normalize(u @ matrix, eps=eps)
    u = F.normalize(v @ matrix.T, eps=eps)
    return weight / (v @ matrix.T @ u.T).squeeze()


def _conv(weights, name, x, out, size, eps, bias=True):
    weight = _sn(weights, name, out, x.shape[1], size, size, eps=eps)
    return F.conv2d(x, weight, weights(f"{name}.bias", out) if bias else None, padding=size // 2)


def _moments(weights, name, channels, style):
    inner = {"plain": "stored", "mybn": "bn.stored", "cross_replica": "bn.running"}[style]
    if style == "mybn":
        weights(f"{name}.bn.accumulation_counter", 1).zero_()
    if style == "cross_replica":
        weights.tensors[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
    mean = weights(f"{name}.{inner}_mean", channels)
    return mean, weights(f"{name}.{inner}_var", channels)


def _ccbn(weights, name, x, condition, net):
    channels = x.shape[1]
    out = F.batch_norm(x, *_moments(weights, name, channels, net["bn"]), eps=net["bn_eps"])
    gain, bias = (
        _linear_or_table(weights, f"{name}.{part}", condition, channels, net)
        for part in ("gain", "bias")
    )
    return out * (1 + gain)[:, :, None, None] + bias[:, :, None, None]


def _linear_or_table(weights, name, condition, channels, net):
    if condition.dtype == torch.int64:
        return weights(f"{name}.weight", net["classes"], channels)[condition]
    return condition @ _sn(weights, name, channels, condition.shape[1], eps=net["sn_eps"]).T


def _attention(weights, name, x, eps):
    n, c, h, w = x.shape
    theta = _conv(weights, f"{name}.theta", x, c // 8, 1, eps, bias=False).flatten(2)
    phi = F.max_pool2d(_conv(weights, f"{name}.phi", x, c // 8, 1, eps, bias=False), 2).flatten(2)
    g = F.max_pool2d(_conv(weights, f"{name}.g", x, c // 2, 1, eps, bias=False), 2).flatten(2)
    beta = F.softmax(torch.einsum("ncq,nck->nqk", theta, phi), -1)
    o = torch.einsum("nck,nqk->ncq", g, beta).reshape(n, c // 2, h, w)
    return weights(f"{name}.gamma") * _conv(weights, f"{name}.o", o, c, 1, eps, bias=False) + x


def _double(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


BROCK = {
    "shared": True,
    "hier": True,
    "classes": 5,
    "shared_dim": 6,
    "bn": "plain",
    "bn_eps": 1e-5,
    "sn_eps": 1e-6,
    "rgb": 3,
    "depth": 2,
}


def brock_generator(weights, z, labels, widths, attention, **options):
    """BigGAN; `widths` in channels, from 4x4 pixels on; `attention` is a resolution or 0."""
    net = BROCK | options
    blocks = len(widths) - 1
    y = labels
    if net["shared"]:
        y = weights("shared.weight", net["classes"], net["shared_dim"])[labels]
    if net["hier"]:
        first, *chunks = z.chunk(blocks + 1, 1)
        conditions = [torch.cat([y, chunk], 1) for chunk in chunks]
    else:
        first, conditions = z, [y] * blocks
    linear = _sn(weights, "linear", widths[0] * 16, first.shape[1], eps=net["sn_eps"])
    h = (first @ linear.T + weights("linear.bias", widths[0] * 16)).view(len(z), -1, 4, 4)
    for i, condition in enumerate(conditions):
        name, out, eps = f"blocks.{i}.0", widths[i + 1], net["sn_eps"]
        x = _double(h)
        h = _double(F.relu(_ccbn(weights, f"{name}.bn1", h, condition, net)))
        h = _conv(weights, f"{name}.conv1", h, out, 3, eps)
        h = F.relu(_ccbn(weights, f"{name}.bn2", h, condition, net))
        h = _conv(weights, f"{name}.conv2", h, out, 3, eps)
        h = h + _conv(weights, f"{name}.conv_sc", x, out, 1, eps)
        if h.shape[-1] == attention:
            h = _attention(weights, f"blocks.{i}.1", h, eps)
    return _brock_head(weights, h, net)


def brock_deep_generator(weights, z, labels, widths, attention, **options):
    """BigGAN-deep, as `brock_generator`."""
    net = BROCK | options
    eps = net["sn_eps"]
    y = weights("shared.weight", net["classes"], net["shared_dim"])[labels]
    # Its later version, of the 128 channels, has the noise first.
    condition = torch.cat([z, y] if net["rgb"] > 3 else [y, z], 1)
    linear = _sn(weights, "linear", widths[0] * 16, condition.shape[1], eps=eps)
    h = (condition @ linear.T + weights("linear.bias", widths[0] * 16)).view(len(z), -1, 4, 4)
    depth = net["depth"]
    for i in range(depth * (len(widths) - 1)):
        name, up = f"blocks.{i}.0", i % depth == depth - 1
        x, hidden, out = h, h.shape[1] // 4, widths[i // depth + up]
        h = F.relu(_ccbn(weights, f"{name}.bn1", h, condition, net))
        h = _conv(weights, f"{name}.conv1", h, hidden, 1, eps)
        h = F.relu(_ccbn(weights, f"{name}.bn2", h, condition, net))
        x = x[:, :out]
        if up:
            h, x = _double(h), _double(x)
        h = _conv(weights, f"{name}.conv2", h, hidden, 3, eps)
        h = F.relu(_ccbn(weights, f"{name}.bn3", h, condition, net))
        h = _conv(weights, f"{name}.conv3", h, hidden, 3, eps)
        h = F.relu(_ccbn(weights, f"{name}.bn4", h, condition, net))
        h = x + _conv(weights, f"{name}.conv4", h, out, 1, eps)
        if up and h.shape[-1] == attention:
            h = _attention(weights, f"blocks.{i}.1", h, eps)
    return _brock_head(weights, h, net)


def _brock_head(weights, h, net):
    channels = h.shape[1]
    moments = _moments(weights, "output_layer.0", channels, net["bn"])
    gain, bias = (weights(f"output_layer.0.{part}", channels) for part in ("gain", "bias"))
    h = F.relu(F.batch_norm(h, *moments, gain, bias, eps=1e-5))  # whatever --BN_eps says
    return torch.tanh(_conv(weights, "output_layer.2", h, net["rgb"], 3, net["sn_eps"])[:, :3])


def brock_discriminator(weights, x, labels, widths, down, attention, classes=5, eps=1e-6):
    """BigGAN; `widths` is what each block makes, `down` how many of them halve the resolution."""
    for i, out in enumerate(widths):
        name, halves = f"blocks.{i}.0", i < down
        h = _conv(weights, f"{name}.conv1", F.relu(x) if i else x, out, 3, eps)
        h = _conv(weights, f"{name}.conv2", F.relu(h), out, 3, eps)
        if halves or x.shape[1] != out:
            x = _conv(weights, f"{name}.conv_sc", x, out, 1, eps)
        x = F.avg_pool2d(h, 2) + F.avg_pool2d(x, 2) if halves else h + x
        if halves and x.shape[-1] == attention:
            x = _attention(weights, f"blocks.{i}.1", x, eps)
    return _projection(weights, x, labels, classes, eps)


def brock_deep_discriminator(weights, x, labels, widths, down, attention, classes=5, eps=1e-6):
    """BigGAN-deep; `widths` begins with what the stem makes."""
    x = _conv(weights, "input_conv", x, widths[0], 3, eps)
    for i, out in enumerate(widths[1:]):
        for j in range(2):
            name, halves, before = f"blocks.{i}.{j}", i < down and j == 0, x.shape[1]
            h = _conv(weights, f"{name}.conv1", F.relu(x), out // 4, 1, eps)
            h = _conv(weights, f"{name}.conv2", F.relu(h), out // 4, 3, eps)
            h = F.relu(_conv(weights, f"{name}.conv3", F.relu(h), out // 4, 3, eps))
            if halves:
                h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
            h = _conv(weights, f"{name}.conv4", h, out, 1, eps)
            if out != before:
                added = _conv(weights, f"{name}.conv_sc", x, out - before, 1, eps)
                x = torch.cat([x, added], 1)
            x = h + x
        if i < down and x.shape[-1] == attention:
            x = _attention(weights, f"blocks.{i}.2", x, eps)
    return _projection(weights, x, labels, classes, eps)


def _projection(weights, x, labels, classes, eps):
    h = F.relu(x).sum((2, 3))
    channels = h.shape[1]
    out = h @ _sn(weights, "linear", 1, channels, eps=eps).T + weights("linear.bias", 1)
    table = _sn(weights, "embed", classes, channels, eps=eps)
    return out + (table[labels] * h).sum(1, keepdim=True)


def near_singular_vectors(matrix, u):
    """Vectors as training leaves them: close to the leading ones, but not equal to them.

    From random ones sigma would be near zero, and the network's output a matter of rounding.
    """
    for _ in range(5):
        v = F.normalize(matrix.T @ u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
    return F.normalize(u + 0.01 * torch.ones_like(u), dim=0), v


# --- ivclab/BigGAN-Generator-Pretrained-Pytorch ---


def ivclab_generator(weights, z, labels, widths, attention, truncation, classes=5, dim=6):
    """The original BigGAN, NHWC at heart; `truncation` on the grid of 0.02."""

    def sn(name, *shape):
        weight = weights(f"{name}.weight_orig", *shape)
        # the matrix runs over height, width and channels
        matrix = weight.permute(0, 2, 3, 1).flatten(1) if len(shape) == 4 else weight
        if f"{name}.weight_v" not in weights.tensors:
            u, v = near_singular_vectors(matrix, weights(f"{name}.weight_u", shape[0]))
            weights.tensors |= {f"{name}.weight_u": u, f"{name}.weight_v": v}
        u, v = weights(f"{name}.weight_u"), weights(f"{name}.weight_v")
        return weight / torch.dot(u, matrix @ v)

    def conv(name, x, out, size, bias=True):
        weight = sn(name, out, x.shape[1], size, size)
        bias = weights(f"{name}.bias", out) if bias else None
        return F.conv2d(x, weight, bias, padding=size // 2)

    def bn(name, x, gain=None, bias=None):
        row, channels = round(truncation / 0.02) - 1, x.shape[1]
        weights(f"{name}.running_mean", channels)
        weights(f"{name}.running_var", channels)
        weights.tensors[f"{name}.num_batches_tracked"] = torch.tensor(0)
        mean = weights(f"{name}.standing_means", 50, channels)[row]
        var = weights(f"{name}.standing_vars", 50, channels)[row]
        return F.batch_norm(x, mean, var, gain, bias, eps=1e-4)

    def hyper_bn(name, x, condition):
        gain, bias = (
            condition @ sn(f"{name}.{part}", x.shape[1], condition.shape[1]).T
            for part in ("gamma", "beta")
        )
        x = bn(f"{name}.crossreplicabn", x)
        return x * (1 + gain)[:, :, None, None] + bias[:, :, None, None]

    def attend(x):
        n, c, h, w = x.shape
        theta = conv("attention.theta", x, c // 8, 1, bias=False).flatten(2)
        phi = F.max_pool2d(conv("attention.phi", x, c // 8, 1, bias=False), 2).flatten(2)
        g = F.max_pool2d(conv("attention.g", x, c // 2, 1, bias=False), 2).flatten(2)
        weight = F.softmax(torch.einsum("ncq,nck->nqk", theta, phi), -1)
        o = torch.einsum("nck,nqk->ncq", g, weight).reshape(n, c // 2, h, w)
        return x + weights("attention.gamma", 1) * conv("attention.o_conv", o, c, 1, bias=False)

    first, *chunks = z.chunk(len(widths), 1)
    y = weights("linear.weight", classes, dim)[labels]
    weight = sn("g_z.g_linear", 16 * widths[0], first.shape[1])
    x = first @ weight.T + weights("g_z.g_linear.bias", 16 * widths[0])
    x = x.view(len(z), 4, 4, -1).permute(0, 3, 1, 2)
    for i, chunk in enumerate(chunks):
        name, out = f"gblock_{i}" if i else "gblock", widths[i + 1]
        condition = torch.cat([chunk, y], 1)
        h = _double(F.relu(hyper_bn(f"{name}.hyperbn", x, condition)))
        h = conv(f"{name}.conv0", h, out, 3)
        h = conv(f"{name}.conv1", F.relu(hyper_bn(f"{name}.hyperbn_1", h, condition)), out, 3)
        x = h + conv(f"{name}.conv_sc", _double(x), out, 1)
        if x.shape[-1] == attention:
            x = attend(x)
    last = widths[-1]
    gain, bias = (weights(f"scaledcrossreplicabn.{part}", last) for part in ("weight", "bias"))
    x = F.relu(bn("scaledcrossreplicabn", x, gain, bias))
    return torch.tanh(conv("conv_2d", x, 3, 3))


# --- PyTorch-StudioGAN and mmgeneration: one list of blocks, attention an entry of its own ---


STUDIOGAN = {
    "first": "linear0",
    "shared": "shared",
    "block": "blocks.{}.0.",
    "conv": "conv2d{}",
    "skip": "conv2d0",
    "gamma": "sigma",
    "gamma_shape": (1,),
    "attend": ["conv1x1_theta", "conv1x1_phi", "conv1x1_g", "conv1x1_attn"],
    "last_bn": "bn4",
    "last_conv": "conv2d5",
    "stem": "input_conv",
    "logit": "linear1",
    "embedding": "embedding",
    "bn_eps": 1e-4,
    "sn": "converged",
    "class_first": True,
    "channels_last": False,
}
MMGENERATION = {
    "first": "noise2feat",
    "shared": "shared_embedding",
    "block": "conv_blocks.{}.",
    "conv": "conv{}.conv",
    "skip": "shortcut.conv",
    "gamma": "gamma",
    "gamma_shape": (),
    "attend": ["theta.conv", "phi.conv", "g.conv", "o.conv"],
    "last_bn": "output_layer.bn",
    "last_conv": "output_layer.conv",
    "stem": "input_conv.conv",
    "logit": "decision",
    "embedding": "proj_y",
    "bn_eps": 1e-5,
    "sn": "stored",
    "class_first": True,
    "channels_last": False,
}


class ListedNetwork:
    """Layers of a network of one of the two formats.

    Args:
        weights: `RandomWeights`.
        net: `STUDIOGAN` or `MMGENERATION`, with changes; `sn` says how spectral norms are stored
            and used: "converged", "stored" or "ajbrock".
    """

    def __init__(self, weights, net):
        self.weights, self.net = weights, net

    def normalized(self, name, *shape):
        if self.net["sn"] == "ajbrock":
            return _sn(self.weights, name, *shape, eps=1e-6)
        weight = self.weights(f"{name}.weight_orig", *shape)
        matrix = weight.flatten(1)
        if f"{name}.weight_v" not in self.weights.tensors:
            u, v = near_singular_vectors(matrix, self.weights(f"{name}.weight_u", shape[0]))
            self.weights.tensors |= {f"{name}.weight_u": u, f"{name}.weight_v": v}
        if self.net["sn"] == "converged":
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
        self.weights.tensors[f"{name}.num_batches_tracked"] = torch.tensor(7)
        mean, var = (self.weights(f"{name}.running_{kind}", channels) for kind in ("mean", "var"))
        return mean, var

    def bn(self, name, x, condition):
        """Labels as the condition are for tables: of StudioGAN with norms, of mmgen without."""
        channels = x.shape[1]
        out = F.batch_norm(x, *self.moments(f"{name}.bn", channels), eps=self.net["bn_eps"])
        affine = []
        for part in ("gain", "bias"):
            layer = f"{name}.{part}"
            if condition.dtype != torch.int64:
                affine.append(condition @ self.normalized(layer, channels, condition.shape[1]).T)
            elif self.net["sn"] == "converged":
                affine.append(self.normalized(layer, channels, self.net["classes"]).T[condition])
            else:
                affine.append(
                    self.weights(f"{layer}.weight", self.net["classes"], channels)[condition]
                )
        gain, bias = (value[:, :, None, None] for value in affine)
        return F.relu(out * (1 + gain) + bias)

    def attention(self, place, x):
        name = self.net["block"].format(place)
        n, c, h, w = x.shape
        theta, phi, g, o = (name + part for part in self.net["attend"])
        query = self.conv(theta, x, c // 8, 1, bias=False).flatten(2)
        key = F.max_pool2d(self.conv(phi, x, c // 8, 1, bias=False), 2).flatten(2)
        value = F.max_pool2d(self.conv(g, x, c // 2, 1, bias=False), 2).flatten(2)
        beta = F.softmax(torch.einsum("ncq,nck->nqk", query, key), -1)
        attended = torch.einsum("nck,nqk->ncq", value, beta).reshape(n, c // 2, h, w)
        gamma = self.weights(name + self.net["gamma"], *self.net["gamma_shape"])
        return x + gamma * self.conv(o, attended, c, 1, bias=False)


def listed_generator(weights, z, labels, widths, attention, net):
    """`net` also has `condition` ("shared", "tables" or "noise"), `classes`, and `deep`."""
    layers, deep = ListedNetwork(weights, net), net["deep"]
    chunks = [z] if deep or net["condition"] == "tables" else z.chunk(len(widths), 1)
    first, *others = chunks
    conditions = others or [z if deep else labels] * (len(widths) - 1)
    if net["condition"] == "shared":
        y = weights(net["shared"] + ".weight", net["classes"], 6)[labels]
        both = [[y, noise] if net["class_first"] else [noise, y] for noise in conditions]
        conditions = [torch.cat(parts, 1) for parts in both]
    x = layers.linear(net["first"], conditions[0] if deep else first, 16 * widths[0])
    if net["channels_last"]:
        x = x.view(len(z), 4, 4, -1).permute(0, 3, 1, 2)
    else:
        x = x.view(len(z), -1, 4, 4)
    place = 0
    for stage, (out, condition) in enumerate(zip(widths[1:], conditions, strict=True)):
        for up in (False, True) if deep else (True,):
            name, made, before = net["block"].format(place), out if up else widths[stage], x
            hidden, place = x.shape[1] // 4, place + 1
            conv = [f"{name}{net['conv'].format(i)}" for i in range(5)]
            h = layers.bn(f"{name}bn1", x, condition)
            if not deep:
                h = layers.conv(conv[1], _double(h), made, 3)
                h = layers.conv(conv[2], layers.bn(f"{name}bn2", h, condition), made, 3)
                x = h + layers.conv(name + net["skip"], _double(x), made, 1)
                continue
            h = layers.bn(f"{name}bn2", layers.conv(conv[1], h, hidden, 1), condition)
            h = layers.conv(conv[2], _double(h) if up else h, hidden, 3)
            h = layers.conv(conv[3], layers.bn(f"{name}bn3", h, condition), hidden, 3)
            h = layers.conv(conv[4], layers.bn(f"{name}bn4", h, condition), made, 1)
            x = h + (_double(before) if up else before)[:, :made]
        if x.shape[-1] == attention:
            x, place = layers.attention(place, x), place + 1
    gain, bias = (weights(f"{net['last_bn']}.{part}", widths[-1]) for part in ("weight", "bias"))
    moments = layers.moments(net["last_bn"], widths[-1])
    x = F.relu(F.batch_norm(x, *moments, gain, bias, eps=net["bn_eps"]))
    return torch.tanh(layers.conv(net["last_conv"], x, 3, 3))


def listed_discriminator(weights, x, labels, widths, down, attention, net):
    """`net` also has `classes` (0 for an unconditional network), `deep` and `in_place`."""
    layers, deep, place = ListedNetwork(weights, net), net["deep"], 0
    if deep:
        x, widths = layers.conv(net["stem"], x, widths[0], 3), widths[1:]
    for stage, out in enumerate(widths):
        for second in (False, True) if deep else (False,):
            name, halves, before = (
                net["block"].format(place),
                stage < down and not second,
                x.shape[1],
            )
            conv = [f"{name}{net['conv'].format(i)}" for i in range(5)]
            begins_with_relu = deep or place > 0
            h = F.relu(x) if begins_with_relu else x
            if net["in_place"]:
                x = h
            place += 1
            if deep:
                h = layers.conv(conv[1], h, out // 4, 1)
                h = layers.conv(conv[2], F.relu(h), out // 4, 3)
                h = F.relu(layers.conv(conv[3], F.relu(h), out // 4, 3))
                if halves:
                    h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
                h = layers.conv(conv[4], h, out, 1)
                if out != before:
                    x = torch.cat([x, layers.conv(name + net["skip"], x, out - before, 1)], 1)
                x = h + x
                continue
            h = layers.conv(conv[2], F.relu(layers.conv(conv[1], h, out, 3)), out, 3)
            if halves or out != before:
                x = layers.conv(name + net["skip"], x, out, 1)
            x = F.avg_pool2d(h + x, 2) if halves else h + x
        if stage < down and x.shape[-1] == attention:
            x, place = layers.attention(place, x), place + 1
    h = F.relu(x).sum((2, 3))
    logits = layers.linear(net["logit"], h, 1)
    if net["classes"]:
        table = layers.normalized(net["embedding"], net["classes"], h.shape[1])
        logits = logits + (table[labels] * h).sum(1, keepdim=True)
    return logits


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


LABELS = torch.tensor([0, 4])


@torch.no_grad()
def random_generator(widths, attention, z_dim, net):
    """The state dict of a `listed_generator`, noise, and its images for `LABELS`."""
    weights, z = RandomWeights(), torch.randn(2, z_dim, generator=torch.Generator().manual_seed(3))
    images = listed_generator(weights, z, LABELS, widths, attention, net)
    assert images.std() > 0.1
    return weights.tensors, z, images


@torch.no_grad()
def random_discriminator(resolution, attention, net):
    """The state dict of a `listed_discriminator`, images, and its logits for `LABELS`."""
    widths = {
        32: [24, 24, 24, 24],
        64: [8, 16, 32, 64, 128],
        128: [4, 8, 16, 32, 64, 64],
    }[resolution]
    down = 2 if resolution == 32 else len(widths) - 1
    weights, random = RandomWeights(), torch.Generator().manual_seed(3)
    images = torch.rand(2, 3, resolution, resolution, generator=random) * 2 - 1
    logits = listed_discriminator(weights, images, LABELS, widths, down, attention, net)
    return weights.tensors, images, logits
