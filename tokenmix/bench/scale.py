"""What training on many GPUs would take, from a few counted and assumed numbers: pure functions, no device needed.

Bytes are those that one process sends in one step, the mean over all processes. Collectives are rings, whose bytes are
known exactly: an all-reduce of S bytes among W processes sends 2 (W - 1) / W S from each (Patarasuk and Yuan, 2009,
doi:10.1016/j.jpdc.2008.09.002), a gather, a reduce-scatter and a broadcast half as much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

SCALARS = 8  # bytes of the loss and of "stop", which the processes add up in every step
BUCKET = 25 * 2**20  # bytes of gradients that DistributedDataParallel sends at once


@dataclass(frozen=True)
class Work:
    """A model's training, as far as its scale depends on it.

    Args:
        weights: Bytes of all weights by their first dimension, which FSDP2 shares out; the gradients have as many.
        buffer_bytes: Of the running statistics and counters, which DDP sends before every forward pass.
        layers: Groups of weights that FSDP gathers one after the other.
        images_per_s: Of one GPU that is given enough images.
        shortest_step_s: Below which no step of one GPU falls, however few its images.
        checkpoint_bytes: Of the file to resume from.
    """

    weights: Mapping[int, float]
    buffer_bytes: float
    layers: int
    images_per_s: float
    shortest_step_s: float
    checkpoint_bytes: float

    @property
    def parameter_bytes(self) -> float:
        """Of all weights together."""
        return sum(self.weights.values())


@dataclass(frozen=True)
class Cluster:
    """Nodes of GPUs. Bytes per second are per GPU and direction.

    Args:
        gpus_per_node: GPUs that are joined by the fast links.
        link_bytes_per_s: Of these links.
        network_bytes_per_s: Of a GPU's share of the network between nodes.
        reached: Share of those rates that collectives reach.
        link_latency_s: Of one message within a node.
        network_latency_s: Of one message between nodes.
        hidden: Share of the backward pass that can hide sending; the backward pass is 2/3 of a step.
        cores_per_gpu: CPU cores that load images for one GPU.
        images_per_core_s: Decoded and augmented by one core.
        image_bytes: Of a stored image.
        write_bytes_per_s: Of the file system, when one process writes.
        checkpoint_every_s: Seconds between two checkpoints.
    """

    gpus_per_node: int = 8
    link_bytes_per_s: float = 450e9
    network_bytes_per_s: float = 50e9
    reached: float = 0.7
    link_latency_s: float = 5e-6
    network_latency_s: float = 10e-6
    hidden: float = 0.8
    cores_per_gpu: float = 14
    images_per_core_s: float = 100.0
    image_bytes: float = 110e3
    write_bytes_per_s: float = 1e9
    checkpoint_every_s: float = 60.0


@dataclass(frozen=True)
class Prediction:
    """What a number of GPUs would do.

    Args:
        step_s: Seconds of a step, its waits for data and for checkpoints included.
        compute_s: Of a step's computation.
        exposed_s: Of a step in which GPUs wait for the network.
        images_per_s: Of all GPUs together.
        efficiency: ``images_per_s`` as a share of what as many single, well-filled GPUs without a limit would do.
        sent_bytes: What one process sends in a step.
        cores_per_gpu: CPU cores that would keep a GPU busy.
        read_bytes_per_s: What one node reads from the data.
        checkpoint_share: Of the time, while one process writes and the others wait.
        limit: What takes most of the lost time: ``data``, ``network``, ``few images`` or ``checkpoints``.
    """

    step_s: float
    compute_s: float
    exposed_s: float
    images_per_s: float
    efficiency: float
    sent_bytes: float
    cores_per_gpu: float
    read_bytes_per_s: float
    checkpoint_share: float
    limit: str


def all_reduce_bytes(size: float, world: int) -> float:
    """Sent by each of ``world`` processes when ``size`` bytes are added over all, in a ring."""
    return 2 * (world - 1) / world * size


def gather_bytes(size: float, world: int) -> float:
    """Sent by each when ``size`` bytes, shared out among all, come together in all; as much for the way back.

    A broadcast of ``size`` bytes sends as much, in the mean over the processes.
    """
    return (world - 1) / world * size


def ddp_bytes(parameter_bytes: float, buffer_bytes: float, world: int) -> float:
    """Sent in a step of `DistributedDataParallel`: gradients are added, buffers sent out, two numbers added."""
    return all_reduce_bytes(parameter_bytes + SCALARS, world) + gather_bytes(buffer_bytes, world)


def padded_bytes(weights: Mapping[int, float], world: int) -> float:
    """Bytes of the weights as FSDP2 sends them: each first dimension filled up to a multiple of ``world``.

    With more processes than rows most of what is sent is filling.
    """
    return sum(size * math.ceil(first / world) * world / first for first, size in weights.items())


def fsdp_bytes(
    parameter_bytes: float, world: int, *, kept_bytes: float = 0.0, scatter_by_all_reduce: bool = False
) -> float:
    """Sent in a step of FSDP2: weights come together for both passes, gradients are added and shared out.

    Args:
        parameter_bytes: Of all weights together, see `padded_bytes`.
        world: Processes.
        kept_bytes: Of the weights in no layer of their own, which stay together from the first pass to the second.
        scatter_by_all_reduce: As gloo does it, which adds up everything everywhere; NCCL scatters.
    """
    scatter = all_reduce_bytes if scatter_by_all_reduce else gather_bytes
    return gather_bytes(2 * parameter_bytes - kept_bytes, world) + scatter(parameter_bytes, world)


def ring_seconds(sent_bytes: float, messages: int, cluster: Cluster, world: int) -> float:
    """Seconds until ``sent_bytes`` have gone from each process, in collectives of ``messages`` together.

    Between nodes the network is the narrow place. The delay of a collective grows with the GPUs of a node and with the
    logarithm of the number of nodes, as in NCCL's trees.
    """
    nodes = math.ceil(world / cluster.gpus_per_node)
    rate = cluster.link_bytes_per_s if nodes == 1 else min(cluster.link_bytes_per_s, cluster.network_bytes_per_s)
    hops = 2 * (min(world, cluster.gpus_per_node) - 1)
    delay = hops * cluster.link_latency_s + 2 * math.ceil(math.log2(nodes)) * cluster.network_latency_s
    return sent_bytes / (rate * cluster.reached) + messages * delay


def predict(work: Work, cluster: Cluster, world: int, images_per_gpu: float, *, parallel: str = "ddp") -> Prediction:
    """What ``world`` GPUs do with ``images_per_gpu`` images per step on each.

    Args:
        work: The model.
        cluster: The machines.
        world: GPUs, one process each.
        images_per_gpu: Per step.
        parallel: ``ddp`` or ``fsdp``.
    """
    assert parallel in ("ddp", "fsdp")
    assert world >= 1
    assert images_per_gpu > 0
    ideal = images_per_gpu / work.images_per_s
    compute = max(ideal, work.shortest_step_s)
    if parallel == "ddp":
        gradients, buffers = all_reduce_bytes(work.parameter_bytes, world), gather_bytes(work.buffer_bytes, world)
        sent = ddp_bytes(work.parameter_bytes, work.buffer_bytes, world)
        buckets = math.ceil(work.parameter_bytes / BUCKET)
        behind = ring_seconds(gradients, buckets, cluster, world)
        before = ring_seconds(buffers + all_reduce_bytes(SCALARS, world), 2, cluster, world)
        last = behind / buckets  # the bucket of the first layers, after which there is nothing to hide behind
    else:
        sent = fsdp_bytes(padded_bytes(work.weights, world), world) + all_reduce_bytes(SCALARS, world)
        behind = ring_seconds(sent, 3 * work.layers, cluster, world)
        before = ring_seconds(0, 1, cluster, world)
        last = behind / (3 * work.layers)
    exposed = before + max(last, behind - cluster.hidden * compute * 2 / 3) if world > 1 else 0.0
    loading = images_per_gpu / (cluster.cores_per_gpu * cluster.images_per_core_s)
    waiting = max(0.0, loading - compute - exposed)
    writing = work.checkpoint_bytes / cluster.write_bytes_per_s
    share = writing / (writing + cluster.checkpoint_every_s)
    step = (compute + exposed + waiting) / (1 - share)
    lost = {
        "data": waiting,
        "network": exposed,
        "few images": compute - ideal,
        "checkpoints": step * share,
    }
    rate = images_per_gpu / step
    return Prediction(
        step_s=step,
        compute_s=compute,
        exposed_s=exposed,
        images_per_s=rate * world,
        efficiency=ideal / step,
        sent_bytes=sent,
        cores_per_gpu=work.images_per_s / cluster.images_per_core_s,
        read_bytes_per_s=rate * min(world, cluster.gpus_per_node) * cluster.image_bytes,
        checkpoint_share=share,
        limit=max(lost, key=lost.__getitem__),
    )
