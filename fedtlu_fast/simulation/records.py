"""What a run tells of itself: the rows of its logs and its summary, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.runs.as_json import finite
from fedtlu_fast.simulation.decided import decided_shares
from fedtlu_fast.simulation.evaluation import (
    LocalTest,
    figures,
    global_test,
    local_test,
    means_over,
    trained_local_loss,
)
from fedtlu_fast.simulation.round import RoundRecord
from fedtlu_fast.simulation.run_context import ClientEnd
from fedtlu_fast.simulation.server import Server
from fedtlu_fast.simulation.state import ServerState
from fedtlu_fast.tasks.metrics import LOSS, PERPLEXITY, perplexity
from fedtlu_fast.tasks.task import Task

BYTES_PER_PARAMETER = 4
NOT_TESTED = LocalTest(None, {}, {})


def metrics_row(server: Server, state: ServerState, record: RoundRecord) -> dict[str, Any]:
    """One line of metrics.jsonl, without its seconds; makes the tests that are due in this round."""
    plan, index, task = server.evaluation, state.round, server.trainer.task
    last = index == server.rounds
    tested = last or index % plan.every == 0
    locally = last or index % plan.local_every == 0
    found = global_test(server, state) if tested else None
    loss = float(found.loss) if found else None
    own = local_test(server, state) if locally else NOT_TESTED
    row = {
        "round": index,
        "train_loss": record.train_loss,
        "test_loss": loss,
        **figures("test", task, loss, means_over([found] if found else [])),
        "local_loss": own.loss,
        **figures("local", task, own.loss, own.means),
        "failed_tests": {str(client): reason for client, reason in own.left_out.items()},
        "diverged": loss is not None and not isfinite(loss),
        "selected": list(record.selection.names),
        "updated_share": record.selection.parameters / server.layout.size,
        "warmup": record.warmup,
        "nonfinite_blocks": list(record.nonfinite),
        "refused": record.refused,
        "adversaries": server.steps.struck(record.cohort),
        "failed": {str(client): reason for client, reason in record.failed.items()},
        "dropped": {str(client): reason for client, reason in record.dropped.items()},
        "trained": len(record.cohort),
        "kept_clients": record.kept_clients,
        "bytes_up": _bytes_sent(server, record),
        "bytes_published": BYTES_PER_PARAMETER * record.selection.parameters,
    }
    return finite(row)


def selection_row(record: RoundRecord, layout: ParameterLayout) -> dict[str, Any]:
    """One line of selection.jsonl: every score, and what was chosen by it.

    ``block_scores`` are those of the selector's metric, of Eq. 1 where it has none. Under a metric other than
    Eq. 1 that has values for layers, each layer has its ``value``.
    """
    layers = {
        name: {"score": score, "excess": excess, "l2": l2}
        for name, score, excess, l2 in zip(
            record.scores.names,
            record.scores.score.tolist(),
            record.scores.excess.tolist(),
            record.stats.l2.tolist(),
            strict=True,
        )
    }
    if record.metric != "excess" and record.values.layers is not None:
        for facts, value in zip(layers.values(), record.values.layers.tolist(), strict=True):
            facts["value"] = value
    row = {
        "round": record.round,
        "warmup": record.warmup,
        "drawn": record.drawn,
        "cohort": record.cohort,
        "selected": list(record.selection.names),
        **_client_choices(record),
        "block_scores": dict(
            zip((block.name for block in layout.blocks), record.values.blocks.tolist(), strict=True)
        ),
        "layers": layers,
    }
    if record.benefit is not None:
        row["benefit"] = record.benefit.row(layout)
    return finite(row)


def client_ends(record: RoundRecord) -> list[ClientEnd]:
    """What became of each client of a round's cohort, in the cohort's order."""
    told = record.reports
    rows = zip(told.clients, told.samples, told.losses, told.accepted, strict=True)
    found = {
        client: ClientEnd(client, samples, loss if isfinite(loss) else None, accepted)
        for client, samples, loss, accepted in rows
    }
    failed = {client: ClientEnd(client, 0, None, False, reason) for client, reason in record.failed.items()}
    return [(found | failed)[client] for client in record.cohort]


def start_figures(server: Server, state: ServerState) -> dict[str, Any]:
    """The global test before round 1, as the summary has it."""
    found = global_test(server, state)
    loss = float(found.loss)
    means = means_over([found])
    return finite({"start_test_loss": loss, **figures("start_test", server.trainer.task, loss, means)})


def run_summary(
    server: Server, state: ServerState, metrics: Sequence[dict[str, Any]], start: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of summary.json; makes the last tests.

    ``bytes_up`` counts what the clients of every cohort send, all blocks where no `client_selection` says
    otherwise, compressed where a client step compresses; ``bytes_published`` the parameters that changed in
    each round, once. ``updated_share`` is the mean over the targeted rounds. ``stopped`` is why a callback
    ended the run early, None when none did; ``best`` says which model was kept as the best.
    ``diverged_round`` is the last round when its global test gave no number; None when it gave one.
    ``failed_tests`` are the clients that the last tests left out.
    Accuracies are None for language modelling; ``test_f1`` (of every label that occurs or was predicted) and
    its plain mean, ``test_macro_f1``, are None where labels have no names. ``seconds`` are those of the
    rounds, with their tests; neither setting up nor the last tests are in them.

    ``selection_share`` and ``client_selection_share`` are the shares of the parameters on which the selectors
    decide: a group of like blocks that is kept whole leaves no choice, and does not count.

    Args:
        server: of the run.
        state: after its last round.
        metrics: rows of metrics.jsonl.
        start: see `start_figures`.
    """
    names, layout, task = server.names, server.layout, server.trainer.task
    found = global_test(server, state)
    loss, f1 = float(found.loss), found.f1()
    own = local_test(server, state, done=True)
    trained = trained_local_loss(server, state)
    targeted = [row["updated_share"] for row in metrics if not row["warmup"]]
    shares = targeted or [row["updated_share"] for row in metrics]
    summary = {
        "task": names.task,
        **headline_facts(task),
        "selector": names.selector,
        "metric": server.selector.ranks_by,
        "client_selector": names.client_selector,
        "client_budget": names.client_budget,
        **_open_blocks(server),
        **decided_shares(server),
        "seed": server.seed,
        "rounds": state.round,
        "stopped": state.control.stopped,
        "best": _best(state),
        "warmup_rounds": min(server.warmup_rounds, state.round),
        "targeted_rounds": len(targeted),
        "clients": server.population.clients,
        "cohort": server.size,
        "parameters": layout.size,
        "groups": {
            group.name: [layout.blocks[block].name for block in group.blocks] for group in layout.groups
        },
        **start,
        "test_loss": loss,
        **figures("test", task, loss, means_over([found])),
        "test_macro_f1": sum(f1.values()) / len(f1) if f1 else None,
        "test_f1": f1,
        "local_loss": own.loss,
        **figures("local", task, own.loss, own.means),
        "trained_clients": server.evaluation.trained_clients,
        "untrained_local_loss": trained.before,
        "untrained_local_perplexity": _perplexity(task, trained.before),
        "trained_local_loss": trained.after,
        "trained_local_perplexity": _perplexity(task, trained.after),
        "failed_tests": {str(client): reason for client, reason in (own.left_out | trained.left_out).items()},
        "diverged_round": next((row["round"] for row in metrics if row.get("diverged")), None),
        "updated_share": sum(shares) / len(shares) if shares else 0.0,
        "bytes_up": sum(row["bytes_up"] for row in metrics),
        "bytes_published": sum(row["bytes_published"] for row in metrics),
        **_malicious(server, metrics),
        "refused_updates": sum(len(row["refused"]) for row in metrics),
        "dropped_clients": sum(len(row["dropped"]) for row in metrics),
        "failed_clients": sum(len(row["failed"]) for row in metrics),
        "seconds": sum(row["seconds"] for row in metrics),
        "params_sha256": state.sha256(),
    }
    return finite(summary)


