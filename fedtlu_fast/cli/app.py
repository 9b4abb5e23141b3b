"""The command line ``fedtlu``, and how it reports errors.

Commands import heavy packages (torch) only when they run, so that help and errors appear immediately.

Exit codes: 0 done; 1 the work failed (a full disk, lost workers), or the run that was watched has not
finished; 2 bad input; 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP (a run stops after its round);
141 the reader of standard output has gone.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.markup import escape

from fedtlu_fast._version import __version__
from fedtlu_fast.cli import streams
from fedtlu_fast.cli.bench_sim import bench_sim_command
from fedtlu_fast.cli.compare import CompareHelp, compare_command
from fedtlu_fast.cli.console import hide_bars_of_libraries, notes
from fedtlu_fast.cli.data import data_command
from fedtlu_fast.cli.env import env_command
from fedtlu_fast.cli.experiment import experiment_command
from fedtlu_fast.cli.export import export_command
from fedtlu_fast.cli.history import history_command
from fedtlu_fast.cli.profile import profile_command
from fedtlu_fast.cli.report import report_command
from fedtlu_fast.cli.run import run_command
from fedtlu_fast.cli.runs import runs_command
from fedtlu_fast.cli.score import score_command
from fedtlu_fast.cli.settings import settings_command
from fedtlu_fast.cli.watch import watch_command
from fedtlu_fast.errors import BackendUnavailableError, FedtluError, InputError, InterruptedRunError
from fedtlu_fast.machine import check_room_for_libraries, memory_room, refusal
from fedtlu_fast.shown import visible
from fedtlu_fast.stopping import Terminated, signals_interrupt

HELP = """Federated fine-tuning in which only the layers that matter are updated.

Every round, clients train on their own data, the server averages their changes, scores every layer of
the averaged change, and applies only the best-scoring blocks (FedTLU, arXiv 2412.17692).

\b
Start here:

\b
  fedtlu run --preset smoke    a tiny federation, done in seconds
  fedtlu run                   a federation of 100 clients, in minutes
  fedtlu compare               several ways to choose layers, in a table

Then use your own settings, data and models:

\b
  fedtlu run --set rounds=20 --model gpt2 --data text:books/
  fedtlu settings momentum     settings about a word, with examples
  fedtlu data --plot data.png  how the data are dealt to the clients
  fedtlu score BEFORE AFTER    rank the layers between two checkpoints

While runs are going on, and afterwards:

\b
  fedtlu watch                 the latest run: progress, curves, choices
  fedtlu runs                  all runs, with their results
  fedtlu compare --runs A B    finished runs side by side

COMMAND -h explains a command. --install-completion teaches your shell to
complete commands, options and names with Tab.
"""

app = typer.Typer(
    name="fedtlu",
    help=HELP,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedtlu-fast {__version__}")
        raise typer.Exit


LOADING = ("run", "compare", "experiment", "export", "profile", "bench-sim")
"""Commands that load PyTorch and Transformers, which need memory and threads."""


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log which backend runs, and other details.")
    ] = False,
) -> None:
    """Handles the options that stand before the command."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("fedtlu_fast").setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger("fedtlu_fast.data").setLevel(logging.INFO)
    # Matplotlib would report where it keeps its fonts if the home directory is not writable.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    if context.invoked_subcommand in LOADING:
        check_room_for_libraries()


app.command("run", short_help="Run one federation, with live progress and a report.")(run_command)
app.command(
    "compare", cls=CompareHelp, short_help="Compare ways to choose blocks; makes a table and a picture."
)(compare_command)
app.command("experiment", short_help="Run an experiment of the FedTLU paper.")(experiment_command)
app.command("watch", short_help="Watch a run while another process runs it.")(watch_command)
app.command("runs", short_help="List earlier runs with their results.")(runs_command)
app.command("data", short_help="Show how the data are dealt to the clients.")(data_command)
app.command("score", short_help="Rank the layers and blocks of a change.")(score_command)
app.command("report", short_help="Make the report of a run or comparison anew.")(report_command)
app.command("export", short_help="Write a run's model for transformers or peft, with a card.")(export_command)
app.command("history", short_help="Show how stable a run's ranking of blocks was.")(history_command)
app.command("profile", short_help="Measure the speed and accuracy of the kernels.")(profile_command)
app.command("bench-sim", short_help="Time rounds beside other simulators.")(bench_sim_command)
app.command("settings", short_help="Explain settings, all or by a word.")(settings_command)
app.command("env", short_help="Show versions, devices and live backends.")(env_command)


def run_command_line() -> None:
    """Runs the command and ends the process; errors that a user can fix are shown without a traceback."""
    # Idle OpenMP threads that spin slow down other processes on a shared machine; set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if sys.stderr is None or not sys.stderr.isatty():
        hide_bars_of_libraries()
    sys.exit(_reported(_command))


def _command() -> int:
    output = streams.take_over()
    with signals_interrupt():
        return streams.finish(output, _reported(_app))


def _app() -> int:
    try:
        app(prog_name="fedtlu")
    except SystemExit as end:
        # typer turns every interrupt into 130; the cause of the exception has the signal.
        interrupt = getattr(end.__context__, "__cause__", None)
        if isinstance(interrupt, Terminated):
            return 128 + interrupt.number
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def _reported(work: Callable[[], int]) -> int:
    """Runs `work` and returns its exit code; if it raises an error, prints the error's message."""
    try:
        return work()
    except (InputError, BackendUnavailableError) as error:
        return _say(error.on_command_line(), 2)
    except InterruptedRunError as error:
        return _say(error.on_command_line(), 128 + error.number, "stopped")
    except KeyboardInterrupt as interrupt:
        return 128 + int(getattr(interrupt, "number", signal.SIGINT))
    except FedtluError as error:
        return _say(error.on_command_line(), 1)
    except (MemoryError, RuntimeError, OSError, ImportError, SystemError) as error:
        message = _limit_met(error)
        if message is None:
            raise
        return _say(message, 1)


def _limit_met(error: BaseException) -> str | None:
    """Returns a message for an error that comes from a limit of the machine; None for other errors."""
    reason, found = refusal(error), error.__cause__
    while reason is None and found is not None:  # libraries wrap the system's error in their own
        reason, found = refusal(found), found.__cause__
    if reason is None and isinstance(error, RuntimeError):
        from fedtlu_fast.memory import is_out_of_memory

        reason = f"out of memory: {memory_room()}" if is_out_of_memory(error) else None
    if reason is None:
        return None
    return (
        f"{reason}. Use a smaller model, cohort, execution.clients_per_batch or training.batch_size, fewer "
        f"execution.workers or --jobs, or raise the limit; `fedtlu run --dry-run` shows what a run needs"
    )


def _say(message: str, code: int, word: str = "error") -> int:
    notes.print(f"[bold red]{word}:[/] {escape(visible(message))}", soft_wrap=True, highlight=False)
    return code
