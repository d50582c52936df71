"""A run: phases, epochs, averages, early stopping, checkpoints and the log. Resumes from any checkpoint."""

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm

from fer_hf import metrics
from fer_hf.data.loaders import ArraySplit, LazySplit
from training.averaging import WeightAverages, recompute_batch_norms, share_statistics
from training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import Phase, Recipe
from training.distillation import Teacher
from training.engine import EpochSampler, Step, mix_seed, predict_logits, split_loader
from training.files import write_text
from training.losses import ExpressionLoss, class_weights
from training.optimizers import build_optimizer, place_rate, set_rate, set_training_mode, trainable_parameters
from training.pace import Pace
from training.precision import keep_depthwise_fp32, layout
from training.provenance import rows_sha256
from training.run_log import read_log
from training.schedules import Schedule

CHECKPOINT_EVERY_S = 120
LOOK_AT_LOSS_EVERY = 20  # batches; reading the loss waits for the device


class TrainingDiverged(RuntimeError):
    """The loss stopped being a number; the last checkpoint is from before that."""


@dataclass
class Progress:
    """Where a run is; everything here goes into the checkpoint."""

    phase: int = 0
    epoch: int = 0  # over all phases
    phase_epochs: list[int] = field(default_factory=list)  # finished epochs of each phase
    batch: int = 0  # finished batches of this epoch
    step: int = 0  # finished batches of the run
    best_score: float = -math.inf
    best_epoch: int = -1
    seconds: float = 0.0
    finished: bool = False
    planned: int = 0  # epochs that the recipe had when the run finished within a time limit, which may have had fewer


