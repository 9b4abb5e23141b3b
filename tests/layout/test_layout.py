"""The flat vector, the blocks and the groups, of real models and of any tree of names."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.model_zoo import Recurrent, ResNet, Scalars, Tied, bert, gpt2, llama, vit
from support.sampling import examples
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from fedtlu_fast import InputError, ParameterLayout

MODELS = {
    "gpt2": gpt2,
    "bert": bert,
    "llama": llama,
    "vit": vit,
    "resnet": ResNet,
    "lstm": Recurrent,
    "tied": Tied,
    "scalars": Scalars,
}
GRANULARITIES = ("block", "module", "tensor")


class Unequal(nn.Module):
    """A model with two modules whose tensors have the same shapes in the same order under different names."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]()


@pytest.fixture(params=GRANULARITIES)
def granularity(request):
    return request.param


def shapes_of(layout, block):
    return [layout.layers[layer].shape for layer in layout.blocks[block].layers]


def groups_of(layout):
    return {group.name: [layout.blocks[block].name for block in group.blocks] for group in layout.groups}


def unique_of(layout):
    return [layout.blocks[block].name for block in layout.unique]


def assert_sound(layout):
    """Checks the properties that every layout has."""
    offset = 0
    for layer in layout.layers:
        assert layer.offset == offset
        offset += torch.Size(layer.shape).numel()
    assert layout.size == offset
    assert layout.offsets.tolist() == [*(layer.offset for layer in layout.layers), layout.size]
    assert layout.offsets.dtype == torch.int64
    held = [layer for block in layout.blocks for layer in block.layers]
    assert sorted(held) == list(range(len(layout.layers))), "every layer is in exactly one block"
    assert all(list(block.layers) == sorted(block.layers) for block in layout.blocks)
    starts = [block.layers[0] for block in layout.blocks]
    assert starts == sorted(starts), "blocks come in the model's order"
    assert len({block.name for block in layout.blocks}) == len(layout.blocks), "names are keys in the logs"
    assert len({group.name for group in layout.groups}) == len(layout.groups), "names are keys of keep"
    grouped = [block for group in layout.groups for block in group.blocks]
    assert sorted([*grouped, *layout.unique]) == list(range(len(layout.blocks)))
    for group in layout.groups:
        assert len(group.blocks) > 1
        first = shapes_of(layout, group.blocks[0])
        assert all(shapes_of(layout, block) == first for block in group.blocks), group.name
    assert sum(layout.block_sizes()) == layout.size
    if layout.granularity == "tensor":
        assert [block.name for block in layout.blocks] == list(layout.names)
        assert all(len(block.layers) == 1 for block in layout.blocks)


# --- every model ---------------------------------------------------------------------------------


def test_layout_of_every_model_is_sound(model, granularity):
    layout = ParameterLayout.from_module(model, granularity)
    assert_sound(layout)
    trainable = {name: param for name, param in model.named_parameters() if param.requires_grad}
    assert layout.names == tuple(trainable)
    assert layout.size == sum(param.numel() for param in trainable.values())


def test_from_shapes_equals_from_module(model, granularity):
    layout = ParameterLayout.from_module(model, granularity)
    shapes = {name: tuple(param.shape) for name, param in model.named_parameters()}
    buffers = {slot.name: slot.shape for slot in layout.buffers}
    assert ParameterLayout.from_shapes(shapes, granularity, buffers=buffers) == layout


def test_flatten_and_bind_are_a_round_trip(model):
    layout = ParameterLayout.from_module(model)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    flat = layout.flatten(model)
    assert (flat.shape, flat.dtype) == ((layout.size,), torch.float32)
    vector = flat.clone()
    layout.bind_(model, vector)
    assert all(torch.equal(param, before[name]) for name, param in model.named_parameters())
    assert torch.equal(layout.flatten(model), flat)
    assert torch.equal(vector, flat)


def test_flatten_is_a_copy(model):
    layout = ParameterLayout.from_module(model)
    flat = layout.flatten(model)
    kept = flat.clone()
    flat.fill_(7)
    assert torch.equal(layout.flatten(model), kept)


def test_bound_parameters_share_the_vectors_memory(model):
    layout = ParameterLayout.from_module(model)
    vector = layout.flatten(model)
    layout.bind_(model, vector)
    vector.copy_(torch.arange(layout.size))
    views = layout.views(vector)
    for name, param in model.named_parameters():
        assert param.untyped_storage().data_ptr() == vector.untyped_storage().data_ptr()
        assert torch.equal(param, views[name])
    with torch.no_grad():
        for param in model.parameters():
            param.fill_(-1)
    assert vector.eq(-1).all()


