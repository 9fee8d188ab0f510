"""The networks in their plain form: what a textbook implementation computes, for comparison.

Upsampling before the 3x3 convolution, pooling after it, and the 1x1 shortcuts on the large side;
every convolution by the library; attention's weights as a matrix. The same weights, the same
results but for rounding, and the same memory layout (channels last).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from biggan.models.biggan import DiscriminatorBlock, GeneratorBlock
from biggan.models.biggan_deep import DeepDiscriminatorBlock, DeepGeneratorBlock
from biggan.nn import SelfAttention2d, SpectralNormConv2d, average_pool, upsample


class PlainConv2d(SpectralNormConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normalized_weight(), self.bias, padding=self.padding)


class PlainGeneratorBlock(GeneratorBlock):
    def forward(self, x: Tensor, condition: Tensor, truncation: float | None) -> Tensor:
        h = self.conv1(upsample(F.relu(self.bn1(x, condition, truncation))))
        h = self.conv2(F.relu(self.bn2(h, condition, truncation)))
        return h + self.shortcut(upsample(x))


class PlainDiscriminatorBlock(DiscriminatorBlock):
    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        shortcut = self.shortcut(x)
        return average_pool(h) + average_pool(shortcut) if self.down else h + shortcut


class PlainDeepGeneratorBlock(DeepGeneratorBlock):
    def forward(self, x: Tensor, condition: Tensor, truncation: float | None) -> Tensor:
        h = F.relu(
            self.bn2(self.conv1(F.relu(self.bn1(x, condition, truncation))), condition, truncation)
        )
        h = self.conv2(upsample(h) if self.up else h)
        h = self.conv3(F.relu(self.bn3(h, condition, truncation)))
        h = self.conv4(F.relu(self.bn4(h, condition, truncation)))
        shortcut = x[:, : self.out_channels]
        return h + (upsample(shortcut) if self.up else shortcut)


class PlainSelfAttention2d(SelfAttention2d):
    def forward(self, x: Tensor) -> Tensor:
        query, key = self.theta(x).flatten(2), F.max_pool2d(self.phi(x), 2).flatten(2)
        value = F.max_pool2d(self.g(x), 2).flatten(2)  # (N, C/2, HW/4)
        weights = (query.mT @ key).softmax(dim=2)  # (N, HW, HW/4)
        attended = (value @ weights.mT).unflatten(2, x.shape[2:])
        return x + self.gamma * self.o(attended)


PLAIN = {
    SpectralNormConv2d: PlainConv2d,
    GeneratorBlock: PlainGeneratorBlock,
    DiscriminatorBlock: PlainDiscriminatorBlock,
    DeepGeneratorBlock: PlainDeepGeneratorBlock,
    DeepDiscriminatorBlock: DeepDiscriminatorBlock,  # pools before its last 1x1, as the paper draws
    SelfAttention2d: PlainSelfAttention2d,
}


def plain(network: nn.Module) -> nn.Module:
    """Give every layer of a network its plain forward, in place."""
    for module in network.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
    return network
