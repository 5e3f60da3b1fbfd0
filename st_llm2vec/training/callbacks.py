"""What the trainer shows while it trains, and where it stops."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import ProgressCallback, TrainerCallback

from st_llm2vec.host.memory import peak_memory
from st_llm2vec.training.curve import mean_loss, points, sparkline

logger = logging.getLogger(__name__)

GIB = 2**30
UNSAID = ("total_flos", "epoch", "_per_second", "eval_runtime")


class Throughput(TrainerCallback):
    """Adds ``tokens_per_second`` to the trainer's log lines: tokens read by the decoder, padding not counted.

    Its log, which checkpoints hold, has besides the ``seconds`` of training until then, also those of the processes that an
    interrupted run had before, and the most ``memory`` that this process has held, in bytes. Its last line's ``train_loss`` and
    ``train_runtime``, which the trainer takes of this process's steps, are those of the whole run.

    Args:
        encoder: The encoder that is trained.
    """

    def __init__(self, encoder: SentenceTransformer) -> None:
        self.transformer = encoder[0]
        self.tokens: torch.Tensor | int = 0
        self.since, self.begun = 0.0, 0.0
        self.hook: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start counting."""
        self.hook = self.transformer.register_forward_pre_hook(self._count)
        self.tokens, self.since = 0, time.perf_counter()
        self.begun = self.since - max((entry.get("seconds", 0.0) for entry in state.log_history), default=0.0)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Add the rate since the last log line to this one, and the time and memory to the log."""
        if state.log_history:
            spent = {"seconds": round(time.perf_counter() - self.begun, 1), "memory": peak_memory()}
            state.log_history[-1].update(spent)
        if logs is not None and "loss" in logs:
            now = time.perf_counter()
            rate = round(int(self.tokens) / max(now - self.since, 1e-9))
            logs["tokens_per_second"] = rate
            if state.log_history:
                state.log_history[-1]["tokens_per_second"] = rate
            self.tokens, self.since = 0, now
        if logs is not None and "train_loss" in logs:
            loss = mean_loss(state.log_history)
            whole = {"train_runtime": state.log_history[-1]["seconds"]} | ({} if loss is None else {"train_loss": loss})
            logs.update(whole)
            state.log_history[-1].update(whole)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop counting."""
        if self.hook is not None:
            self.hook.remove()

    def _count(self, module: Any, inputs: tuple[Any, ...]) -> None:
        if module.training:
            self.tokens = self.tokens + inputs[0]["attention_mask"].sum()


class StopAfter(TrainerCallback):
    """Stops training after some steps, short of the horizon that the learning rate is planned for.

    Args:
        steps: How many.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop, evaluate where the run is evaluated, and save, when the step has come."""
        if state.global_step >= self.steps:
            control.should_evaluate = args.eval_strategy != "no"
            control.should_save = control.should_training_stop = True


class WarnOfShortRun(TrainerCallback):
    """Warns, where epochs say how long a run is, if its learning rate rises until its end.

    Args:
        called: The stage.
    """

    def __init__(self, called: str) -> None:
        self.called = called

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Compare the steps, which are known by now."""
        if args.max_steps <= 0:
            warn_of_short_run(self.called, state.max_steps, args.get_warmup_steps(state.max_steps))


def warn_of_short_run(called: str, steps: int, rising: int) -> None:
    """Warn if the learning rate rises for as long as a run lasts.

    Args:
        called: The stage.
        steps: Those of the run; none if they are not known.
        rising: Those of warm-up.
    """
    if 0 < steps <= rising:
        logger.warning(
            "%s: the learning rate rises for %d steps and the run has %d, so that it teaches little. Lower warmup_steps.",
            called,
            rising,
            steps,
        )


class LogAtCheckpoints(TrainerCallback):
    """Logs the loss wherever a checkpoint is saved or the run is evaluated, and so at its last step.

    What was not logged yet is in no checkpoint: a run that goes on from there would have lost it. It is added after the callbacks
    that say when to save.
    """

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log too, unless nothing is to be logged."""
        if args.logging_strategy != "no" and (control.should_save or control.should_evaluate):
            control.should_log = True

    on_epoch_end = on_step_end