def epoch_figures(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Loss, accuracy, macro precision, recall, F1 and AUC of raw logits (N, K) against distributions (N, K)."""
    logits, targets = logits.float().cpu(), targets.float().cpu()
    truth = targets.argmax(1).numpy()
    confusion = metrics.confusion_matrix(truth, logits.argmax(1).numpy(), logits.shape[1])
    scores = metrics.class_scores(confusion)
    areas = metrics.auc_one_vs_rest(truth, logits.softmax(1).numpy())
    return {
        "loss": float(nn.functional.cross_entropy(logits, targets)),
        "accuracy": float(metrics.accuracy(confusion)),
        "precision": float(scores.average("precision", "macro")),
        "recall": float(scores.average("recall", "macro")),
        "macro_f1": float(scores.average("f1", "macro")),
        "auc": float(areas[np.isfinite(areas)].mean()) if np.isfinite(areas).any() else None,
    }


class Run:
    """One training run in ``output``: ``train()`` goes from wherever the checkpoints are to the end.

    ``on_best(model)`` is called on the main process with the evaluated model whenever it is the best so far.
    ``teachers`` holds those that the recipe names, by name. With ``limit_s`` the run ends after about so many seconds.

    Raises ValueError for a limit on a recipe whose average is of its last epochs, since nobody knows those beforehand.
    """

    def __init__(
        self,
        recipe: Recipe,
        accelerator: Accelerator,
        model: nn.Module,
        normalize,
        train: ArraySplit | LazySplit,
        validation: ArraySplit | LazySplit,
        output: Path,
        on_best,
        teachers: Mapping[str, Teacher] | None = None,
        limit_s: float | None = None,
    ):
        if limit_s is not None and recipe.average.swa_last:
            raise ValueError(
                "average.swa_last needs all epochs of its recipe; use average.ema_decay within a time limit"
            )
        self.recipe, self.accelerator, self.output, self.on_best = recipe, accelerator, output, on_best
        self.normalize, self.validation = normalize, validation.to(accelerator.device)
        self.train_data = train.to(accelerator.device)
        self.data = {"training": rows_sha256(train), "validation": rows_sha256(validation)}
        self.progress, self.pace = Progress(phase_epochs=[0] * len(recipe.phases)), Pace(limit_s)
        model = keep_depthwise_fp32(model, accelerator.device)
        self.plain_model = model.to(memory_format=layout(model, accelerator.device))
        if recipe.compile:
            self.plain_model.compile()
        self.teachers = {name: teacher.to(accelerator.device) for name, teacher in (teachers or {}).items()}
        # Several processes, gradients that wait for later ones and compiled code are launched as ever.
        alone = accelerator.num_processes == 1 and recipe.optimizer.accumulate == 1 and not recipe.compile
        self.recorded = recipe.record and accelerator.device.type == "cuda" and alone
        self.weights = class_weights(self.train_data.targets.to(accelerator.device), recipe.loss)
        sampling = None
        if recipe.data.weighted_sampling:
            labels = self.train_data.labels.cpu()
            sampling = 1.0 / torch.bincount(labels).clamp_min(1)[labels]
        self.sampler = EpochSampler(len(train), recipe.seed, sampling)
        self.batches = len(train) // recipe.batch_size
        if self.batches == 0:
            raise ValueError(f"batch_size {recipe.batch_size} is larger than the training set of {len(train)} pictures")
        self.loader = accelerator.prepare_data_loader(split_loader(train, recipe.batch_size, self.sampler))
        self.seen: list[tuple[Tensor, Tensor]] = []  # raw logits and targets of this epoch's batches so far
        self.averages: WeightAverages | None = None
        self.phase_ready = -1
        self.saved_at = time.monotonic()

    # -- assembling a phase --------------------------------------------------------------------------------------------
    def _enter_phase(self, number: int) -> None:
        phase: Phase = self.recipe.phases[number]
        model = self.plain_model
        if self.phase_ready >= 0:
            # What is trainable changes, and a data-parallel wrapper cannot change with it: wrap anew.
            model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
            self.accelerator.free_memory()
        self.base_lr = phase.lr or self.recipe.optimizer.lr
        parameters = trainable_parameters(model, phase.train_last)
        optimizer = build_optimizer(parameters, self.recipe.optimizer, self.base_lr)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self._place_rate()
        self.schedule = Schedule(self.recipe.schedule, phase.epochs)
        distill = phase.distill or self.recipe.distill
        self.step = Step(
            accelerator=self.accelerator,
            model=self.model,
            loss=ExpressionLoss(self.recipe.loss, self.weights),
            optimizer=self.optimizer,
            normalize=self.normalize,
            augment=phase.augment or self.recipe.augment,
            clip_norm=self.recipe.optimizer.clip_norm,
            teacher=self.teachers.get(distill.teacher),
            distill=distill,
            recorded=self.recorded,
        )
        if self.averages is None:
            self.averages = WeightAverages(self.recipe.average, self._bare_model(), self.recipe.epochs)
        self.phase_ready = number
        self._enter_pace(number)

    def _place_rate(self) -> None:
        place_rate(self.optimizer, self.accelerator.device if self.recorded else None)

    def _enter_pace(self, number: int) -> None:
        phases, done = self.recipe.phases, self.progress.phase_epochs[number]
        self.pace.enter(phases[number].epochs, done, sum(phase.epochs for phase in phases[number + 1 :]))

    def _bare_model(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.model)

    def _phase_is_over(self) -> bool:
        return self.pace.is_over(self.progress.phase_epochs[self.progress.phase])

    # -- checkpoints ---------------------------------------------------------------------------------------------------
    def _state(self) -> dict:
        return {
            "progress": asdict(self.progress),
            "data": self.data,
            "model": self._bare_model().state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state,
            "averages": self.averages.state_dict(),
            "seen": [column.cpu() for column in self._seen_columns()] if self.seen else None,
        }

    def _seen_columns(self) -> tuple[Tensor, Tensor]:
        logits, targets = (torch.cat(column) for column in zip(*self.seen, strict=True))
        return logits, targets

    def save(self) -> None:
        """Write a checkpoint on the main process."""
        if self.accelerator.is_main_process:
            save_checkpoint(self.output / "checkpoints", self.progress.step, self._state())
        self.accelerator.wait_for_everyone()
        self.saved_at = time.monotonic()

    def _save_is_due(self) -> bool:
        return time.monotonic() - self.saved_at > CHECKPOINT_EVERY_S

    def resume(self) -> bool:
        """Go back to the newest checkpoint; False where there is none."""
        path = latest_checkpoint(self.output / "checkpoints")
        if path is None:
            self._trim_log()
            return False
        state = load_checkpoint(path)
        self._check_same_data(state.get("data", self.data))  # a checkpoint of an earlier version does not say
        self.progress = Progress(**state["progress"])
        self._check_all_planned()
        self.progress.phase_epochs += [0] * (len(self.recipe.phases) - len(self.progress.phase_epochs))
        self._enter_phase(self.progress.phase)
        # A recipe that was made longer since goes on, or one that stops less early; not what a time limit ended.
        if self.recipe.epochs != self.progress.planned:
            self.progress.finished &= self._out_of_epochs()
        self._bare_model().load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._place_rate()
        self.schedule.state = state["schedule"]
        self.averages.load_state_dict(state["averages"])
        if state["seen"] is not None:
            self.seen = [tuple(column.to(self.accelerator.device) for column in state["seen"])]
        self._trim_log()
        return True

    def _check_same_data(self, began: dict[str, str]) -> None:
        """Raise ValueError for other rows: a model folder says what its last call learned from."""
        other = [name for name, rows in self.data.items() if began[name] != rows]
        if other:
            raise ValueError(
                f"{self.output} holds a run on other {' and '.join(other)} rows or labels; give the data that it began "
                "with, or another --output, and model.start_from to go on from its weights"
            )

    def _check_all_planned(self) -> None:
        """Raise ValueError where the recipe has fewer epochs than the run has had."""
        planned = [phase.epochs for phase in self.recipe.phases]
        if any(had > epochs for had, epochs in zip(self.progress.phase_epochs, planned, strict=False)):
            raise ValueError(
                f"{self.output} holds a run that has had {self.progress.epoch} epochs, and the recipe has fewer "
                f"({', '.join(map(str, planned))}); give it as many at least"
            )

    def _trim_log(self) -> None:
        """Drop log lines of epochs that the checkpoint does not know, so that none stands there twice."""
        log = self.output / "log.jsonl"
        if not (self.accelerator.is_main_process and log.exists()):
            return
        epochs = [one for one in read_log(log) if one["epoch"] <= self.progress.epoch]
        write_text(log, "".join(json.dumps(one) + "\n" for one in epochs))

    # -- the loop ------------------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """Assemble the phase that the run is in, unless that has been done."""
        if self.phase_ready < 0:
            self._enter_phase(self.progress.phase)

    def train(self) -> Progress:
        """Run to the end of the recipe, or to early stopping, and return where it ended."""
        self.begin()
        while not self.progress.finished and not self._out_of_epochs():
            if self._phase_is_over():
                self.progress.phase += 1
                self._enter_phase(self.progress.phase)
            started, left = time.perf_counter(), self.batches - self.progress.batch  # of an epoch begun before
            train_figures = self._train_epoch()
            self._after_epoch(train_figures, left * self.recipe.batch_size, time.perf_counter() - started)
        if not self.progress.finished:
            if self.averages.swa is not None and self.averages.swa.n_averaged > 0:  # none, where it stopped before
                self._finish_swa()
            self.progress.finished = True
            self.progress.planned = 0 if self.pace.ends_at is None else self.recipe.epochs
            self.save()
        return self.progress

    def _out_of_epochs(self) -> bool:
        progress = self.progress
        waited = min(progress.epoch - 1 - progress.best_epoch, progress.phase_epochs[progress.phase])
        if self.recipe.early_stopping is not None and waited >= self.recipe.early_stopping:
            self.accelerator.print(f"stopping early: no better {self.recipe.select} for {waited} epochs")
            return True
        return progress.phase + 1 == len(self.recipe.phases) and self._phase_is_over()

    def _train_epoch(self) -> dict[str, float]:
        progress, loader = self.progress, self.loader
        over, step = self.pace.next_epoch(progress.phase_epochs[progress.phase])
        self.sampler.begin_epoch(progress.epoch)
        if progress.batch:
            loader = self.accelerator.skip_first_batches(loader, progress.batch)
        set_training_mode(self._bare_model())
        losses = []
        bar = tqdm(
            total=self.batches * self.recipe.batch_size,
            initial=progress.batch * self.recipe.batch_size,
            desc=f"epoch {progress.epoch + 1}/{self.recipe.epochs}",
            unit="img",
            unit_scale=True,
            disable=not self.accelerator.is_main_process or None,
        )
        for batch in loader:
            self._set_lr(over + step * progress.batch / self.batches)
            seed = mix_seed(self.recipe.seed, progress.epoch, progress.batch, self.accelerator.process_index)
            images, targets = self.train_data.fetch(batch)
            loss, logits, targets = self.step(images, targets, seed)
            if self.accelerator.sync_gradients:
                self.averages.after_step(self._bare_model(), progress.step)
            self.seen.append((logits, targets))
            losses.append(loss)
            progress.batch += 1
            progress.step += 1
            bar.update(self.recipe.batch_size)
            # Gradients that still wait for others are in no checkpoint, and processes have clocks of their own.
            due = self.accelerator.num_processes == 1 and self.accelerator.sync_gradients and self._save_is_due()
            if due or progress.batch % LOOK_AT_LOSS_EVERY == 0 or progress.batch == self.batches:
                self._check(losses, bar)
                losses = losses[-1:]
            if due:
                self.save()
        bar.close()
        columns = self.accelerator.gather(self._seen_columns())
        self.seen = []
        return epoch_figures(*columns)

    def _set_lr(self, over: float) -> None:
        """The rate where this share of the phase is over."""
        factor = self.schedule.factor_at(self.pace.planned * min(over, 1.0))
        set_rate(self.optimizer, self.base_lr * factor)

    def _check(self, losses: list[Tensor], bar: tqdm) -> None:
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            kept = latest_checkpoint(self.output / "checkpoints")
            raise TrainingDiverged(
                f"the loss became {mean} in epoch {self.progress.epoch + 1}; the last good state is "
                f"{kept.name if kept else 'the start'}: lower optimizer.lr or set optimizer.clip_norm"
            )
        bar.set_postfix(loss=f"{mean:.3f}", refresh=False)

    def _after_epoch(self, train_figures: dict[str, float], pictures: int, seconds: float) -> None:
        progress = self.progress
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.phase_epochs[progress.phase] += 1
        progress.seconds += seconds
        self.averages.after_epoch(self._bare_model(), progress.epoch)
        judged = self.averages.evaluated(self._bare_model())
        share_statistics(self.accelerator, judged)
        figures = self._judge(judged)
        score = self._score(figures)
        self.schedule.after_epoch(score)
        line = {
            "epoch": progress.epoch,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": round(seconds, 2),
            "images_per_second": round(pictures / seconds, 1),
            **{f"train_{name}": value for name, value in train_figures.items()},
            **{f"validation_{name}": value for name, value in figures.items()},
        }
        self._report(line)
        if score > progress.best_score:
            progress.best_score, progress.best_epoch = score, progress.epoch - 1
            self._keep_best(judged)
        # On a GPU an epoch may take a second, and its checkpoint as long.
        if self._save_is_due() or self.accelerator.num_processes > 1:
            self.save()

    def _judge(self, model: nn.Module) -> dict[str, float]:
        logits = predict_logits(self.accelerator, model, self.validation, self.normalize, 2 * self.recipe.batch_size)
        return epoch_figures(logits, self.validation.targets)

    def _score(self, figures: dict[str, float]) -> float:
        """What the kept model has the most of; the last one has the most epochs."""
        if self.recipe.select == "last":
            return self.progress.epoch
        return -figures["loss"] if self.recipe.select == "loss" else figures[self.recipe.select]

    def _keep_best(self, model: nn.Module) -> None:
        if self.accelerator.is_main_process:
            self.on_best(model)
        self.accelerator.wait_for_everyone()

    def _report(self, line: dict) -> None:
        self.accelerator.log({k: v for k, v in line.items() if k != "epoch"}, step=line["epoch"])
        if not self.accelerator.is_main_process:
            return
        with (self.output / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
            log.flush()
            os.fsync(log.fileno())
        names = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "validation_macro_f1")
        figures = ", ".join(f"{name.replace('_', ' ')} {line[name]:.4f}" for name in names)
        tqdm.write(f"epoch {line['epoch']}: {figures}, {line['images_per_second']:.0f} images/s")

    def _finish_swa(self) -> None:
        """Judge the averaged weights, with batch norms of their own, and keep them if they are the best."""
        model = self.averages.swa.module
        self.sampler.begin_epoch(self.recipe.epochs)
        recompute_batch_norms(model, (self.normalize(self.train_data.fetch(batch)[0]) for batch in self.loader))
        share_statistics(self.accelerator, model)
        score = self._score(self._judge(model))
        self.accelerator.print(f"averaged weights of the last epochs: {self.recipe.select} {abs(score):.4g}")
        if score > self.progress.best_score or self.recipe.select == "last":
            self.progress.best_score, self.progress.best_epoch = score, self.progress.epoch - 1
            self._keep_best(model)
