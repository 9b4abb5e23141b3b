"""The metrics of the registry's kind ``metric``: functions of a `Change` that give every block a value.

Larger is better. A layer without a regular value counts as 0: one with NaN or Inf, without change, or with
fewer than two elements, and whatever a metric names besides. A block that cannot be ranked gets -1, or less
where another's value is -1 or less, and so is behind all others. `units.from_units` does this.
"""
