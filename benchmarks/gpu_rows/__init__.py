"""The parts of `benchmarks/gpu.py`. Without a GPU, Triton's interpreter takes its place."""

import os

import torch

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ.setdefault("TRITON_INTERPRET", "1")
DEVICE = torch.device("cuda" if CUDA else "cpu")
