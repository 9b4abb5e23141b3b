"""Clients trained together, compared with clients trained alone: equal up to float32 rounding."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.closeness import TOLERANCE, assert_near
from support.model_zoo import ResNet, Scalars, Tied, gpt2, small_gpt2
from support.sampling import examples, fresh
from torch import nn

from fedtlu_fast import ParameterLayout
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.clients.vectorized import (
    CannotVectorizeError,
    Schedule,
    VectorizedTrainer,
    by_predictions,
)
from fedtlu_fast.config import TrainingConfig
from fedtlu_fast.data.population import Samples
from fedtlu_fast.models.transformer import Transformer, TransformerModel
from fedtlu_fast.tasks.classification import Classification
from fedtlu_fast.tasks.language_modelling import LanguageModelling
from fedtlu_fast.tasks.tagging import Tagging

FEATURES, LABELS, SEED = 6, 4, 5
OPTIONS = {
    "sgd": {},
    "momentum": {"momentum": 0.9, "lr": 0.02},
    "weight decay": {"weight_decay": 0.1},
    "both": {"momentum": 0.5, "weight_decay": 0.01, "lr": 0.03},
    "adamw": {"optimizer": "adamw", "lr": 0.003},
    "adamw with decay": {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.3},
    "proximal": {"proximal_mu": 2.0},
    "clipped": {"clip_norm": 0.05},
    "all": {"momentum": 0.9, "weight_decay": 0.01, "proximal_mu": 0.5, "clip_norm": 0.1, "lr": 0.02},
}
MODELS = ["mlp", "gpt2", "transformer", "tagger"]


def mlp(*extra):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(FEATURES, 9), *extra, nn.ReLU(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, LABELS)
    )


def transformer(outputs, causal):
    size = TransformerModel(layers=2, width=8, heads=2)
    return Transformer.build(size, 50, 7, outputs, 3, causal=causal)


MADE = {
    "mlp": mlp,
    "gpt2": small_gpt2,
    "transformer": lambda: transformer(50, causal=True),
    "tagger": lambda: transformer(LABELS, causal=False),
}
TASKS = {"mlp": Classification, "tagger": lambda model: Tagging(model, tuple("ABCD"))}


def sentences_of(draws, count=200):
    """From one to seven words; some without a label, some sentences without any."""
    tokens = torch.from_numpy(draws.integers(1, 50, (count, 7)))
    labels = torch.from_numpy(draws.integers(0, LABELS, (count, 7)))
    places, lengths = torch.arange(7), torch.from_numpy(draws.integers(1, 8, (count, 1)))
    labels[torch.from_numpy(draws.random((count, 7))) < 0.2] = -100
    return tokens.where(places < lengths, 0), labels.where(places < lengths, -100)


def features_of(draws, count=200):
    x = torch.from_numpy(draws.standard_normal((count, FEATURES), dtype=np.float32))
    return x, torch.from_numpy(draws.integers(0, LABELS, count))


class Setting:
    """A model, its data, and both trainers on copies of it."""

    def __init__(
        self, name="mlp", draws=None, clients_per_batch=7, model=None, task=None, pool=None, **training
    ):
        draws = draws if draws is not None else fresh()
        model = model or MADE[name]()
        task = task or TASKS.get(name, LanguageModelling)
        tokens = (torch.from_numpy(draws.integers(0, 50, (200, 7))),)
        made = {"mlp": features_of, "tagger": sentences_of}
        self.pool = pool or (made[name](draws) if name in made else tokens)
        self.config = TrainingConfig(**{"clip_norm": None, "lr": 0.1, "batch_size": 4, **training}).local
        self.layout = ParameterLayout.from_module(model)
        self.start = self.layout.flatten(model)
        self.buffers = self.layout.flatten_buffers(model)
        self.one = LocalTrainer(task(copy.deepcopy(model)), self.layout, self.config, SEED)
        example = Samples(self.pool, np.arange(5))
        self.many = VectorizedTrainer(
            task(copy.deepcopy(model)), self.layout, self.config, SEED, clients_per_batch, example
        )
        self.draws = draws

    def samples(self, *sizes):
        return [Samples(self.pool, self.draws.permutation(200)[:size]) for size in sizes]

    def alone(self, held, client, round_index=2):
        update = self.one.train(self.start, self.buffers, held, round_index, client)
        return update, update.params.clone()

    def together(self, samples, clients=None, round_index=2):
        """The clients' parameters and losses in the order given."""
        clients = list(range(len(samples))) if clients is None else clients
        found = self.many.train(self.start, samples, round_index, clients)
        assert sorted(found.clients) == list(range(len(samples)))
        rows = np.argsort(found.clients)
        assert [found.samples[row] for row in rows] == [len(held) for held in samples]
        return (
            found.params[rows].clone(),
            [found.losses[row] for row in rows],
            [found.steps[row] for row in rows],
        )

    def compare(self, samples, clients=None, round_index=2):
        clients = list(range(10, 10 + len(samples))) if clients is None else clients
        params, losses, steps = self.together(samples, clients, round_index)
        for place, (held, client) in enumerate(zip(samples, clients, strict=True)):
            update, expected = self.alone(held, client, round_index)
            assert_near(params[place], expected, self.config, update.steps)
            assert losses[place] == pytest.approx(update.loss, rel=1e-5)
            assert steps[place] == update.steps
            moved = (expected - self.start).abs().max()
            nothing = len(held.pool) > 1 and bool((held.all()[-1] == -100).all())
            assert nothing or moved > 2e-4, "else nothing was compared"


