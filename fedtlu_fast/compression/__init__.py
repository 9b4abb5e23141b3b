"""Compression of what clients send: each method is a public client step in a file of its own."""

from fedtlu_fast.compression.error_feedback import send_compressed
from fedtlu_fast.compression.top_k import TopK

__all__ = ["TopK", "send_compressed"]
