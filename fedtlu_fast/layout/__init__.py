"""A model's parameters as one flat vector, with the layers, blocks and groups of like blocks in it."""

from fedtlu_fast.layout.parameter_layout import Block, Group, Layer, ParameterLayout

__all__ = ["Block", "Group", "Layer", "ParameterLayout"]
