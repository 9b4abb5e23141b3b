"""The server: 20 rounds in which two of the Transformer's six blocks are updated."""

from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from safetensors.torch import save_file

from digits.task import accuracy, load_test, make_model
from fedtlu_fast.integrations.flower import FedTLU

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs the federation, and saves the final model if the run's settings name a file."""
    settings = context.run_config
    model, test = make_model(settings["width"]), load_test()

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        return MetricRecord({"accuracy": accuracy(model, *test)})

    nodes = {"min_train_nodes": settings["min-nodes"], "min_available_nodes": settings["min-nodes"]}
    sending = settings["client-selection"] or None
    strategy = FedTLU(fraction_evaluate=0.0, **nodes, keep=2, client_selection=sending)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        num_rounds=settings["rounds"],
        timeout=settings["timeout"],
        train_config=ConfigRecord({"steps": settings["local-steps"], "lr": settings["lr"]}),
        evaluate_fn=evaluate,
    )
    if settings["save"]:
        save_file(result.arrays.to_torch_state_dict(), Path(settings["save"]))
