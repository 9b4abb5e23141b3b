"""The model, each client's data, and a client's training; nothing here knows of Flower or of fedtlu-fast."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


class Net(nn.Module):
    """A Transformer of six blocks that reads a picture row by row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.places = nn.Parameter(torch.randn(8, width) / 8)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(6)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        """Returns the logits [B, 10] of pictures [B, 8, 8]."""
        rows = self.embed(pictures) + self.places
        for layer in self.layers:
            rows = layer(rows)
        return self.head(rows.mean(dim=1))


def make_model(width: int) -> Net:
    """Returns the model with which every run starts; `width` is a multiple of 4."""
    torch.manual_seed(0)
    return Net(width)


def load(part: int, parts: int) -> tuple[Tensor, Tensor]:
    """Returns the pictures [N, 8, 8] and digits [N] of one client; every fifth picture is for testing."""
    pictures, digits = _all()
    train = torch.arange(len(digits)) % 5 != 4
    return pictures[train][part::parts], digits[train][part::parts]


def load_test() -> tuple[Tensor, Tensor]:
    """Returns the pictures [N, 8, 8] and digits [N] that no client holds."""
    pictures, digits = _all()
    return pictures[4::5], digits[4::5]


def train(model: nn.Module, pictures: Tensor, digits: Tensor, steps: int, lr: float) -> float:
    """Trains the model in place, all samples in every step, and returns the mean loss of the steps."""
    open_parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(open_parameters, lr=lr, momentum=0.9)
    model.train()
    total = 0.0
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(pictures), digits)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / steps


@torch.no_grad()
def accuracy(model: nn.Module, pictures: Tensor, digits: Tensor) -> float:
    """Returns the share of the pictures that the model names right."""
    model.eval()
    return (model(pictures).argmax(1) == digits).float().mean().item()


def _all() -> tuple[Tensor, Tensor]:
    digits = load_digits()  # a file of the package; nothing is downloaded
    pictures = torch.from_numpy(digits.images).float() / 16
    return pictures, torch.from_numpy(digits.target)
