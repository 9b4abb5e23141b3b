"""What both attacks are aimed at: scikit-learn's handwritten digits and a small network of like blocks."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from fedtlu_fast.data.sources.digits import read_digits

PIXELS, WIDTH, BLOCKS = 64, 64, 4


def shuffled_digits(seed: int) -> tuple[Tensor, Tensor]:
    """Returns all images [1797, 64], with shades from 0 to 1, and their labels [1797], in a drawn order."""
    shades, labels = read_digits()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return torch.from_numpy(shades).float()[order] / 16, torch.from_numpy(labels)[order]


def new_network(seed: int) -> nn.Sequential:
    """Returns a network with random weights: a stem, four like blocks as wide as an image, and a head."""
    torch.manual_seed(seed)
    blocks = [nn.Sequential(nn.Tanh(), nn.Linear(WIDTH, WIDTH)) for _ in range(BLOCKS)]
    parts = {
        "stem": nn.Linear(PIXELS, WIDTH),
        "blocks": nn.Sequential(*blocks),
        "tanh": nn.Tanh(),
        "head": nn.Linear(WIDTH, 10),
    }
    return nn.Sequential(OrderedDict(parts))
