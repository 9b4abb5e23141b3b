"""Runs in Flower's workers: one client's training, as a NumPyClient and as a ClientApp."""

import functools

import torch
from federations.workloads.protocol import loss
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp


@functools.lru_cache(maxsize=1)
def model_of(work):
    """Returns the worker's model, filled with the weights that arrive."""
    return work.model()


def train(work, client, state, threads):
    """Trains a client; returns the model and the number of samples after a client's round."""
    torch.set_num_threads(threads)
    model = model_of(work)
    model.load_state_dict(state, strict=False)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=work.settings.lr)
    for inputs, targets in work.batches(client):
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        optimizer.step()
    return model, len(work.client(client)[0])


class Client(NumPyClient):
    def __init__(self, work, client, threads):
        self.work, self.client, self.threads = work, client, threads

    def fit(self, parameters, config):
        names = self.work.sent(model_of(self.work))
        state = {name: torch.from_numpy(value) for name, value in zip(names, parameters, strict=True)}
        model, samples = train(self.work, self.client, state, self.threads)
        return [value.numpy() for value in self.work.sent(model).values()], samples, {}


def make_client_fn(work, threads):
    def client_fn(context: Context):
        return Client(work, int(context.node_config["partition-id"]), threads).to_client()

    return client_fn


def make_client_app(work, threads):
    app = ClientApp()

    @app.train()
    def answer(message, context):
        client = int(context.node_config["partition-id"])
        state = message.content["arrays"].to_torch_state_dict()
        model, samples = train(work, client, state, threads)
        content = {
            "arrays": ArrayRecord(work.sent(model)),
            "metrics": MetricRecord({"num-examples": samples}),
        }
        return Message(content=RecordDict(content), reply_to=message)

    return app