class StopAtNonFinite(TrainerCallback):
    """Stops a run whose loss or gradient is not finite, before the weights take it in.

    The trainer itself shows the mean of earlier losses in the place of such a one, and trains on.

    Args:
        losses: The loss, or one for each dataset.
    """

    def __init__(self, losses: nn.Module | Mapping[str, nn.Module]) -> None:
        self.losses = list(losses.values()) if isinstance(losses, Mapping) else [losses]
        self.handles: list[Any] = []
        self.since_step: list[Tensor] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at every loss from now on."""
        self.handles = [loss.register_forward_hook(self._keep) for loss in self.losses]

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Look at the step's losses, and at its gradient, but where a scaler of float16 skips such steps by itself.

        Raises:
            ValueError: If one is not finite.
        """
        losses, self.since_step = self.since_step, []
        found = {"loss": losses}
        if not args.fp16:
            found["gradient"] = [one.grad.sum() for one in model.parameters() if type(one.grad) is Tensor]
        for name, values in found.items():
            total = torch.stack([value.float() for value in values]).sum() if values else torch.zeros(())
            if not torch.isfinite(total):
                raise ValueError(_not_finite(name, float(total), state.global_step + 1))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look no more."""
        for handle in self.handles:
            handle.remove()

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if module.training and torch.is_grad_enabled():
            values = output.values() if isinstance(output, Mapping) else [output]
            self.since_step += [value.detach() for value in values]


def _not_finite(what: str, value: float, step: int) -> str:
    cause = (
        "Since it is the first step, look at the decoder's weights and its type first (--dtype float32)."
        if step == 1
        else "Most often the learning rate is too high (--lr), or the type has too small a range (--dtype float32)."
    )
    return (
        f"The {what} of step {step} is {value}, so the run stops here: the weights have not taken it in, and no encoder is "
        f"saved. {cause} Start again in another folder, since this one belongs to a run with these settings."
    )


class ProgressLines(ProgressCallback):
    """A line on stderr for every entry of the trainer's log, in a terminal above the trainer's bar.

    Such as ``step 10/1000  loss 2.31  lr 4.5e-05  5,120 tokens/s  1:02:33 left  peak 3.2 GiB``. An evaluation's has the curve
    of all of them: ``step 100/1000  eval_sts_spearman_cosine 0.712  ▁▅█  best 0.712 at step 100``.

    Args:
        stop_after: The step where the run ends, if that is before the trainer's horizon.
        metric: The score whose curve is shown.
    """

    def __init__(self, stop_after: int | None = None, metric: str | None = None) -> None:
        super().__init__()
        self.stop_after, self.metric = stop_after, metric
        self.first_step, self.total, self.since = 0, 0, 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock, and the bar where stderr is a terminal."""
        self.first_step, self.since = state.global_step, time.perf_counter()
        self.current_step = state.global_step
        self.total = min(state.max_steps, self.stop_after or state.max_steps)
        if state.is_world_process_zero:
            hidden = args.disable_tqdm or not sys.stderr.isatty()
            self.training_bar = tqdm(total=self.total, initial=state.global_step, dynamic_ncols=True, disable=hidden)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Write the line."""
        if state.is_world_process_zero and logs:
            tqdm.write("  ".join(self._parts(state, logs)), file=sys.stderr)

    def _parts(self, state: Any, logs: Mapping[str, Any]) -> list[str]:
        done = state.global_step
        parts = [f"step {done}/{self.total}"]
        if "train_loss" in logs:
            spent = datetime.timedelta(seconds=round(logs["train_runtime"]))
            return [*parts, f"done in {spent}", f"mean loss of all steps {logs['train_loss']:.4g}"]
        if "loss" not in logs:
            shown = {name: value for name, value in logs.items() if not name.endswith(UNSAID)}
            parts += [f"{name} {value:.4g}" for name, value in shown.items() if isinstance(value, int | float)]
            return parts + (self._curve(state) if self.metric in logs else [])
        parts.append(f"loss {logs['loss']:.4g}")
        if "learning_rate" in logs:
            parts.append(f"lr {logs['learning_rate']:.2g}")
        if "tokens_per_second" in logs:
            parts.append(f"{logs['tokens_per_second']:,} tokens/s")
        left = (time.perf_counter() - self.since) / max(done - self.first_step, 1) * (self.total - done)
        return [*parts, f"{datetime.timedelta(seconds=round(left))} left", f"peak {peak_memory() / GIB:.1f} GiB"]

    def _curve(self, state: Any) -> list[str]:
        """All scores until now, where there are several, and the best of them; that of no training does not compete."""
        found = points(state.log_history, str(self.metric))
        if len(found) < 2:
            return []
        best = max(filter(None, found), key=lambda step: found[step])
        return [sparkline(list(found.values()), sys.stderr.encoding), f"best {found[best]:.4g} at step {best}"]
