"""Shows what one training step of a client tells of its samples: three attacks on what a server sees.

The server is honest but curious: it keeps to the protocol and looks at what arrives. It knows the global
model and, as in most papers, the labels. Its attacks are

* the closed form: in a fully connected layer the change of row i is a multiple of the layer's input, and the
  change of bias i is that multiple, so that for one sample their ratio is the input (Phong et al., IEEE TIFS
  13(5), 2018; proposition 3.1 of Geiping et al., arXiv 2003.14053);
* matching: images are changed until the step that they cause has the direction of the step that was seen
  (Geiping et al.: cosine distance and signs of gradients, with Adam; no prior, since images are small);
* recognition (ours): of images that the server holds itself, which cause a step in that direction?

Usage: inversion.py [--quick] [--picture FILE.png]
"""

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from victims import new_network, shuffled_digits

import fedtlu_fast as ft
from fedtlu_fast.privacy.private_mean import PrivateMean

LR, CLIP, SHARERS = 0.1, 0.05, 20
"""The clients' learning rate, a clipping norm below the norms of all changes, and the number of clients that
share the noise."""

Client = tuple[Tensor, Tensor]
"""The images [N, 64] and labels [N] of one client."""
FORMATS = (".1f", ".0%", ".1f", ".0%", ".0%")
"""How the columns of the table are written."""
HEARD: dict[int, Tensor] = {}
"""The change that each client sent, by its number."""


@ft.part
class Wiretap(ft.ClientStep):
    """Notes what every client sends; it comes after all other steps."""

    def after(self, client, update):
        HEARD[client.number] = update.params - client.params
        return update


@dataclass(frozen=True)
class View:
    """What the server sees of one step.

    Attributes:
        title: its name in the table.
        blocks: the blocks that clients train and send; empty for all.
        noise: the noise multiplier of `SHARERS` clients that share the noise; None: changes are not clipped.
        summed: number of clients of whose changes only the mean is seen; 1: each client's own.
    """

    title: str
    blocks: tuple[str, ...] = ()
    noise: float | None = None
    summed: int = 1


VIEWS = (
    View("one client, all blocks"),
    View("only the stem", ("stem",)),
    View("only the first block", ("blocks.0",)),
    View("only the third block", ("blocks.2",)),
    View("only the last block", ("blocks.3",)),
    View("only the head", ("head",)),
    View("all, clipped, no noise", noise=0.0),
    View("all, noise 0.01", noise=0.01),
    View("all, noise 0.1", noise=0.1),
    View("all, noise 1", noise=1.0),
    View("only the third block, noise 1", ("blocks.2",), noise=1.0),
    View("mean of 4 clients, all", summed=4),
    View("mean of 20 clients, all", summed=20),
    View("mean of 20 clients, noise 1", noise=1.0, summed=20),
)


@dataclass(frozen=True)
class Effort:
    """How much is tried.

    Attributes:
        views: what the server sees, one after another.
        seeds: each draws a network and the order of the images, of which the first are the victims.
        victims: number of images that are attacked.
        steps: number of steps of matching.
        candidates: number of images, victims among them, that recognition chooses from.
    """

    views: tuple[View, ...] = VIEWS
    seeds: tuple[int, ...] = (0, 1, 2)
    victims: int = 20
    steps: int = 200
    candidates: int = 1797


QUICK = Effort(tuple(VIEWS[at] for at in (0, 1, 3, 6, 9)), (0,), victims=4, steps=100, candidates=200)


def see(view: View, network: nn.Module, clients: Sequence[Client], seed: int) -> Tensor:
    """Lets clients train for one step in a federation and returns what the server sees of it.

    The seed is that of the noise.

    Returns:
        [G, P]: every client's change, or one mean of all.
    """
    steps = [] if view.noise is None else [PrivateMean(view.noise, SHARERS, CLIP, noise="clients")]
    chosen = {"selector": "full", "only": list(view.blocks), "always": "none"} if view.blocks else "none"
    HEARD.clear()
    federation = ft.Federation(
        ft.SupervisedTask(network, F.cross_entropy),
        ft.Datasets(clients, clients[0]),
        cohort=len(clients),
        local=ft.Local("sgd", lr=LR, steps=1, batch_size=1, clip_norm=None),
        selection="full",
        client_selection=chosen,
        client_steps=[*steps, Wiretap()],
        executor="serial",
        seed=seed,
    )
    federation.run(1)
    sent = torch.stack([HEARD[client] for client in range(len(clients))])
    return sent if view.summed == 1 else sent.mean(0, keepdim=True)