# --- against one after another -------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_every_client_ends_where_it_ends_alone(name, options):
    setting = Setting(name, **OPTIONS[options])
    # One batch that is not full, full batches only, a last one that is not full; one, two and four steps.
    setting.compare(setting.samples(3, 8, 13))


class Uncut(Tagging):
    """Pads every batch to the whole window."""

    def trim(self, batch):
        return batch


@pytest.mark.parametrize("options", ["sgd", "all"])
def test_sentences_are_cut_and_end_where_they_end_uncut(options):
    draws = fresh()
    tokens, labels = sentences_of(draws)
    tokens[:, 5:], labels[:, 5:] = 0, -100
    model, labelled, widths = MADE["tagger"](), tuple("ABCD"), []
    given = {"draws": draws, "model": model, "pool": (tokens, labels), **OPTIONS[options]}
    uncut = Setting("tagger", **{**given, "task": lambda model: Uncut(model, labelled)})
    cut = Setting("tagger", **given)
    for trainer in (cut.one, cut.many):
        task = trainer.task if trainer is cut.one else trainer._task
        task.model.register_forward_pre_hook(lambda _, tokens: widths.append(tokens[0].shape[-1]))
    samples = cut.samples(3, 8, 13)
    cut.compare(samples)
    assert max(widths) <= 5, "of a window of 7"
    for place, held in enumerate(samples):
        _, expected = uncut.alone(held, place)
        torch.testing.assert_close(cut.alone(held, place)[1], expected, **TOLERANCE)
    torch.testing.assert_close(cut.together(samples)[0], uncut.together(samples)[0], **TOLERANCE)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("name", MODELS)
def test_for_any_number_of_clients(name, count):
    setting = Setting(name)
    setting.compare(setting.samples(*setting.draws.integers(1, 20, count)))


@examples(40)
@given(
    sizes=st.lists(st.integers(1, 25), min_size=1, max_size=7),
    batch_size=st.integers(1, 9),
    length=st.one_of(
        st.builds(lambda n: {"local_steps": n}, st.integers(1, 9)),
        st.builds(lambda n: {"local_epochs": n}, st.sampled_from([0.05, 0.5, 1, 1.3, 2])),
    ),
    options=st.sampled_from(sorted(OPTIONS)),
    seed=st.integers(0, 2**30),
)
def test_for_any_sizes_steps_and_epochs(sizes, batch_size, length, options, seed):
    training = {**OPTIONS[options], **length, "batch_size": batch_size}
    setting = Setting(draws=np.random.default_rng(seed), **training)
    samples = setting.samples(*sizes)
    params, losses, steps = setting.together(samples)
    for client, held in enumerate(samples):
        update, expected = setting.alone(held, client)
        assert_near(params[client], expected, setting.config, update.steps)
        assert losses[client] == pytest.approx(update.loss, rel=1e-5)
        assert steps[client] == update.steps


