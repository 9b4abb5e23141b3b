"""Models for images: their sizes and blocks, pre-trained weights, images that do not fit."""

import json

import pytest
import torch
from support.pictures import write_folder
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    CLIPModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from fedtlu_fast import InputError, ParameterLayout
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.build.task import build_task
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.clients.vectorized import VectorizedTrainer
from fedtlu_fast.config import TrainingConfig
from fedtlu_fast.config.settings import parse_config

SHAPES = ("bar", "cross", "dot")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("images"), each=8)


def parts(folder, seed=0, size=None, **model):
    settings = {
        "task": "image_classification",
        "seed": seed,
        "clients": 3,
        "cohort": 2,
        "data": {"source": f"images:{folder}", "image_size": size},
        "partition": "iid",
        "model": {"layers": 6, "width": 8, "heads": 2, **model},
    }
    config = parse_config(settings)
    data = load_federation(config)
    return build_task(config, data, config.seed), data


def blocks(task):
    layout = ParameterLayout.from_module(task.model)
    names = [block.name for block in layout.blocks]
    return names, [[names[index] for index in group.blocks] for group in layout.groups]


def test_a_vit_has_like_blocks_between_stem_and_head(folder):
    task, _ = parts(folder, architecture="vit", patch=2)
    names, groups = blocks(task)
    assert len(groups) == 1
    assert len(groups[0]) == 6
    assert names[2:8] == groups[0]
    assert "embeddings" in names[0]
    assert names[-1] == "classifier"
    # 4 x 4 patches, and the token that stands for the image.
    assert dict(task.model.named_parameters())["vit.embeddings.position_embeddings"].shape == (1, 17, 8)
    with pytest.raises(InputError, match=r"model.patch: got 3; expected a divisor of the images' sides, 8"):
        parts(folder, architecture="vit", patch=3)


@pytest.mark.parametrize(("layers", "depths"), [(1, [1]), (2, [1, 1]), (6, [2, 2, 2]), (7, [3, 2, 2])])
def test_a_resnet_has_its_blocks_in_stages(folder, layers, depths):
    task, _ = parts(folder, architecture="resnet", layers=layers)
    assert [len(stage.layers) for stage in task.model.resnet.encoder.stages] == depths
    found = task.model(pixel_values=torch.zeros(2, 3, 8, 8), output_hidden_states=True)
    widths = [(8 * 2**stage, 8 >> stage, 8 >> stage) for stage in range(len(depths))]
    assert [tuple(state.shape[1:]) for state in found.hidden_states[1:]] == widths
    names, groups = blocks(task)
    assert names[0].startswith("resnet.embedder")
    assert names[-1].startswith("classifier")
    assert all(names.index(own[0]) < names.index(own[1]) for own in groups)


def test_large_images_enter_a_resnet_at_a_quarter(folder):
    task, _ = parts(folder, architecture="resnet", size=68)
    found = task.model(pixel_values=torch.zeros(1, 3, 68, 68), output_hidden_states=True)
    assert found.hidden_states[0].shape[-1] == 17


@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_a_resnet_has_the_normalisation_of_the_settings(folder, norm):
    task, _ = parts(folder, architecture="resnet", norm=norm)
    kinds = {type(module) for module in task.model.modules()}
    assert (nn.BatchNorm2d in kinds) == (norm == "batch")
    assert (nn.GroupNorm in kinds) == (norm == "group")
    assert bool(ParameterLayout.from_module(task.model).buffers) == (norm == "batch")


