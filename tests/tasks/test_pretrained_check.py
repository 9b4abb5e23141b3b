"""Pre-trained models that do not fit their task are refused before round 1."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from support.model_zoo import bert, bert_size, gpt2, llama, vit
from torch import nn
from transformers import (
    BertForMaskedLM,
    BertLMHeadModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
    XLNetLMHeadModel,
)

from fedtlu_fast import InputError
from fedtlu_fast.data.federated import FederatedData
from fedtlu_fast.data.splits import Origin
from fedtlu_fast.tasks.classifier import Classifier
from fedtlu_fast.tasks.image_classification import ImageClassification
from fedtlu_fast.tasks.language_modelling import LanguageModelling
from fedtlu_fast.tasks.pretrained_check import check_reader, check_viewer
from fedtlu_fast.tasks.tagging import Tagging
from fedtlu_fast.tasks.text_classification import TextClassification

NAME = "the-model"
ORIGIN = Origin("samples", (), None, (), ())


def texts(window, vocabulary=50, outputs=2, padding=0):
    """Returns data with a test of one full and one short sample; the check reads nothing else."""
    draws = torch.randint(2, vocabulary, (2, window), generator=torch.Generator().manual_seed(0))
    draws[1, 1:] = padding
    return FederatedData(
        SimpleNamespace(test=(draws,)), window, outputs, ORIGIN, vocabulary=vocabulary, padding=padding
    )


def text(window, vocabulary=50):
    """Returns the same for language modelling, whose samples have one token more."""
    draws = torch.randint(2, vocabulary, (2, window + 1), generator=torch.Generator().manual_seed(0))
    return FederatedData(SimpleNamespace(test=(draws,)), window, vocabulary, ORIGIN)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_causal_models_pass_and_are_left_as_they_were(make):
    model = make().train()
    before, state = {key: own.clone() for key, own in model.state_dict().items()}, torch.get_rng_state()
    check_reader(LanguageModelling(model), NAME, text(8), causal=True)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(own, before[key]) for key, own in model.state_dict().items())


@pytest.mark.parametrize(
    "model",
    [
        lambda: BertForMaskedLM(bert_size(2, 64)),
        lambda: BertLMHeadModel(bert_size(2, 64)),
        lambda: XLNetLMHeadModel(XLNetConfig(vocab_size=50, d_model=16, n_layer=2, n_head=2, d_inner=32)),
    ],
    ids=["masked", "head", "permuted"],
)
@pytest.mark.parametrize("window", [2, 33])
def test_models_that_look_ahead_are_refused(model, window):
    with pytest.raises(
        InputError, match=r"model.pretrained: got 'the-model'; expected a causal language model"
    ):
        check_reader(_language(model()), NAME, text(window), causal=True)


def _language(model):
    model.forward = _without_cache(model.forward)
    return LanguageModelling(model)


def _without_cache(forward):
    return lambda **given: forward(**{key: own for key, own in given.items() if key != "use_cache"})


def test_a_decoder_of_the_same_kind_passes():
    check_reader(
        LanguageModelling(BertLMHeadModel(bert_size(2, 64, is_decoder=True))), NAME, text(16), causal=True
    )


def roberta(positions):
    size = RobertaConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=positions,
        pad_token_id=1,
    )
    return TextClassification(RobertaForSequenceClassification(size), ("x", "y"), 1)


def test_the_longest_window_is_found_by_running():
    check_reader(roberta(34), NAME, texts(32, padding=1))
    for window in (33, 34, 100):
        with pytest.raises(
            InputError, match=rf"data.window: got {window}; expected at most 32, what the-model"
        ):
            check_reader(roberta(34), NAME, texts(window, padding=1))
    with pytest.raises(InputError, match=r"data.window: got 9; expected at most 8"):
        check_reader(LanguageModelling(gpt2()), NAME, text(9), causal=True)
    with pytest.raises(InputError, match=r"data.window: got 9; expected at most 8"):
        check_reader(TextClassification(bert(), ("x", "y")), NAME, texts(9))


def test_rotary_positions_count_as_far_as_they_were_trained():
    model = llama()
    model.config.max_position_embeddings = 16
    with pytest.raises(InputError, match=r"data.window: got 17; expected at most 16"):
        check_reader(LanguageModelling(model), NAME, text(17), causal=True)


def test_a_model_without_a_limit_of_positions_passes():
    size = XLNetConfig(vocab_size=50, d_model=16, n_layer=1, n_head=2, d_inner=32)
    assert size.max_position_embeddings == -1
    check_reader(
        TextClassification(XLNetForSequenceClassification(size), ("LABEL_0", "LABEL_1")), NAME, texts(40)
    )


def test_more_tokens_than_embeddings_are_refused():
    with pytest.raises(InputError, match=r"a tokenizer of at most 50 tokens, .*; it has 62"):
        check_reader(LanguageModelling(gpt2()), NAME, text(8, vocabulary=62), causal=True)
    with pytest.raises(InputError, match=r"a tokenizer of at most 50 tokens"):
        check_reader(TextClassification(bert(), ("x", "y")), NAME, texts(8, vocabulary=51))


def test_predictions_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"predicts \(2, 3\) numbers for this task; it gives \(2, 2\)"):
        check_reader(TextClassification(bert(), ("x", "y", "z")), NAME, texts(8, outputs=3))
    broken = gpt2()
    with torch.no_grad():
        broken.transformer.ln_f.weight[0] = float("nan")
    with pytest.raises(InputError, match="these give NaN"):
        check_reader(LanguageModelling(broken), NAME, text(8), causal=True)


@dataclass(frozen=True)
class Refusing(Classifier):
    def logits(self, inputs):
        raise TypeError("unexpected keyword 'input_ids'\nand more")


def test_an_error_of_the_model_is_one_line():
    with pytest.raises(
        InputError, match=r"reads the task's samples; TypeError: unexpected keyword 'input_ids'$"
    ):
        check_reader(Refusing(nn.Identity()), NAME, texts(8))
    with pytest.raises(InputError, match=r"a model for images of 1x8x8; TypeError"):
        check_viewer(Refusing(nn.Identity()), NAME, images())


def test_padding_inside_samples_is_warned_of(caplog):
    data = texts(8)
    check_reader(TextClassification(bert(), ("x", "y")), NAME, data)
    assert not caplog.records
    data.population.test[0][0, 3] = 0
    check_reader(TextClassification(bert(), ("x", "y")), NAME, data)
    assert "padding token (id 0) also occurs inside 1 of 2 test samples" in caplog.text


def test_taggers_are_checked_at_every_word():
    from transformers import BertForTokenClassification

    check_reader(Tagging(BertForTokenClassification(bert_size(2, 64)), ("x", "y")), NAME, texts(8))
    with pytest.raises(InputError, match=r"predicts \(2, 8, 3\)"):
        check_reader(
            Tagging(BertForTokenClassification(bert_size(2, 64)), ("x", "y", "z")), NAME, texts(8, outputs=3)
        )


def images():
    return FederatedData(SimpleNamespace(test=(torch.zeros(1, 1, 8, 8, dtype=torch.uint8),)), 64, 2, ORIGIN)


def test_models_for_images_are_run_on_an_image():
    mean, spread = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    check_viewer(ImageClassification(vit(), ("x", "y"), mean, spread, (16, 16)), NAME, images())
    with pytest.raises(InputError, match=r"a model for images of 1x8x8; .*"):
        check_viewer(ImageClassification(vit(), ("x", "y"), mean, spread, (32, 32)), NAME, images())