def test_a_bound_model_still_trains():
    model = Tied()
    layout = ParameterLayout.from_module(model)
    vector = layout.flatten(model)
    before = vector.clone()
    layout.bind_(model, vector)
    hidden = model.embedding(torch.tensor([1, 2, 3]))
    for block in model.blocks:
        hidden = block(hidden)
    model.head(hidden).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert torch.equal(layout.flatten(model), vector)
    assert not torch.equal(vector, before)


def test_layer_mask_holds_the_layers_of_the_blocks(model, granularity):
    layout = ParameterLayout.from_module(model, granularity)
    assert not layout.layer_mask([]).any()
    assert layout.layer_mask(range(len(layout.blocks))).all()
    last = len(layout.blocks) - 1
    assert layout.layer_mask([last]).nonzero().flatten().tolist() == list(layout.blocks[last].layers)


# --- groups of each model ------------------------------------------------------------------------

BLOCKS = {
    "gpt2": (
        {"transformer.h.*": 3},
        ["transformer.wte", "transformer.wpe", "transformer.ln_f"],
    ),
    "bert": (
        {"bert.encoder.layer.*": 3},
        [
            "bert.embeddings.word_embeddings",
            "bert.embeddings.position_embeddings",
            "bert.embeddings.token_type_embeddings",
            "bert.embeddings.LayerNorm",
            "bert.pooler.dense",
            "classifier",
        ],
    ),
    "llama": ({"model.layers.*": 3}, ["model.embed_tokens", "model.norm", "lm_head"]),
    "resnet": (
        # bn1 and bn2 of the stage's unequal first block are like each other.
        {"stage1.*": 2, "stage2.0.*": 2, "stage2.*": 2},
        ["stem", "stage2.0.conv1", "stage2.0.conv2", "stage2.0.shortcut", "head"],
    ),
    "lstm": ({"lstm[*]": 3}, ["embedding", "lstm[0]", "head"]),
    "tied": ({"blocks.*": 3}, ["embedding"]),
    "scalars": ({}, ["(root)", "linear"]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_groups_of_blocks(name):
    layout = ParameterLayout.from_module(MODELS[name]())
    sizes, unique = BLOCKS[name]
    assert {group.name: len(group.blocks) for group in layout.groups} == sizes
    assert unique_of(layout) == unique


def test_groups_of_a_vision_transformer_do_not_depend_on_names():
    layout = ParameterLayout.from_module(vit(layers=4))
    assert [len(group.blocks) for group in layout.groups] == [4]
    assert "classifier" in unique_of(layout)


@pytest.mark.parametrize("layers", [2, 3, 11])
def test_number_of_gpt2_blocks_is_the_number_of_its_layers(layers):
    layout = ParameterLayout.from_module(gpt2(layers))
    assert groups_of(layout) == {"transformer.h.*": [f"transformer.h.{index}" for index in range(layers)]}


def test_a_single_transformer_block_is_unique():
    layout = ParameterLayout.from_module(gpt2(1))
    assert all("h.*" not in group.name for group in layout.groups)
    assert_sound(layout)


def test_groups_of_modules_and_tensors_are_by_place_in_the_block():
    modules = groups_of(ParameterLayout.from_module(gpt2(), "module"))
    assert list(modules) == [
        f"transformer.h.*.{part}"
        for part in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    ]
    tensors = groups_of(ParameterLayout.from_module(gpt2(), "tensor"))
    assert list(tensors) == [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]
    assert tensors["transformer.h.*.ln_2.bias"] == [f"transformer.h.{index}.ln_2.bias" for index in range(3)]


def test_repeated_layers_of_one_lstm_keep_their_names_at_every_granularity():
    for granularity in ("block", "module"):
        groups = groups_of(ParameterLayout.from_module(Recurrent(), granularity))
        assert groups == {"lstm[*]": ["lstm[1]", "lstm[2]", "lstm[3]"]}


def test_parts_of_like_blocks_are_compared_only_when_their_shapes_agree():
    def block(*split):
        modules = nn.ModuleDict({name: nn.Module() for name in "abc"})
        for owner, (name, shape) in zip(split, (("w", (2, 2)), ("v", (2,)), ("u", (3,))), strict=True):
            modules[owner].register_parameter(name, nn.Parameter(torch.zeros(shape)))
        return modules

    model = nn.ModuleList([block(*"aac"), block(*"abc")])
    assert len(ParameterLayout.from_module(model).groups) == 1
    layout = ParameterLayout.from_module(model, "module")
    assert_sound(layout)
    assert groups_of(layout) == {}


def test_plain_mlp_groups_its_equal_layers():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    assert groups_of(ParameterLayout.from_module(model)) == {"*": ["2", "4"]}
    named = Unequal(nn.Linear(5, 5), nn.Linear(5, 5))
    assert groups_of(ParameterLayout.from_module(named)) == {"*": ["first", "second"]}


def test_a_head_of_the_embeddings_shape_is_not_its_like():
    layout = ParameterLayout.from_module(llama())
    shapes = {layer.name: layer.shape for layer in layout.layers}
    assert shapes["lm_head.weight"] == shapes["model.embed_tokens.weight"]
    assert {"model.embed_tokens", "lm_head"} <= set(unique_of(layout))


class EncoderLayer(nn.Module):
    """A block as in torchvision: it holds a list of plain layers, and its own name is not a number."""

    def __init__(self, width=8):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2)
        self.mlp = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))


