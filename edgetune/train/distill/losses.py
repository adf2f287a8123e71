"""What a student loses by not answering as its teacher does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgetune.device.heads import Head, columns_of, targets_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetune.recipe import DistillRecipe

__all__ = ["Gather", "create_projector", "distillation_loss", "feature_loss"]

Gather = Callable[["torch.Tensor"], "torch.Tensor"]
"""From a process's rows `[n, C]` to those of all processes, one after the other, differentiably."""

# The length, in probability, below which a vector counts as having no direction. It bounds the gradient by its inverse.
SHORTEST = 1e-4


def distillation_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    targets: torch.Tensor,
    heads: Sequence[Head],
    recipe: DistillRecipe,
    *,
    weights: Sequence[float] = (),
    gather: Gather | None = None,
) -> torch.Tensor:
    """Return how far a student's answers are from its teacher's: the sum over heads, each the mean over images.

    A head with a single label is compared as `recipe.loss` says: by DIST, KL or DKD; a multi-label head by the KL divergence of
    each label's probability, mean over labels; a regression by the squared error, mean over values. `recipe.weight` is not
    applied here.

    Args:
        student: `[n, C]`, the heads' columns side by side; regressions in standard deviations of the train set.
        teacher: the same of the teacher; nothing is learnt through it.
        targets: `[n, T]`, NaN where not known; only DKD reads them, see there.
        heads: in the order of the columns.
        recipe: loss, temperature, and the weights of its parts.
        weights: of the heads, as in the labels' loss; all 1 if empty.
        gather: where a batch is spread over processes: DIST relates all of its images.

    Raises:
        ValueError: the loss is `features`, which `feature_loss` computes.
    """
    # Half precision has neither the range for logits over a small temperature nor the digits for correlations.
    student, teacher = student.float(), teacher.detach().float()
    total = student.new_zeros(())
    weights = weights or [1.0] * len(heads)
    for head, weight, columns, place in zip(heads, weights, columns_of(heads), targets_of(heads), strict=True):
        ours, theirs = student[:, columns], teacher[:, columns]
        if head.kind == "regression":
            part = (ours - theirs).square().mean()
        elif head.kind == "multi-label":
            part = _binary_kl(ours, theirs, recipe.used_temperature)
        elif recipe.loss == "kl":
            part = _kl(ours, theirs, recipe.used_temperature)
        elif recipe.loss == "dkd":
            part = _dkd(ours, theirs, targets[:, place.start], recipe)
        elif recipe.loss == "dist":
            part = _dist(ours, theirs, recipe, gather)
        else:
            raise ValueError(f"loss = {recipe.loss} does not compare logits")
        total = total + weight * part
    return total


def _kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return T² KL(softmax(t / T) || softmax(s / T)), mean over images (Hinton, Vinyals and Dean 2015, arXiv:1503.02531).

    T² keeps the gradient's size, which falls as 1 / T².
    """
    import torch.nn.functional as F

    ours, theirs = F.log_softmax(student / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def _binary_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return T² KL(sigmoid(t / T) || sigmoid(s / T)) of each label on its own, mean over images and labels.

    KL(p || q) = p (log p - log q) + (1 - p) (log(1 - p) - log(1 - q)), by logarithms of sigmoids, which never overflow.
    """
    import torch.nn.functional as F

    ours, theirs = student / temperature, teacher / temperature
    present = theirs.sigmoid() * (F.logsigmoid(theirs) - F.logsigmoid(ours))
    absent = (-theirs).sigmoid() * (F.logsigmoid(-theirs) - F.logsigmoid(-ours))
    return temperature**2 * (present + absent).mean()