def test_clients_with_pools_of_their_own():
    setting = Setting()
    samples = [Samples(features_of(setting.draws, size), np.arange(size)) for size in (3, 8, 13)]
    setting.compare(samples)


def test_clients_with_most_steps_come_first_and_the_given_order_does_not_matter():
    setting = Setting()
    samples = setting.samples(4, 20, 1, 12)
    found = setting.many.train(setting.start, samples, 2, [9, 8, 7, 6])
    assert found.clients == [1, 3, 0, 2]
    assert found.steps == [5, 3, 1, 1]
    assert found.samples == [20, 12, 4, 1]


def test_batches_are_drawn_for_seed_round_and_client():
    setting = Setting(local_epochs=1)
    (held,) = setting.samples(20)
    base = setting.together([held], [3])[0]
    assert torch.equal(setting.together([held], [3])[0], base)
    assert not torch.equal(setting.together([held], [4])[0], base)
    assert not torch.equal(setting.together([held], [3], round_index=3)[0], base)
    setting.compare([held], [4], round_index=3)


def test_tied_weights_stay_tied():
    setting = Setting("gpt2")
    names = setting.layout.names
    assert "transformer.wte.weight" in names
    assert "lm_head.weight" not in names
    # The weight is used again as the head, where every token's row has a gradient, also the tokens not seen.
    held = Samples((setting.pool[0] % 5,), np.arange(12))
    params, _, _ = setting.together([held, held])
    rows = setting.layout.views(params[1] - setting.start)["transformer.wte.weight"]
    assert rows[30:].abs().max() > 0
    setting.compare([held, held])


def test_a_module_that_shares_its_weight_and_one_without_a_gradient():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.tied = Tied()
            self.unused = Scalars()

        def forward(self, x):
            inner = self.tied.embedding(x[:, 0].abs().long() % 20) * self.unused.gain
            for block in self.tied.blocks:
                inner = torch.tanh(block(inner))
            return self.tied.head(inner)

    setting = Setting(model=Tagger(), weight_decay=0.1)
    setting.compare(setting.samples(3, 9))
    views = setting.layout.views(setting.together(setting.samples(3))[0][0])
    assert views["unused.empty"].shape == (0, 4)
    start = setting.layout.views(setting.start)["unused.linear.weight"]
    torch.testing.assert_close(views["unused.linear.weight"], start * (1 - 0.1 * 0.1))


def test_frozen_parameters_are_used_and_stay():
    model = mlp()
    model[0].requires_grad_(False)
    setting = Setting(model=model)
    assert "0.weight" not in setting.layout.names
    setting.compare(setting.samples(3, 9))
    assert torch.equal(setting.many._losses.model[0].weight, model[0].weight)


def test_the_tasks_model_and_the_global_vector_are_left_alone():
    setting = Setting()
    start = setting.start.clone()
    setting.together(setting.samples(3, 9))
    assert torch.equal(setting.start, start)
    assert torch.equal(setting.layout.flatten(setting.many._losses.model), start)
    assert all(param.grad is None for param in setting.many._losses.model.parameters())


def test_global_generators_are_untouched():
    setting = Setting()
    samples = setting.samples(3, 9)
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    setting.together(samples)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002


def test_a_batch_without_a_label_changes_nothing():
    setting = Setting("tagger", local_steps=2)
    tokens, labels = setting.pool
    nothing = Samples((tokens, torch.full_like(labels, -100)), np.arange(9))
    samples = [*setting.samples(3, 9), nothing]
    params, losses, _ = setting.together(samples)
    assert torch.equal(params[2], setting.start)
    assert losses[2] == 0
    assert params.isfinite().all()
    update, alone = setting.alone(nothing, 2)
    assert torch.equal(alone, setting.start)
    assert (update.loss, update.is_sound(setting.buffers)) == (0, True)