def test_like_siblings_are_compared_before_their_lists_are_opened():
    encoder = nn.ModuleDict({f"encoder_layer_{index}": EncoderLayer() for index in range(4)})
    model = nn.ModuleDict({"encoder": encoder, "head": nn.Linear(8, 3)})
    layout = ParameterLayout.from_module(model)
    assert groups_of(layout) == {"encoder.*": [f"encoder.encoder_layer_{index}" for index in range(4)]}
    assert unique_of(layout) == ["head"]
    assert_sound(layout)


def test_siblings_that_hold_a_stack_are_towers_and_not_blocks():
    def tower():
        stack = nn.ModuleList([EncoderLayer(), EncoderLayer()])
        return nn.ModuleDict({"embed": nn.Linear(3, 8), "layers": stack})

    layout = ParameterLayout.from_module(nn.ModuleDict({"text": tower(), "image": tower()}))
    (blocks,) = groups_of(layout).values()
    assert blocks == ["text.layers.0", "text.layers.1", "image.layers.0", "image.layers.1"]


def test_siblings_that_are_lists_of_like_layers_are_opened():
    def norms():
        return nn.ModuleList(nn.LayerNorm(4) for _ in range(3))

    layout = ParameterLayout.from_module(nn.ModuleDict({"first": norms(), "second": norms()}))
    assert [len(group.blocks) for group in layout.groups] == [6]


class WithBias(nn.Module):
    """A block; the first one also holds a tensor that all blocks use."""

    def __init__(self, bias, gain):
        super().__init__()
        self.attention = nn.Linear(4, 4)
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
        if bias:
            self.bias = nn.Embedding(5, 2)
        if gain:
            self.gain = nn.Parameter(torch.ones(4))


@pytest.mark.parametrize("special", [0, 1, 2])
@pytest.mark.parametrize(("bias", "gain"), [(True, False), (False, True), (True, True)])
def test_a_block_with_more_than_its_like_is_one_of_them(special, bias, gain, granularity):
    blocks = [WithBias(bias and index == special, gain and index == special) for index in range(3)]
    layout = ParameterLayout.from_module(nn.ModuleDict({"h": nn.ModuleList(blocks)}), granularity)
    assert_sound(layout)
    apart = {layout.names[layer] for block in layout.unique for layer in layout.blocks[block].layers}
    assert apart == {*[f"h.{special}.bias.weight"] * bias, *[f"h.{special}.gain"] * gain}
    if granularity == "block":
        assert groups_of(layout) == {"h.*": ["h.0", "h.1", "h.2"]}


def test_the_first_blocks_of_a_t5_are_like_the_others():
    size = T5Config(
        vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=3, num_decoder_layers=4, num_heads=2
    )
    layout = ParameterLayout.from_module(T5ForConditionalGeneration(size))
    assert [len(group.blocks) for group in layout.groups] == [3, 4]
    apart = set(unique_of(layout))
    assert {name.rpartition(".")[2] for name in apart} == {
        "shared",
        "final_layer_norm",
        "relative_attention_bias",
    }


def test_a_superscript_is_not_an_index_of_a_list():
    layout = ParameterLayout.from_shapes({"h.\u00b2.w.weight": (2,), "h.\u00b3.w.weight": (2,)})
    assert_sound(layout)
    assert groups_of(layout) == {"h.*": ["h.\u00b2", "h.\u00b3"]}


