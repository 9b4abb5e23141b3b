"""Compression of what clients send: each method is a public client step in a file of its own."""

from fedtlu_fast.compression.error_feedback import send_compressed
from fedtlu_fast.compression.low_rank import LowRank
from fedtlu_fast.compression.majority import MajorityVote
from fedtlu_fast.compression.quantise import Quantise
from fedtlu_fast.compression.random_k import RandomK
from fedtlu_fast.compression.sign import Sign
from fedtlu_fast.compression.top_k import TopK

__all__ = ["LowRank", "MajorityVote", "Quantise", "RandomK", "Sign", "TopK", "send_compressed"]