@examples(200)
@given(st.integers(1, 5000), st.integers(0, 40), st.integers(1, 3000))
def test_with_equal_counts_the_weights_have_the_bits_of_one_over_b(size, filled, count):
    """The results of language modelling and classification must not depend on whether counts are given."""
    real = torch.arange(size + filled)[None] < size
    weights = by_predictions(real, torch.full(real.shape, count))
    expected = np.where(real.numpy(), np.float32(1 / size), np.float32(0)).astype(np.float32)
    assert np.array_equal(weights.numpy(), expected)


# --- nobody notices the others -------------------------------------------------------------------


@pytest.mark.parametrize("options", ["sgd", "adamw", "all"])
def test_a_result_does_not_depend_on_who_else_is_in_the_group(options):
    setting = Setting(**OPTIONS[options])
    (own,) = setting.samples(10)
    base = setting.together([own], [3])[0][0]
    for sizes in ((4,), (25, 1), (25, 25, 25, 25, 25, 2)):
        others = setting.samples(*sizes)
        for place in (0, len(others)):
            group = [*others[:place], own, *others[place:]]
            clients = [50 + k for k in range(len(group))]
            clients[place] = 3
            params, _, steps = setting.together(group, clients)
            assert_near(params[place], base, setting.config, steps[place])


@pytest.mark.parametrize("options", ["sgd", "momentum", "adamw", "all"])
def test_matrices_used_again_leak_nothing_from_one_group_to_the_next(options):
    training, draws = OPTIONS[options], fresh()
    setting = Setting(draws=draws, **training)
    samples = setting.samples(9, 3)
    base = setting.together(samples)[0]
    other = Setting(pool=setting.pool, **training)
    poison = Samples(
        tuple(part * float("nan") if part.is_floating_point() else part for part in other.pool), np.arange(30)
    )
    other.together([poison] * 7)
    assert other.many._params.isnan().all()
    assert torch.equal(other.together(samples)[0], base), "the same bits as in fresh memory"
    setting.together(setting.samples(20, 20, 20, 1))
    assert torch.equal(setting.together(samples)[0], base)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", ["sgd", "momentum", "adamw", "all"])
def test_nan_in_one_clients_data_affects_only_that_client(options, bad):
    setting = Setting(**OPTIONS[options])
    samples = setting.samples(9, 5, 12)
    expected, losses, _ = setting.together(samples)
    poisoned = tuple(part.clone() for part in setting.pool)
    poisoned[0][:] = bad
    found, after, _ = setting.together([samples[0], Samples(poisoned, samples[1].rows), samples[2]])
    assert not torch.isfinite(found[1]).all()
    assert not np.isfinite(after[1])
    for place in (0, 2):
        torch.testing.assert_close(found[place], expected[place], **TOLERANCE)
        assert after[place] == pytest.approx(losses[place], rel=1e-5)


def test_a_sample_that_a_client_never_meets_does_no_harm():
    """A shorter batch is filled up with its own first sample, not with the first sample of the pool."""
    setting = Setting(batch_size=4, local_epochs=0.5)
    pool = tuple(part.clone() for part in setting.pool)
    pool[0][0] = float("nan")
    # One batch of four, two of them, one of four, and one of three.
    samples = [*(Samples(pool, np.arange(size)) for size in (6, 9, 5)), Samples(setting.pool, np.arange(3))]
    met = 0
    for round_index in range(1, 20):
        params, losses, _ = setting.together(samples, round_index=round_index)
        for place, held in enumerate(samples):
            finite = setting.alone(held, place, round_index)[0].is_sound(setting.buffers)
            assert bool(torch.isfinite(params[place]).all()) == bool(np.isfinite(losses[place])) == finite
            met += not finite
    assert 0 < met < 3 * 19, "some rounds meet it and some do not"


# --- what cannot be vectorised -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: mlp(nn.BatchNorm1d(9)), r"running statistics \(1.running_mean\)"),
        (lambda: mlp(nn.BatchNorm1d(9, track_running_stats=False)), r"normalises over the batch \(1\)"),
        (ResNet, r"running statistics \(stage1.0.bn1.running_mean\)"),
    ],
    ids=["BatchNorm", "BatchNorm without statistics", "ResNet"],
)
def test_batch_norm_is_refused_at_once_with_the_reason(model, reason):
    with pytest.raises(CannotVectorizeError, match=reason):
        Setting(model=model())


