"""A run: phases, epochs, averages, early stopping, checkpoints and the log. Resumes from any checkpoint."""

import json
import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from fer_hf.data.loaders import ArraySplit
from training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import OptimizerRecipe, Phase, Recipe
from training.engine import EpochSampler, Step, index_loader, mix_seed, predict_logits
from training.losses import ExpressionLoss, class_weights
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
    batch: int = 0  # finished batches of this epoch
    step: int = 0  # finished batches of the run
    best_score: float = -math.inf
    best_epoch: int = -1
    seconds: float = 0.0
    tally: dict = field(default_factory=dict)  # running sums of the epoch


def trainable_parameters(model: nn.Module, train_last: int | None) -> list[nn.Parameter]:
    """Freeze all but the last ``train_last`` leaf modules with parameters (all for None) and return what learns.

    A leaf module owns parameters and has no children; 0 leaves the last one, the classifier.
    """
    leaves = [m for m in model.modules() if not list(m.children()) and any(True for _ in m.parameters(recurse=False))]
    learning = leaves if train_last is None else leaves[-max(train_last, 1) :]
    chosen = {id(p) for module in learning for p in module.parameters(recurse=False)}
    # Parameters that belong to a module with children are frozen only together with everything else.
    for parameter in model.parameters():
        parameter.requires_grad_(train_last is None or id(parameter) in chosen)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def build_optimizer(parameters: list[nn.Parameter], recipe: OptimizerRecipe, lr: float) -> torch.optim.Optimizer:
    """The optimizer of a phase; parameters with one axis (norms, biases) are never decayed."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.name](groups, lr=lr)


def epoch_figures(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Loss, accuracy, macro precision, recall and F1, and one-vs-rest AUC of raw logits against distributions."""
    from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

    logits, targets = logits.float().cpu(), targets.float().cpu()
    truth, guess = targets.argmax(1).numpy(), logits.argmax(1).numpy()
    precision, recall, f1, _ = precision_recall_fscore_support(truth, guess, average="macro", zero_division=0)
    probabilities = logits.softmax(1).numpy()
    present = [k for k in range(logits.shape[1]) if 0 < (truth == k).sum() < len(truth)]
    auc = [roc_auc_score(truth == k, probabilities[:, k]) for k in present]
    return {
        "loss": float(nn.functional.cross_entropy(logits, targets)),
        "accuracy": float((truth == guess).mean()),
        "precision": float(precision),
        "recall": float(recall),
        "macro_f1": float(f1),
        "auc": float(np.mean(auc)) if auc else math.nan,
    }