# --- tied, frozen, scalar, empty, buffers --------------------------------------------------------


def test_tied_tensors_appear_once_and_stay_tied():
    model = gpt2()
    assert model.lm_head.weight is model.transformer.wte.weight
    layout = ParameterLayout.from_module(model)
    assert "lm_head.weight" not in layout.names
    vector = layout.flatten(model)
    layout.bind_(model, vector)
    assert model.lm_head.weight is model.transformer.wte.weight
    vector.zero_()
    assert model.lm_head.weight.eq(0).all()


def test_frozen_parameters_are_not_in_the_vector_and_keep_their_values():
    model = gpt2()
    model.transformer.wpe.weight.requires_grad_(False)
    frozen = model.transformer.wpe.weight.detach().clone()
    layout = ParameterLayout.from_module(model)
    assert "transformer.wpe.weight" not in layout.names
    assert layout.size == sum(param.numel() for param in model.parameters()) - frozen.numel()
    layout.bind_(model, torch.zeros(layout.size))
    assert torch.equal(model.transformer.wpe.weight, frozen)


def test_freezing_one_of_the_blocks_leaves_the_others_alike():
    model = gpt2(4)
    model.transformer.h[1].requires_grad_(False)
    groups = groups_of(ParameterLayout.from_module(model))
    assert groups == {"transformer.h.*": [f"transformer.h.{index}" for index in (0, 2, 3)]}


def test_scalar_and_empty_parameters_keep_their_shapes():
    model = Scalars()
    layout = ParameterLayout.from_module(model, "tensor")
    assert [(layer.shape, layer.numel) for layer in layout.layers][:2] == [((), 1), ((0, 4), 0)]
    vector = layout.flatten(model)
    views = layout.views(vector)
    assert views["gain"].shape == ()
    assert views["empty"].shape == (0, 4)
    assert views["gain"].item() == 2.0


def test_buffers_of_floating_dtype_only():
    model = ResNet()
    layout = ParameterLayout.from_module(model)
    names = [slot.name for slot in layout.buffers]
    assert len(names) == 2 * 10
    assert all(name.endswith(("running_mean", "running_var")) for name in names)
    vector = layout.flatten_buffers(model)
    assert vector.dtype == torch.float32
    model.stage1[0].bn1.num_batches_tracked.fill_(5)
    layout.load_buffers_(model, vector + 1)
    assert model.stage1[0].bn1.running_var.eq(2).all()
    assert model.stage1[0].bn1.num_batches_tracked == 5
    assert torch.equal(layout.flatten_buffers(model), vector + 1)
    assert torch.equal(layout.buffer_views(vector)[names[0]], torch.zeros(4))


def test_buffers_that_are_not_persistent_are_not_sent():
    model = nn.Linear(2, 2)
    model.register_buffer("table", torch.ones(3), persistent=False)
    model.register_buffer("scale", torch.ones(()))
    layout = ParameterLayout.from_module(model)
    assert [(slot.name, slot.shape) for slot in layout.buffers] == [("scale", ())]


def test_a_model_without_buffers_has_an_empty_vector():
    layout = ParameterLayout.from_module(Tied())
    vector = layout.flatten_buffers(Tied())
    assert (vector.shape, vector.dtype) == ((0,), torch.float32)
    layout.load_buffers_(Tied(), vector)


@pytest.mark.parametrize("build", [Tied, ResNet])
def test_vectors_are_where_the_model_is(build):
    model = build().to("meta")
    layout = ParameterLayout.from_module(model)
    assert layout.flatten(model).device.type == "meta"
    assert layout.flatten_buffers(model).device.type == "meta"


def test_half_precision_models_are_trained_in_float32():
    model = nn.Linear(3, 3).bfloat16()
    layout = ParameterLayout.from_module(model)
    vector = layout.flatten(model)
    expected = model.weight.detach().float().clone()
    layout.bind_(model, vector)
    assert model.weight.dtype == torch.float32
    assert torch.equal(model.weight, expected)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Identity(), "Identity without parameters.*at least one trainable"),
        (nn.Linear(2, 2).requires_grad_(False), "2 parameters, all of them frozen.*requires_grad"),
        (nn.LazyLinear(3), "model.weight.*lazy.*Run the model once"),
        (nn.Linear(2, 2, dtype=torch.complex64), "model.weight.dtype.*complex64.*floating"),
    ],
    ids=["empty", "frozen", "lazy", "complex"],
)
def test_a_model_that_cannot_be_trained_is_refused(model, message):
    with pytest.raises(InputError, match=message):
        ParameterLayout.from_module(model)