class Noise(nn.Module):
    """Adds noise in training only."""

    def forward(self, x):
        return x + torch.randn_like(x) if self.training else x


@pytest.mark.parametrize(
    "model",
    [lambda: mlp(nn.Dropout(0.5)), lambda: mlp(Noise()), lambda: gpt2(layers=1)],
    ids=["dropout", "noise", "gpt2"],
)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_models_that_draw_random_numbers_are_refused_with_the_reason(model, mode):
    made = getattr(model(), mode)()
    before = torch.get_rng_state()
    with pytest.raises(CannotVectorizeError, match="random") as caught:
        Setting("gpt2" if hasattr(made, "transformer") else "mlp", model=made)
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_of_nothing_and_norms_of_single_samples_are_allowed():
    setting = Setting(model=mlp(nn.Dropout(0.0), nn.LayerNorm(9), nn.GroupNorm(3, 9)))
    setting.compare(setting.samples(3, 9, 5))


class Forward(nn.Module):
    """Works on what an inner module gives."""

    def __init__(self, inner, function):
        super().__init__()
        self.inner, self.function = inner, function

    def forward(self, x):
        return self.function(self.inner(x))


class Recurrent(nn.Module):
    """Reads the inputs as a sequence."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 1, batch_first=True)

    def forward(self, x):
        return self.lstm(x[..., None])[0][..., 0]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            lambda: mlp(nn.Dropout(0.5)),
            r"random numbers .*\(1, a module of the class Dropout\).* dropout of 0",
        ),
        (lambda: mlp(Recurrent()), r"cannot vectorise aten::lstm.input \(1\.lstm, .*class LSTM\)$"),
        (lambda: Forward(mlp(), lambda x: x if x.sum() > 0 else -x), r"values of tensors.*\(in Forward"),
        (lambda: Forward(mlp(), lambda x: x * x.max().item()), r"\.item\(\) \(in Forward"),
        (lambda: Forward(mlp(), lambda x: x * x[x > 0].sum()), r"shape depends on values.*\(in Forward"),
        (lambda: Forward(mlp(), lambda x: x.nothing()), r"no attribute 'nothing' \(in Forward"),
    ],
    ids=["dropout", "LSTM", "if", "item", "shape", "another error"],
)
def test_what_cannot_be_vectorised_is_said_in_plain_words_with_its_place(model, reason):
    with pytest.raises(CannotVectorizeError, match=reason):
        Setting(model=model())


def test_trying_a_model_leaves_no_trace():
    setting = Setting()
    held = setting.samples(9)
    base = setting.together(held)[0]
    again = Setting(pool=setting.pool, model=mlp().eval())
    assert torch.equal(again.together(held)[0], base)
    assert all(param.grad is None for param in again.many._losses.model.parameters())


# --- schedules -----------------------------------------------------------------------------------


@examples(100)
@given(st.data(), st.integers(1, 5))
def test_a_schedule_holds_every_batch_and_weighs_its_samples_alike(data, clients):
    lengths = sorted(data.draw(st.lists(st.integers(1, 4), min_size=clients, max_size=clients)), reverse=True)
    sizes = st.integers(1, 5)
    plans = [
        [np.array(data.draw(st.permutations(range(9))))[: data.draw(sizes)] for _ in range(length)]
        for length in lengths
    ]
    schedule = Schedule.of(plans)
    assert schedule.steps.tolist() == lengths
    assert schedule.active == [sum(length > step for length in lengths) for step in range(lengths[0])]
    assert all(later <= earlier for earlier, later in pairwise(schedule.active))
    for client, plan in enumerate(plans):
        for step, batch in enumerate(plan):
            weights = schedule.weights[client, step]
            counted = schedule.places[client, step][weights > 0]
            assert counted.tolist() == batch.tolist()
            assert set(schedule.places[client, step]) == set(batch), "filled up with its own"
            assert np.allclose(weights[weights > 0], 1 / len(batch))