class Run:
    """One training run in ``output``: ``train()`` goes from wherever the checkpoints are to the end.

    ``on_best(model)`` is called on the main process with the evaluated model whenever it is the best so far.
    """

    def __init__(
        self,
        recipe: Recipe,
        accelerator: Accelerator,
        model: nn.Module,
        normalize,
        train: ArraySplit,
        validation: ArraySplit,
        output: Path,
        on_best,
        teacher: nn.Module | None = None,
    ):
        self.recipe, self.accelerator, self.output, self.on_best = recipe, accelerator, output, on_best
        self.normalize, self.validation = normalize, validation.to(accelerator.device)
        self.train_data = train.to(accelerator.device)
        self.progress = Progress()
        self.plain_model = model.to(memory_format=torch.channels_last)
        self.teacher = None if teacher is None else teacher.to(accelerator.device).eval()
        self.weights = class_weights(self.train_data.targets, recipe.loss)
        sampling = None
        if recipe.data.weighted_sampling:
            labels = self.train_data.labels.cpu()
            sampling = 1.0 / torch.bincount(labels).clamp_min(1)[labels]
        self.sampler = EpochSampler(len(train), recipe.seed, sampling)
        self.batches = len(train) // recipe.batch_size
        if self.batches == 0:
            raise ValueError(f"batch_size {recipe.batch_size} is larger than the training set of {len(train)} pictures")
        self.loader = accelerator.prepare_data_loader(index_loader(len(train), recipe.batch_size, self.sampler))
        self.ema = self.swa = None
        self.phase_ready = -1

    # -- assembling a phase --------------------------------------------------------------------------------------------
    def _enter_phase(self, number: int) -> None:
        phase: Phase = self.recipe.phases[number]
        model = self.accelerator.unwrap_model(self.plain_model)
        self.base_lr = phase.lr or self.recipe.optimizer.lr
        parameters = trainable_parameters(model, phase.train_last)
        optimizer = build_optimizer(parameters, self.recipe.optimizer, self.base_lr)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.schedule = Schedule(self.recipe.schedule, phase.epochs)
        self.step = Step(
            accelerator=self.accelerator,
            model=self.model,
            loss=ExpressionLoss(self.recipe.loss, self.weights),
            optimizer=self.optimizer,
            data=self.train_data,
            normalize=self.normalize,
            augment=self.recipe.augment,
            clip_norm=self.recipe.optimizer.clip_norm,
            teacher=self.teacher,
            distill_weight=self.recipe.distill.weight,
            distill_temperature=self.recipe.distill.temperature,
        )
        model = self.accelerator.unwrap_model(self.model)
        if self.recipe.average.ema_decay and self.ema is None:
            self.ema = ModelEmaV3(model, decay=self.recipe.average.ema_decay, use_warmup=True)
        if self.recipe.average.swa_last and self.swa is None:
            self.swa = AveragedModel(model, use_buffers=False)
        self.phase_ready = number

    def _phase_start(self) -> int:
        return sum(phase.epochs for phase in self.recipe.phases[: self.progress.phase])

    # -- checkpoints ---------------------------------------------------------------------------------------------------
    def _state(self) -> dict:
        return {
            "progress": asdict(self.progress),
            "model": self.accelerator.unwrap_model(self.model).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state,
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "swa": None if self.swa is None else self.swa.state_dict(),
        }

    def save(self) -> None:
        """Write a checkpoint on the main process."""
        if self.accelerator.is_main_process:
            save_checkpoint(self.output / "checkpoints", self.progress.step, self._state())
        self.accelerator.wait_for_everyone()

    def resume(self) -> bool:
        """Go back to the newest checkpoint; False where there is none."""
        path = latest_checkpoint(self.output / "checkpoints")
        if path is None:
            return False
        state = load_checkpoint(path)
        self.progress = Progress(**state["progress"])
        self._enter_phase(self.progress.phase)
        self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.state = state["schedule"]
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        if self.swa is not None:
            self.swa.load_state_dict(state["swa"])
        self._trim_log()
        return True

    def _trim_log(self) -> None:
        """Drop log lines of epochs that the checkpoint does not know, so that none stands there twice."""
        log = self.output / "log.jsonl"
        if not (self.accelerator.is_main_process and log.exists()):
            return
        lines = [line for line in log.read_text().splitlines() if json.loads(line)["epoch"] <= self.progress.epoch]
        part = log.with_suffix(".part")
        part.write_text("".join(line + "\n" for line in lines))
        part.replace(log)

    # -- the loop ------------------------------------------------------------------------------------------------------
    def train(self) -> Progress:
        """Run to the end of the recipe, or to early stopping, and return where it ended."""
        if self.phase_ready < 0:
            self._enter_phase(self.progress.phase)
        while self.progress.epoch < self.recipe.epochs:
            if self.progress.epoch >= self._phase_start() + self.recipe.phases[self.progress.phase].epochs:
                self.progress.phase += 1
                self._enter_phase(self.progress.phase)
            started = time.perf_counter()
            train_figures = self._train_epoch()
            self._after_epoch(train_figures, time.perf_counter() - started)
            waited = self.progress.epoch - 1 - self.progress.best_epoch
            if self.recipe.early_stopping is not None and waited >= self.recipe.early_stopping:
                self.accelerator.print(f"stopping early: no better {self.recipe.select} for {waited} epochs")
                break
        if self.swa is not None:
            self._finish_swa()
        return self.progress

    def _train_epoch(self) -> dict[str, float]:
        progress, loader = self.progress, self.loader
        self.sampler.set_epoch(progress.epoch)
        if progress.batch:
            loader = self.accelerator.skip_first_batches(loader, progress.batch)
        self.model.train()
        parts, saved_at, losses = [], time.monotonic(), []
        bar = tqdm(
            total=self.batches * self.recipe.batch_size,
            initial=progress.batch * self.recipe.batch_size,
            desc=f"epoch {progress.epoch + 1}/{self.recipe.epochs}",
            unit="img",
            unit_scale=True,
            disable=not self.accelerator.is_main_process or None,
        )
        for rows in loader:
            self._set_lr()
            seed = mix_seed(self.recipe.seed, progress.epoch, progress.batch, self.accelerator.process_index)
            loss, logits, targets = self.step(rows, seed)
            if self.ema is not None and self.accelerator.sync_gradients:
                self.ema.update(self.accelerator.unwrap_model(self.model), step=progress.step)
            parts.append((logits, targets))
            losses.append(loss)
            progress.batch += 1
            progress.step += 1
            bar.update(self.recipe.batch_size)
            due = time.monotonic() - saved_at > CHECKPOINT_EVERY_S
            if due or progress.batch % LOOK_AT_LOSS_EVERY == 0 or progress.batch == self.batches:
                self._check(losses, bar)
                losses = losses[-1:]
            if due and self.accelerator.num_processes == 1:
                self.save()
                saved_at = time.monotonic()
        bar.close()
        logits, targets = (torch.cat(column) for column in zip(*parts, strict=True))
        return epoch_figures(*self.accelerator.gather_for_metrics((logits, targets)))

    def _set_lr(self) -> None:
        epoch = self.progress.epoch - self._phase_start() + self.progress.batch / self.batches
        for group in self.optimizer.param_groups:
            group["lr"] = self.base_lr * self.schedule.factor_at(epoch)

    def _check(self, losses: list[Tensor], bar: tqdm) -> None:
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            kept = latest_checkpoint(self.output / "checkpoints")
            raise TrainingDiverged(
                f"the loss became {mean} in epoch {self.progress.epoch + 1}; the last good state is "
                f"{kept.name if kept else 'the start'}: lower optimizer.lr or set optimizer.clip_norm"
            )
        bar.set_postfix(loss=f"{mean:.3f}", refresh=False)

    def evaluated_model(self) -> nn.Module:
        """The model whose validation counts: the average where the recipe keeps one."""
        return self.accelerator.unwrap_model(self.model) if self.ema is None else self.ema.module

    def _after_epoch(self, train_figures: dict[str, float], seconds: float) -> None:
        progress = self.progress
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.seconds += seconds
        if self.swa is not None and progress.epoch > self.recipe.epochs - self.recipe.average.swa_last:
            self.swa.update_parameters(self.accelerator.unwrap_model(self.model))
        figures = self._judge(self.evaluated_model())
        score = self._score(figures)
        self.schedule.after_epoch(score)
        line = {
            "epoch": progress.epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "seconds": round(seconds, 2),
            "images_per_second": round(self.batches * self.recipe.batch_size / seconds, 1),
            **{f"train_{name}": value for name, value in train_figures.items()},
            **{f"validation_{name}": value for name, value in figures.items()},
        }
        self._report(line)
        if score > progress.best_score:
            progress.best_score, progress.best_epoch = score, progress.epoch - 1
            self._keep_best(self.evaluated_model())
        self.save()

    def _judge(self, model: nn.Module) -> dict[str, float]:
        logits = predict_logits(self.accelerator, model, self.validation, self.normalize, 2 * self.recipe.batch_size)
        return epoch_figures(logits, self.validation.targets)

    def _score(self, figures: dict[str, float]) -> float:
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
        """Recompute batch norms for the averaged weights on one epoch of training data, and keep them if better."""
        model = self.swa.module
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
        model.train()
        self.sampler.set_epoch(self.recipe.epochs)
        with torch.no_grad():
            for rows in self.loader:
                model(self.normalize(self.train_data.images[rows.to(self.accelerator.device)]))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        score = self._score(self._judge(model))
        self.accelerator.print(f"averaged weights of the last epochs: {self.recipe.select} {score:.4f}")
        if score > self.progress.best_score:
            self.progress.best_score, self.progress.best_epoch = score, self.progress.epoch - 1
            self._keep_best(model)