def _dkd(student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor, recipe: DistillRecipe) -> torch.Tensor:
    """Return T² (alpha TCKD + beta NCKD), mean over images (decoupled distillation, Zhao et al. 2022, arXiv:2203.08679).

    TCKD is the KL divergence of the two probabilities "the target" and "another class"; NCKD that of all classes but the target
    among themselves. KL = TCKD + (1 - p) NCKD, with p the teacher's probability of the target, holds whichever class is called
    the target. So where no label is known, the teacher's own decision is the target.

    Args:
        student: `[n, C]`.
        teacher: `[n, C]`.
        targets: `[n]`, the class or NaN.
        recipe: alpha, beta and the temperature T.
    """
    import torch
    import torch.nn.functional as F

    target = torch.where(targets.isnan(), teacher.argmax(dim=1), targets.nan_to_num().long())[:, None]
    others = torch.arange(student.shape[1] - 1, device=student.device).expand(len(student), -1)
    others = others + (others >= target)
    parts = []
    for logits in (student / recipe.used_temperature, teacher / recipe.used_temperature):
        rest = logits.gather(1, others)
        pair = torch.cat([logits.gather(1, target), rest.logsumexp(dim=1, keepdim=True)], dim=1)
        parts.append((F.log_softmax(pair, dim=1), F.log_softmax(rest, dim=1)))
    target_part, other_part = (
        F.kl_div(ours, theirs, reduction="batchmean", log_target=True) for ours, theirs in zip(*parts, strict=True)
    )
    return recipe.used_temperature**2 * (recipe.alpha * target_part + recipe.beta * other_part)


def _dist(student: torch.Tensor, teacher: torch.Tensor, recipe: DistillRecipe, gather: Gather | None) -> torch.Tensor:
    """Return T² (beta inter + gamma intra) of DIST (Huang et al. 2022, arXiv:2205.10536; T² as in the code of its users).

    With the probabilities softmax(logits / T) `[n, C]` and Pearson's correlation r: inter is 1 - r of an image's probabilities,
    mean over images; intra is 1 - r of a class's probabilities over the images, mean over classes. So a student may be more or
    less certain than its teacher, as long as the relations are the same. Of one image, intra is a constant.
    """
    ours = (student / recipe.used_temperature).softmax(dim=1)
    theirs = (teacher / recipe.used_temperature).softmax(dim=1)
    inter = 1.0 - _correlation(ours, theirs).mean()
    if gather is not None:
        ours, theirs = gather(ours), gather(theirs)
    intra = 1.0 - _correlation(ours.T, theirs.T).mean()
    return recipe.used_temperature**2 * (recipe.beta * inter + recipe.gamma * intra)


def _correlation(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Return Pearson's correlation of each row of two tables: `[rows]`; 0 where a row does not vary."""
    ours, theirs = ours - ours.mean(dim=1, keepdim=True), theirs - theirs.mean(dim=1, keepdim=True)
    return (_direction(ours) * _direction(theirs)).sum(dim=1)


def _direction(rows: torch.Tensor) -> torch.Tensor:
    """Return each row over its length, x / sqrt(|x|² + ε²): unlike x / (|x| + ε), smooth at 0, where its slope is 1 / ε.

    A student whose head is all zeros gives equal probabilities: an ε as small as its rounding would blow up its first gradient.
    """
    return rows / (rows.square().sum(dim=1, keepdim=True) + SHORTEST**2).sqrt()


def create_projector(student_width: int, teacher_width: int, seed: int) -> nn.Linear:
    """Return the linear layer that takes a student's features to its teacher's space; it learns beside the student.

    Its `state_dict` belongs to the state of the run, its parameters to the optimizer; the finished network does without it.

    Args:
        student_width: of the student's pooled features.
        teacher_width: of the teacher's.
        seed: of its first weights.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(student_width, teacher_width)


def feature_loss(student: torch.Tensor, teacher: torch.Tensor, projector: nn.Module) -> torch.Tensor:
    """Return 1 - cos(P s, t), mean over images: half the squared distance of the two directions.

    The learnt projector P is the regressor of FitNets (Romero et al. 2015, arXiv:1412.6550), for the pooled features and their
    direction alone, as Chen et al. 2022 (arXiv:2210.15274) do: lengths differ from backbone to backbone.

    Args:
        student: pooled features `[n, F]`.
        teacher: pooled features `[n, G]`; nothing is learnt through them.
        projector: from `[n, F]` to `[n, G]`.
    """
    projected = projector(student).float()
    return 1.0 - (_direction(projected) * _direction(teacher.detach().float())).sum(dim=1).mean()