@pytest.mark.parametrize("architecture", ["cnn", "resnet", "vit"])
def test_initial_weights_depend_on_the_seed_alone(folder, architecture):
    before = torch.get_rng_state()
    one, two, three = (
        torch.cat(
            [
                p.detach().reshape(-1)
                for p in parts(folder, seed, architecture=architecture)[0].model.parameters()
            ]
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


@pytest.mark.parametrize("architecture", ["cnn", "resnet", "vit"])
def test_many_clients_together_learn_what_each_learns_alone(folder, architecture):
    task, data = parts(folder, architecture=architecture, layers=3)
    layout, config = ParameterLayout.from_module(task.model), TrainingConfig(lr=0.05, local_steps=2).local
    params = layout.flatten(task.model)
    held = [data.population.train(client) for client in range(3)]
    together = VectorizedTrainer(task, layout, config, 5, 3, held[0]).train(params, held, 1, [0, 1, 2])
    alone = LocalTrainer(task, layout, config, 5)
    for place, client in enumerate(together.clients):
        own = alone.train(params, torch.empty(0), held[client], 1, client)
        torch.testing.assert_close(together.params[place], own.params, rtol=5e-4, atol=5e-5)


# --- pre-trained weights -------------------------------------------------------------------------

SIZE = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def vit(path, labels=("a", "b"), **over):
    size = ViTConfig(**SIZE, image_size=12, patch_size=4, id2label=dict(enumerate(labels)), **over)
    model = ViTForImageClassification(size)
    nn.init.constant_(model.classifier.bias, 3.0)
    model.save_pretrained(path)
    return model


def clip(path):
    text = {**SIZE, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    model = CLIPModel(CLIPConfig(vision_config={**SIZE, "image_size": 12, "patch_size": 4}, text_config=text))
    model.save_pretrained(path)
    return model


def processor(path, **over):
    settings = {
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.25, 0.5],
        "rescale_factor": 1 / 255,
        **over,
    }
    (path / "preprocessor_config.json").write_text(json.dumps(settings))


def test_pretrained_weights_keep_their_body_and_get_a_head_for_these_labels(folder, tmp_path):
    saved = vit(tmp_path).state_dict()
    task, _ = parts(folder, pretrained=str(tmp_path))
    found = task.model.state_dict()
    body = [name for name in saved if name.startswith("vit.")]
    assert body
    assert all(torch.equal(saved[name], found[name]) for name in body)
    assert found["classifier.weight"].shape == (3, 8)
    assert (found["classifier.bias"] == 0).all()
    other, _ = parts(folder, seed=1, pretrained=str(tmp_path))
    assert not torch.equal(other.model.classifier.weight, task.model.classifier.weight)


def test_a_model_for_these_labels_keeps_its_head(folder, tmp_path):
    saved = vit(tmp_path, SHAPES)
    task, _ = parts(folder, pretrained=str(tmp_path))
    assert torch.equal(task.model.classifier.weight, saved.classifier.weight)
    assert (task.model.classifier.bias == 3).all()


def test_images_are_scaled_and_normalised_as_the_model_wants(folder, tmp_path):
    vit(tmp_path)
    processor(tmp_path)
    task, data = parts(folder, pretrained=str(tmp_path))
    assert task.size == (12, 12)
    images = data.population.test[0][:2]
    shades = images.double() / 255
    mean, spread = (torch.tensor(own, dtype=torch.float64) for own in ([0.5, 0.4, 0.3], [0.2, 0.25, 0.5]))
    by_hand = ((shades - mean[:, None, None]) / spread[:, None, None]).float()
    scaled = nn.functional.interpolate(by_hand, (12, 12), mode="bicubic", antialias=True)
    torch.testing.assert_close(
        task.logits(images), task.model(pixel_values=scaled).logits, rtol=1e-4, atol=1e-5
    )
    assert task.evaluate(data.population.test, 3).losses.isfinite().all()


@pytest.mark.parametrize(
    ("over", "mean", "spread"),
    [
        ({"do_rescale": False}, [0.5, 0.4, 0.3], [0.2, 0.25, 0.5]),
        ({"do_normalize": False}, [0, 0, 0], [255, 255, 255]),
        ({"rescale_factor": 1 / 100}, [50, 40, 30], [20, 25, 50]),
    ],
)
def test_processors_may_leave_steps_out(folder, tmp_path, over, mean, spread):
    vit(tmp_path)
    processor(tmp_path, **over)
    task, _ = parts(folder, pretrained=str(tmp_path))
    assert task.mean.flatten().tolist() == pytest.approx(mean)
    assert task.spread.flatten().tolist() == pytest.approx(spread)


def test_without_a_processor_the_images_own_statistics_are_taken(folder, tmp_path):
    vit(tmp_path)
    task, data = parts(folder, pretrained=str(tmp_path))
    assert task.mean.flatten().tolist() == pytest.approx(data.pixels[0])


def test_clips_vision_tower_is_taken_and_its_text_left(folder, tmp_path):
    saved = clip(tmp_path).vision_model.state_dict()
    task, data = parts(folder, pretrained=str(tmp_path))
    assert isinstance(task.model, CLIPForImageClassification)
    assert task.size == (12, 12)
    found = task.model.vision_model.state_dict()
    assert all(torch.equal(saved[name], found[name]) for name in saved)
    names, groups = blocks(task)
    assert [len(group) for group in groups] == [2]
    assert "embeddings" in names[0]
    assert names[-1] == "classifier"
    config, samples = TrainingConfig(lr=0.05, local_steps=2).local, data.population.train(0)
    layout = ParameterLayout.from_module(task.model)
    params = layout.flatten(task.model)
    update = LocalTrainer(task, layout, config, 5).train(params, torch.empty(0), samples, 1, 0)
    assert update.is_sound(torch.empty(0))
    assert (update.params != params).any()


def test_a_clip_with_missing_weights_is_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    clip(tmp_path)
    kept = {
        name: own for name, own in load_file(tmp_path / "model.safetensors").items() if "layers.1" not in name
    }
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"all weights of a model that classifies images; \d+ are missing"):
        parts(folder, pretrained=str(tmp_path))


def test_greyscale_goes_to_every_channel_and_colours_fit_no_greyscale_model(folder, tmp_path):
    vit(tmp_path / "rgb")
    settings = {"task": "digits", "clients": 3, "cohort": 2, "model": {"pretrained": str(tmp_path / "rgb")}}
    config = parse_config(settings)
    data = load_federation(config)
    task = build_task(config, data, config.seed)
    assert task.mean.shape == (3, 1, 1)
    assert task.logits(data.population.test[0][:4]).shape == (4, 10)
    vit(tmp_path / "grey", num_channels=1)
    with pytest.raises(InputError, match=r"model.pretrained.*a model for images of 3 channels; it reads 1"):
        parts(folder, pretrained=str(tmp_path / "grey"))


def test_a_model_without_a_size_of_its_own_takes_images_as_they_are(folder, tmp_path):
    size = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    ResNetForImageClassification(size).save_pretrained(tmp_path)
    task, data = parts(folder, pretrained=str(tmp_path))
    assert task.size is None
    assert task.evaluate(data.population.test, 4).loss.isfinite()
    for said, size in (
        ({"size": {"height": 10, "width": 12}}, (10, 12)),
        (
            {"size": {"shortest_edge": 14}, "crop_size": {"height": 9, "width": 9}, "do_center_crop": True},
            (9, 9),
        ),
        ({"size": {"shortest_edge": 14}, "do_center_crop": False}, (14, 14)),
        ({"size": 14, "do_resize": False}, None),
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
        assert parts(folder, pretrained=str(tmp_path))[0].size == size, "as its processor says"


@pytest.mark.parametrize(
    "said",
    [
        '{"image_mean": "grey", "image_std": [1, 1, 1]}',
        '{"image_mean": [0.5, 0.5], "image_std": [1, 1]}',
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [1, 0, 1]}',
        '{"image_mean": [0.5, 0.5, 0.5]}',
        '{"rescale_factor": 0}',
        '{"size": {"height": -3, "width": 7}}',
        '{"size": {"height": 1000000, "width": 1000000}}',
        "[]",
        "{",
    ],
)
def test_an_invalid_processor_is_one_message(folder, tmp_path, said):
    size = ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic")
    ResNetForImageClassification(size).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(said)
    with pytest.raises(InputError, match=r"^model.pretrained"):
        parts(folder, pretrained=str(tmp_path))


def test_vectors_have_no_pretrained_model():
    settings = {"task": "classification", "clients": 3, "cohort": 1, "data": {"source": "synthetic"}}
    config = parse_config({**settings, "model": {"pretrained": "gpt2"}})
    with pytest.raises(
        InputError, match=r"model.pretrained: got 'gpt2'; expected null with task=classification"
    ):
        build_task(config, load_federation(config), config.seed)


def test_a_model_that_is_not_for_images_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"model.pretrained.*of a model that classifies images"):
        parts(folder, pretrained=str(tmp_path))


@pytest.mark.parametrize(
    ("task", "architecture", "words"),
    [
        ("image_classification", "gpt2", "expected cnn or resnet or vit"),
        ("tagging", "cnn", "expected transformer or gpt2"),
        ("classification", "vit", "expected mlp, for task=classification"),
    ],
)
def test_an_architecture_of_another_task_is_refused(task, architecture, words):
    source = {"classification": "synthetic"}.get(task)
    settings = {"task": task, "clients": 3, "cohort": 1, "model": {"architecture": architecture}}
    config = parse_config({**settings, "data": {"source": source}} if source else settings)
    with pytest.raises(InputError, match=f"model.architecture: got '{architecture}'; {words}"):
        build_task(config, load_federation(config), config.seed)
