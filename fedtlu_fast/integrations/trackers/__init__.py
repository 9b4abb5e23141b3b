"""Trackers of experiments: TensorBoard, Weights & Biases, MLflow, trackio, and your own."""

from fedtlu_fast.integrations.trackers.mlflow import MLflow
from fedtlu_fast.integrations.trackers.printed import Print
from fedtlu_fast.integrations.trackers.tensorboard import TensorBoard
from fedtlu_fast.integrations.trackers.track import Track
from fedtlu_fast.integrations.trackers.tracker import OpenTracker, TrackedRun, Tracker
from fedtlu_fast.integrations.trackers.trackio import Trackio
from fedtlu_fast.integrations.trackers.wandb import WeightsAndBiases

__all__ = [
    "MLflow",
    "OpenTracker",
    "Print",
    "TensorBoard",
    "Track",
    "TrackedRun",
    "Tracker",
    "Trackio",
    "WeightsAndBiases",
]
