"""Defines the federations on which simulators are compared; `choose.workload` makes one by its name.

Only torch is imported by all of them; gpt and lora need transformers, and lora peft, when a model is made.
"""

NAMES = ("mlp", "gpt", "cnn", "lstm", "lora")
"""Names of the workloads. (This file imports nothing, because it is read before the imports are timed.)"""