def changes(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Returns the directions [G, P] in which steps on G batches of images [G, B, 64] move the parameters."""
    params = dict(network.named_parameters())

    def loss(params: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, params, (images,)), labels)

    found = vmap(grad(loss), (None, 0, 0))(params, images, labels)
    return -torch.cat([one.flatten(1) for one in found.values()], 1)


def places(network: nn.Module, blocks: Sequence[str]) -> Tensor:
    """Returns [P] bool: the parameters of these blocks, or all parameters for no block."""
    sent = [
        torch.full((param.numel(),), not blocks or name.startswith(tuple(blocks)))
        for name, param in network.named_parameters()
    ]
    return torch.cat(sent)


def closed_form(network: nn.Module, change: Tensor, samples: int) -> Tensor:
    """Returns images [G, B, 64]: the inputs of the first layer in those rows whose biases moved most."""
    rows, inputs = network.stem.weight.shape
    weights = change[:, : rows * inputs].view(-1, rows, inputs)
    biases = change[:, rows * inputs : rows * inputs + rows, None]
    most = biases.abs().squeeze(2).topk(samples).indices[..., None]
    return torch.take_along_dim(weights / biases, most, 1).nan_to_num().clamp(0, 1)


def matched(network: nn.Module, change: Tensor, labels: Tensor, sent: Tensor, steps: int) -> Tensor:
    """Returns images [G, B, 64] whose step has the direction of the change [G, P] where it was sent."""
    images = torch.rand(*labels.shape, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimizer = torch.optim.Adam([images], lr=0.02)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        own = changes(network, images, labels)[:, sent]
        (1 - F.cosine_similarity(own, change[:, sent])).sum().backward()
        images.grad.sign_()
        optimizer.step()
        falling.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    return images.detach()


@cache
def alone(seed: int, candidates: int) -> Tensor:
    """Returns the directions [N, P] of steps on each of the first images alone, with the seed's network."""
    images, labels = (one[:candidates, None] for one in shuffled_digits(seed))
    return changes(new_network(seed), images, labels)


def recognised(known: Tensor, change: Tensor, sent: Tensor, samples: int) -> Tensor:
    """Returns [G, B]: the candidates whose own steps, `known` [N, P], are nearest to the change [G, P]."""
    alike = F.normalize(known[:, sent]) @ F.normalize(change[:, sent]).T
    return alike.T.topk(samples).indices


def paired(guesses: Tensor, truth: Tensor) -> Tensor:
    """Returns the guesses [G, B, 64] in the order of the true images that they are nearest to."""
    ordered = []
    for guess, true in zip(guesses, truth, strict=True):
        ordered.append(guess[linear_sum_assignment(torch.cdist(true, guess).square().numpy())[1]])
    return torch.stack(ordered)


def quality(guesses: Tensor, truth: Tensor, everything: Tensor, numbers: Tensor) -> tuple[float, float]:
    """Returns the PSNR in dB (median), and for how many images the guess is nearer to them than to any other.

    Args:
        guesses: [G, B, 64], in the order of the true images.
        truth: [G, B, 64], the true images.
        everything: [N, 64], all images.
        numbers: [G, B], the places of the true images in `everything`.
    """
    error = (guesses - truth).square().mean(2).clamp(min=1e-10)
    nearest = torch.cdist(guesses.flatten(0, 1), everything).argmin(1)
    return float((-10 * error.log10()).median()), float((nearest == numbers.flatten()).float().mean())


def attack(view: View, seed: int, effort: Effort) -> tuple[dict[str, float], Tensor]:
    """Attacks what is seen of the first images, and returns the figures and the matched images [V, 64]."""
    victims = effort.victims
    images, labels = shuffled_digits(seed)
    network = new_network(seed)
    size = view.summed
    numbers = torch.arange(victims).view(-1, size)
    clients = [(images[at : at + 1], labels[at : at + 1]) for at in range(victims)]
    together = victims if size == 1 else size
    rounds = [clients[first : first + together] for first in range(0, victims, together)]
    seen = torch.cat([see(view, network, cohort, seed) for cohort in rounds])

    truth, sent = images[numbers], places(network, view.blocks)
    figures = {"closed dB": np.nan, "closed found": np.nan}
    if sent[0]:
        first = paired(closed_form(network, seen, size), truth)
        figures["closed dB"], figures["closed found"] = quality(first, truth, images, numbers)
    guesses = paired(matched(network, seen, labels[numbers], sent, effort.steps), truth)
    figures["matched dB"], figures["matched found"] = quality(guesses, truth, images, numbers)
    own = recognised(alone(seed, effort.candidates), seen, sent, size)
    hits = (own[:, :, None] == numbers[:, None, :]).any(1)
    figures["recognised"] = float(hits.float().mean())
    return figures, guesses.flatten(0, 1)


def blind(seed: int, victims: int) -> float:
    """Returns the PSNR (median, dB) of a guess that sees nothing: the mean image of the label."""
    images, labels = shuffled_digits(seed)
    means = torch.stack([images[labels == label].mean(0) for label in range(10)])
    numbers = torch.arange(victims)[:, None]
    return quality(means[labels[numbers]], images[numbers], images, numbers)[0]


def table(effort: Effort) -> dict[str, tuple[dict[str, float], Tensor]]:
    """Prints means and standard deviations over seeds, and returns what `attack` does for the first seed."""
    first = {}
    print(f"{len(effort.seeds)} seeds, {effort.victims} images each: mean (standard deviation over seeds).")
    guessed = np.mean([blind(seed, effort.victims) for seed in effort.seeds])
    print(f"PSNR of the mean image of the right label: {guessed:.1f} dB\n")
    print(
        f"| seen | closed form: PSNR | found | matching: PSNR | found | recognised of {effort.candidates} |"
    )
    print("|---|---|---|---|---|---|")
    for view in effort.views:
        results = [attack(view, seed, effort) for seed in effort.seeds]
        first[view.title] = results[0]
        rows = np.array([list(figures.values()) for figures, _ in results])
        print("|", " | ".join([view.title, *map(cell, rows.T, FORMATS)]), "|", flush=True)
    return first


def cell(figures: np.ndarray, form: str) -> str:
    """Returns the mean and the standard deviation of a figure, or nothing where there is no attack."""
    return "" if np.isnan(figures).any() else f"{figures.mean():{form}} ({figures.std():{form}})"


def draw(drawn: dict[str, Tensor], seed: int, file: Path) -> None:
    """Draws the first originals of a seed, and below them what was reconstructed of them by matching."""
    from matplotlib.figure import Figure

    count = min(10, *map(len, drawn.values()))
    rows = {"original": shuffled_digits(seed)[0], **drawn}
    figure = Figure(figsize=(7, 0.4 * len(rows)), dpi=80)
    figure.subplots_adjust(0.34, 0.01, 0.99, 0.99, hspace=0.1)
    for axes, (title, images) in zip(figure.subplots(len(rows)), rows.items(), strict=True):
        strip = F.pad(images[:count].view(-1, 8, 8), (1, 1), value=0.3)
        axes.imshow(strip.permute(1, 0, 2).flatten(1).numpy(), cmap="gray_r", vmin=0, vmax=1)
        axes.set_axis_off()
        axes.text(-0.02, 0.5, title, transform=axes.transAxes, ha="right", va="center", fontsize=9)
    figure.savefig(file)


def main(arguments: Sequence[str] | None = None) -> dict[str, tuple[dict[str, float], Tensor]]:
    """Runs the attacks, prints the table, draws the picture, and returns what `table` does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few views, images and steps: seconds")
    parser.add_argument("--picture", type=Path, help="file for originals and reconstructions")
    given = parser.parse_args(arguments)
    begun = time.perf_counter()
    effort = QUICK if given.quick else Effort()
    found = table(effort)
    if given.picture is not None:
        draw({title: images for title, (_, images) in found.items()}, effort.seeds[0], given.picture)
    print(f"\n{time.perf_counter() - begun:.0f} s")
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.getLogger("fedtlu_fast").setLevel(logging.ERROR)  # that few blocks are sent is meant
    main()