def test_unknown_granularity_and_no_shapes_are_refused():
    with pytest.raises(InputError, match=r"granularity: got 'layer'.*tensor, module, block"):
        ParameterLayout.from_module(Tied(), "layer")
    with pytest.raises(InputError, match="at least one tensor"):
        ParameterLayout.from_shapes({})


def test_a_name_of_thousands_of_parts_is_refused():
    with pytest.raises(InputError, match=r"at most \d+ dots"):
        ParameterLayout.from_shapes({".".join("a" * 5000): (1,)})
    assert_sound(ParameterLayout.from_shapes({".".join("a" * 100): (1,)}))


@pytest.mark.parametrize("size", [0, 375, 377])
def test_a_vector_of_the_wrong_length_is_refused(size):
    layout = ParameterLayout.from_module(Tied())
    assert layout.size == 376
    for call in (layout.views, lambda vector: layout.bind_(Tied(), vector)):
        with pytest.raises(InputError, match=rf"vector.shape: got \({size},\); expected \(376,\)"):
            call(torch.zeros(size))
    with pytest.raises(InputError, match=r"vector.shape"):
        layout.views(torch.zeros(1, 376))
    with pytest.raises(InputError, match=r"vector.shape: got \(1,\); expected \(0,\)"):
        layout.load_buffers_(Tied(), torch.zeros(1))


def test_another_model_is_refused_and_not_changed():
    layout = ParameterLayout.from_module(gpt2())
    other = gpt2(width=32)
    before = other.transformer.wte.weight.detach().clone()
    for call in (layout.flatten, lambda model: layout.bind_(model, torch.zeros(layout.size))):
        with pytest.raises(InputError, match=r"model.transformer.wte.weight: got \(50, 32\).*\(50, 16\)"):
            call(other)
    assert torch.equal(other.transformer.wte.weight, before)
    with pytest.raises(InputError, match="no such parameter"):
        layout.flatten(Tied())


# --- any tree of names ---------------------------------------------------------------------------

PARTS = st.sampled_from(["0", "1", "2", "10", "h", "attn", "mlp", "layers"])
LEAVES = st.sampled_from(["weight", "bias", "gain"])
NAMES = st.tuples(st.lists(PARTS, max_size=4), LEAVES).map(lambda pair: ".".join([*pair[0], pair[1]]))
SHAPES = st.sampled_from([(), (0,), (2,), (3,), (2, 2), (4, 1)])


@examples(300)
@given(st.dictionaries(NAMES, SHAPES, min_size=1, max_size=24), st.sampled_from(GRANULARITIES))
def test_any_tree_of_names_gives_a_sound_layout(shapes, granularity):
    layout = ParameterLayout.from_shapes(shapes, granularity)
    assert_sound(layout)
    assert layout == ParameterLayout.from_shapes(dict(shapes), granularity)
    vector = torch.arange(layout.size)
    flat = torch.cat([view.reshape(-1) for view in layout.views(vector).values()])
    assert torch.equal(flat, vector)


@examples(100)
@given(
    st.dictionaries(NAMES, SHAPES, min_size=1, max_size=5),
    st.integers(2, 12),
    st.lists(st.sampled_from(["model", "core", "text"]), max_size=2),
)
def test_any_module_repeated_in_a_list_is_one_group_of_blocks(inside, repeats, above):
    path = ".".join([*above, "stack"])
    shapes = {f"{path}.{index}.{name}": shape for index in range(repeats) for name, shape in inside.items()}
    layout = ParameterLayout.from_shapes({"embedding.weight": (9, 9), **shapes, "head.weight": (9, 9)})
    assert groups_of(layout) == {f"{path}.*": [f"{path}.{index}" for index in range(repeats)]}
    assert unique_of(layout) == ["embedding", "head"]


@examples(100)
@given(st.dictionaries(NAMES, SHAPES, min_size=1, max_size=16))
def test_granularity_module_cuts_blocks_and_tensor_cuts_modules(shapes):
    coarse, middle, fine = (
        {layer: index for index, block in enumerate(layout.blocks) for layer in block.layers}
        for layout in (ParameterLayout.from_shapes(shapes, granularity) for granularity in GRANULARITIES)
    )
    for small, large in pairwise((fine, middle, coarse)):
        for first in small:
            for second in small:
                assert small[first] != small[second] or large[first] == large[second]
