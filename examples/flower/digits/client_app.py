"""A client: it trains the global model on its own digits."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits.task import load, make_model, train
from fedtlu_fast.integrations.flower import send_chosen_layers, train_chosen_layers_

# The mod and train_chosen_layers_ do nothing as long as the server asks every client for every layer.
app = ClientApp(mods=[send_chosen_layers])


@app.train()
def train_locally(message: Message, context: Context) -> Message:
    """Trains on the digits of this node's partition."""
    node, config = context.node_config, message.content["config"]
    pictures, digits = load(int(node["partition-id"]), int(node["num-partitions"]))
    model = make_model(int(context.run_config["width"]))
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    train_chosen_layers_(model, config)
    loss = train(model, pictures, digits, steps=config["steps"], lr=config["lr"])
    metrics = MetricRecord({"loss": loss, "num-examples": len(digits)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)
