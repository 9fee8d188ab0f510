"""A feature extractor that needs no training: colours of a few places, mixed at random."""

import torch
from torch.nn import functional as F

from biggan.metrics.extractor import Features


class SimpleFeatures:
    name, sha256, resize = "simple", "0" * 64, "area"
    channels, dim, num_classes = 3, 6, 4

    def __init__(self):
        random = torch.Generator().manual_seed(0)
        self.mix = torch.randn(12, self.dim, generator=random)
        self.head = torch.randn(self.dim, self.num_classes, generator=random)
        self.seen = 0
        self.ends_after = None  # images

    def extract(self, images):
        assert images.dtype == torch.uint8
        assert images.shape[1] == 3
        if self.ends_after is not None and self.seen >= self.ends_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        # In float64 the rounded result does not depend on how many images there are.
        places = F.adaptive_avg_pool2d(images.double() / 255, 2).flatten(1)
        features = places @ self.mix.double()
        return Features(features.float(), (features @ self.head.double()).float())
