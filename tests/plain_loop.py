"""A recipe trained by a plain PyTorch loop, written from what its keys are documented to mean and nothing else."""

import math

import torch
import torch.nn.functional as F


def rate(step, total, recipe, per_epoch):
    """The learning rate of a step from 0: a linear rise, of which the last step has ``lr``, then half a cosine."""
    warmup = round(recipe.schedule.warmup_epochs * per_epoch)
    if step < warmup:
        return recipe.optimizer.lr * (step + 1) / warmup
    share = (step - warmup) / (total - warmup)
    return recipe.schedule.min_lr + (recipe.optimizer.lr - recipe.schedule.min_lr) * (1 + math.cos(math.pi * share)) / 2


def train(model, recipe, train, val, orders, layer_of):
    """Losses of all steps, and per epoch the validation loss, top-1 in percent and state dict of the judged weights.

    ``train`` and ``val``: (images, labels). ``orders``: of the images, per epoch. ``layer_of(name)``: from 0 upwards.
    """
    depth = max(layer_of(name) for name, _ in model.named_parameters())
    groups = []
    for name, parameter in model.named_parameters():
        decay = 0.0 if parameter.ndim <= 1 or name.endswith("bias") else recipe.optimizer.weight_decay
        scale = (recipe.optimizer.layer_decay or 1.0) ** (depth - layer_of(name))
        groups.append({"params": [parameter], "weight_decay": decay, "scale": scale})
    if recipe.optimizer.name == "sgd":
        optimizer = torch.optim.SGD(groups, recipe.optimizer.lr, momentum=recipe.optimizer.momentum, nesterov=True)
    else:
        optimizer = torch.optim.AdamW(groups, recipe.optimizer.lr, betas=recipe.optimizer.betas)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    losses, epochs, per_epoch = [], [], len(train[0]) // recipe.run.batch_size  # the last partial batch is dropped
    for order in orders:
        model.train()
        for rows in order[: per_epoch * recipe.run.batch_size].split(recipe.run.batch_size):
            step = len(losses)
            for group in optimizer.param_groups:
                group["lr"] = rate(step, per_epoch * len(orders), recipe, per_epoch) * group["scale"]
            optimizer.zero_grad()
            losses.append(0.0)
            for part in rows.split(-(-len(rows) // recipe.run.accumulate)):
                logits = model(train[0][part])
                loss = F.cross_entropy(logits, train[1][part], label_smoothing=recipe.task.label_smoothing)
                (loss * (len(part) / len(rows))).backward()
                losses[-1] += loss.item() * len(part) / len(rows)
            if recipe.optimizer.clip_grad:
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_grad)
            optimizer.step()
            decay = min(recipe.optimizer.ema_decay, (1 + step) / (10 + step)) if recipe.optimizer.ema_decay else 0.0
            for name, value in model.state_dict().items():
                average[name] = decay * average[name] + (1 - decay) * value if value.is_floating_point() else value
        with torch.no_grad():
            logits = torch.func.functional_call(model.eval(), average, val[0])
        loss, top1 = F.cross_entropy(logits, val[1]).item(), (logits.argmax(1) == val[1]).double().mean().item() * 100
        epochs.append({"val_loss": loss, "val_top1": top1, "weights": {n: v.clone() for n, v in average.items()}})
    return losses, epochs
