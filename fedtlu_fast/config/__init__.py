"""Defines the settings of a run and their limits; `settings` reads them.

Each room of the package has a small model here, and `RunConfig` joins them. The description of a setting
says so where the papers leave its value open; such defaults are ours.
"""

from fedtlu_fast.config.budget import BudgetConfig
from fedtlu_fast.config.client_selection import ClientSelectionConfig
from fedtlu_fast.config.clients import (
    PretrainingConfig,
    TrainingConfig,
)
from fedtlu_fast.config.data import DataConfig, PartitionConfig
from fedtlu_fast.config.execution import ExecutionConfig
from fedtlu_fast.config.model import LoraConfig, ModelConfig
from fedtlu_fast.config.participation import ParticipationConfig
from fedtlu_fast.config.run import RunConfig
from fedtlu_fast.config.section import Section
from fedtlu_fast.config.selection import SelectionConfig
from fedtlu_fast.config.server import AggregationConfig, CheckpointConfig, EvaluationConfig
from fedtlu_fast.config.steps import ThreatConfig

__all__ = [
    "AggregationConfig",
    "BudgetConfig",
    "CheckpointConfig",
    "ClientSelectionConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExecutionConfig",
    "LoraConfig",
    "ModelConfig",
    "ParticipationConfig",
    "PartitionConfig",
    "PretrainingConfig",
    "RunConfig",
    "Section",
    "SelectionConfig",
    "ThreatConfig",
    "TrainingConfig",
]
