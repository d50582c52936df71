"""Losses against hand-computed values, and the shape of every schedule."""

import math

import pytest
import torch

from training.distillation import distillation_loss
from training.losses import ExpressionLoss, LossRecipe, class_weights
from training.schedules import Schedule, ScheduleRecipe

LOGITS = torch.tensor([[math.log(3.0), 0.0]])  # probabilities 3/4 and 1/4


def loss_of(recipe: LossRecipe, target: list[float], weights=(1.0, 1.0)) -> float:
    return float(ExpressionLoss(recipe, torch.tensor(weights))(LOGITS, torch.tensor([target])))


def test_cross_entropy_of_hard_soft_and_smoothed_targets():
    assert loss_of(LossRecipe(), [1, 0]) == pytest.approx(-math.log(0.75))
    assert loss_of(LossRecipe(), [0.5, 0.5]) == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)
    smoothed = -(0.9 * math.log(0.75) + 0.1 * math.log(0.25))
    assert loss_of(LossRecipe(label_smoothing=0.2), [1, 0]) == pytest.approx(smoothed)


def test_focal_loss_scales_by_what_is_left_and_weights_scale_classes():
    assert loss_of(LossRecipe(focal_gamma=2), [1, 0]) == pytest.approx(-(0.25**2) * math.log(0.75))
    assert loss_of(LossRecipe(), [1, 0], weights=(3.0, 1.0)) == pytest.approx(-3 * math.log(0.75))


def test_logit_temperature_sharpens():
    p = 9 / 10  # 3² / (3² + 1)
    assert loss_of(LossRecipe(logit_temperature=0.5), [1, 0]) == pytest.approx(-math.log(p))


def test_class_weights_average_to_one_over_the_samples():
    targets = torch.eye(2)[[0, 0, 0, 1]]
    inverse = class_weights(targets, LossRecipe(class_weights="inverse"))
    assert inverse.tolist() == pytest.approx([4 / 6, 2.0])
    effective = class_weights(targets, LossRecipe(class_weights="effective", effective_beta=0.5))
    raw = [0.5 / (1 - 0.5**3), 0.5 / (1 - 0.5)]
    scale = 4 / (3 * raw[0] + raw[1])
    assert effective.tolist() == pytest.approx([raw[0] * scale, raw[1] * scale])
    with pytest.raises(ValueError, match=r"classes \[1\] have none"):
        class_weights(torch.eye(2)[[0, 0]], LossRecipe(class_weights="inverse"))


def test_distillation_is_least_where_student_and_teacher_agree():
    same = float(distillation_loss(LOGITS, LOGITS, 2.0))
    assert same < float(distillation_loss(LOGITS.flip(1), LOGITS, 2.0))
    p = torch.softmax(LOGITS / 2, 1)
    assert same == pytest.approx(float(-(p * p.log()).sum()) * 4)


def test_warm_up_then_cosine():
    schedule = Schedule(ScheduleRecipe("cosine", warmup_epochs=2, floor=0.1), epochs=10)
    assert [schedule.factor_at(e) for e in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.5, 1, 0.55, 0.1])


def test_steps_and_constant():
    schedule = Schedule(ScheduleRecipe("step", step_epochs=(3, 5), factor=0.1), epochs=10)
    assert [schedule.factor_at(e) for e in (0, 3, 5)] == pytest.approx([1, 0.1, 0.01])
    assert Schedule(ScheduleRecipe("constant"), epochs=4).factor_at(3.5) == 1


def test_plateau_falls_after_patience_and_not_below_its_floor():
    schedule = Schedule(ScheduleRecipe("plateau", patience=1, factor=0.5, floor=0.3), epochs=10)
    factors = []
    for score in (0.5, 0.4, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6):
        schedule.after_epoch(score)
        factors.append(schedule.factor_at(1))
    assert factors == [1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3]