def _malicious(server: Server, metrics: Sequence[dict[str, Any]]) -> dict[str, int | None]:
    """How many noisy or malicious clients took part, and how often; None without such clients."""
    if all(getattr(step, "share", None) is None for step in server.steps.steps):
        return {"malicious_clients": None, "malicious_updates": None}
    each = [client for row in metrics for client in row["adversaries"]]
    return {"malicious_clients": len(set(each)), "malicious_updates": len(each)}


def headline_facts(task: Task) -> dict[str, Any]:
    """What tables and pictures compare runs by, and how to read each figure of the task's tests.

    ``headline`` is the name of one of the ``figures``, whose values lie under ``test_<name>`` and
    ``local_<name>``.
    """
    known = {figure.name: figure.facts() for figure in (*task.figures, LOSS)}
    return {"headline": next(iter(known)), "figures": known}


def _bytes_sent(server: Server, record: RoundRecord) -> int:
    """By the whole cohort; those of whom nothing was ordered send everything, even if they fail."""
    every, sent = tuple(range(len(server.layout.blocks))), record.sent
    if record.client_choice.orders is None:
        sent = dict.fromkeys(record.cohort, every)
    return sum(server.steps.message_bytes(client, blocks) for client, blocks in sent.items())


def _client_choices(record: RoundRecord) -> dict[str, Any]:
    """Indices of the blocks that each client of the cohort trained and sent; nothing where all did all.

    ``probed`` names the clients that measured their blocks in this round. Everything else is in the order of
    the cohort; of a client whose probe failed, no blocks and no gains.
    """
    choice = record.client_choice
    if choice.orders is None:
        return {}
    trained = [list(choice.orders.trained.get(client, ())) for client in record.cohort]
    sent = [list(record.sent.get(client, ())) for client in record.cohort]
    rows = {"client_blocks": trained, "probed": list(choice.probed)}
    if sent != trained:
        rows["sent_blocks"] = sent
    if choice.gains is not None:
        measured = dict(zip(choice.ordered(record.cohort), choice.gains.tolist(), strict=True))
        rows["gains"] = [measured.get(client) for client in record.cohort]
    return rows


def _open_blocks(server: Server) -> dict[str, list[str]]:
    """Names of the blocks that clients choose among, and keep; nothing where they do not."""
    if server.client_rule is None:
        return {}
    names = [block.name for block in server.layout.blocks]
    found = {"open_blocks": [names[block] for block in server.client_rule.standing.open]}
    if server.client_rule.standing.personal:
        found["personal_blocks"] = [names[block] for block in server.client_rule.standing.personal]
    return found


def _best(state: ServerState) -> dict[str, Any] | None:
    best = state.best
    return None if best is None else {"round": best.round, "metric": best.metric, "value": best.value}


def _perplexity(task: Task, loss: float | None) -> float | None:
    return perplexity(loss) if PERPLEXITY in task.figures else None
