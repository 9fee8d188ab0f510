"""CLIP guidance: noise and class vector of an image that fits a text.

    pip install open_clip_torch
    python examples/clip_guidance.py "a ripe banana" [PICTURE] [--steps 200]

The text is compared with random cuts of the image (Murdock 2021, "The Big Sleep"). Gradients flow
through the frozen generator to the noise of every layer and to the class vector.
"""

import argparse

import open_clip
import torch
from torch.nn import functional as F

import biggan
from biggan.images import to_pil, to_uint8

CUTS = 8
MEAN, STD = (
    torch.tensor(values)[:, None, None]
    for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
)


def random_cuts(images: torch.Tensor, size: int) -> torch.Tensor:
    """Squares of an image (1, 3, R, R) in [-1, 1], as CLIP sees them."""
    cuts, side = [], images.shape[-1]
    for _ in range(CUTS):
        cut = int(side * torch.empty(1).uniform_(0.7, 1))
        top, left = (int(torch.randint(side - cut + 1, ())) for _ in range(2))
        part = images[:, :, top : top + cut, left : left + cut]
        cuts.append(F.interpolate(part, (size, size), mode="bicubic"))
    return ((torch.cat(cuts) + 1) / 2 - MEAN.to(images)) / STD.to(images)


def main() -> None:
    """Write the image of the last step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("text")
    parser.add_argument("picture", nargs="?", default="guided.png")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--model", default=None, help="a model of biggan")
    parser.add_argument("--clip", default="ViT-B-32")
    parser.add_argument("--pretrained", default="laion2b_s34b_b79k", help="none: random weights")
    arguments = parser.parse_args()

    gan = biggan.load(arguments.model)
    network = gan.differentiable()
    z = 0.5 * torch.from_numpy(biggan.truncated_noise(1, gan.config.z_dim, 1.0, seed=0)).float()
    layers = z[:, None].repeat(1, gan.conditions, 1).to(gan.device).requires_grad_()
    vectors = gan.embed(range(len(gan.class_names))).to(gan.device)
    vector = vectors.mean(0, keepdim=True).requires_grad_()

    pretrained = None if arguments.pretrained == "none" else arguments.pretrained
    clip = open_clip.create_model(arguments.clip, pretrained=pretrained, device=gan.device).eval()
    clip.requires_grad_(False)
    tokens = open_clip.get_tokenizer(arguments.clip)([arguments.text])
    text = clip.encode_text(tokens.to(gan.device))
    size = clip.visual.image_size
    size = size if isinstance(size, int) else size[0]
    optimizer = torch.optim.Adam([layers, vector], lr=0.05)
    for step in range(arguments.steps):
        optimizer.zero_grad()
        image = network.synthesize(layers, vector, 1.0)
        seen = clip.encode_image(random_cuts(image, size))
        similarity = F.cosine_similarity(seen, text).mean()
        (-similarity).backward()
        optimizer.step()
        with torch.no_grad():
            layers.clamp_(-2, 2)
        if step % 20 == 0 or step == arguments.steps - 1:
            print(f"step {step}: similarity {similarity.item():.3f}")
    to_pil(to_uint8(network.synthesize(layers, vector, 1.0).detach()))[0].save(arguments.picture)


if __name__ == "__main__":
    main()
