"""How a comparison was measured, and what its columns mean."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from tokenmix.report.page import facts, scroll_box
from tokenmix.report.reading import Comparison, dig, mapping, number, sequence
from tokenmix.runtime_names import runtime_name


def protocol_html(comparison: Comparison) -> str:
    """The command that reproduces the run, data, budget, recipe, machine, versions and files."""
    raw = comparison.raw
    parts = []
    if raw.get("command"):
        parts.append(
            f'<h3>Reproduce</h3><div class="command"><pre id="command">{escape(str(raw["command"]))}</pre>'
            '<button type="button" class="copy" data-copy="command">Copy</button></div>'
        )
    parts += [
        '<div class="parts">',
        part("Comparison", _budget(comparison)),
        part("Data", _data(comparison)),
        part("Recipe", flat(mapping(raw.get("recipe")))),
        part("Machine", flat({key: value for key, value in mapping(raw.get("machine")).items() if key != "versions"})),
        part("Versions", flat(mapping(raw.get("versions") or dig(raw, "machine", "versions")))),
        "</div>",
        _files(comparison),
    ]
    return "".join(parts)


def part(heading: str, pairs: list[tuple[str, str]]) -> str:
    """A heading with its facts, or nothing where there is none."""
    return f"<div><h3>{heading}</h3>{facts(pairs)}</div>" if pairs else ""


def _budget(comparison: Comparison) -> list[tuple[str, str]]:
    raw = comparison.raw
    pairs = [("skeleton", raw.get("skeleton")), ("seeds", ", ".join(map(str, sequence(raw.get("seeds")))))]
    match = {
        "params": "widths adjusted so that all mixers have about the parameters of the first",
        "macs": "widths adjusted so that all mixers have about the MACs of the first",
    }.get(str(raw.get("match")), "same widths for all mixers")
    pairs.append(("matched", match if "match" in raw else None))
    pairs.append(("runtimes", ", ".join(map(runtime_name, comparison.runtimes))))
    pairs.append(("batch sizes", ", ".join(comparison.batches)))
    pairs += [("threads", raw.get("threads")), ("created", raw.get("created"))]
    return [(term, escape(str(value))) for term, value in pairs if value]


def _data(comparison: Comparison) -> list[tuple[str, str]]:
    data = mapping(comparison.raw.get("data"))
    pairs = [("name", escape(str(data["name"])))] if data.get("name") else []
    for key, term in (("train", "training images"), ("val", "validation images"), ("test", "test images")):
        count = number(data.get(key))
        if count is not None:
            pairs.append((term, f"{count:,.0f}"))
    if comparison.classes:
        names = ", ".join(comparison.classes)
        text = escape(names)
        if len(comparison.classes) > 20:
            text = f"<details><summary>{len(comparison.classes)}</summary>{text}</details>"
        pairs.append(("classes", text))
    if data.get("image_size"):
        pairs.append(("image size", escape(_pixels(data["image_size"]))))
    skipped = [mapping(entry) for entry in sequence(data.get("skipped"))]
    if "skipped" in data:
        pairs.append(("skipped files", _skipped(skipped)))
    return pairs


def _skipped(skipped: list[Mapping[str, Any]]) -> str:
    if not skipped:
        return "none"
    items = "".join(
        f"<li><code>{escape(str(entry.get('name')))}</code>: {escape(str(entry.get('reason')))}</li>"
        for entry in skipped
    )
    return f"<details><summary>{len(skipped):,}</summary><ul>{items}</ul></details>"


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as term and text, those without a value left out."""
    pairs = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{key}.")
        elif value is not None and value != "" and value != []:
            pairs.append((f"{prefix}{key}".replace("_", " "), escape(_value(value))))
    return pairs


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value))
    return str(value)


def _pixels(size: Any) -> str:
    """An image size, one number or height and width, in words."""
    return " × ".join(_value(side) for side in sequence(size) or [size]) + " pixels"


def _files(comparison: Comparison) -> str:
    lines = []
    for row in comparison.rows:
        files = mapping(row.entry.get("files"))
        names = " ".join(f"<code>{escape(str(name))}</code>" for name in files.values())
        hash_ = row.entry.get("weights_sha256")
        agreement = number(row.entry.get("onnx_top1_agreement"))
        agreed = "" if agreement is None else f"{agreement:.4g} %"
        if names or hash_:
            code = f"<code>{escape(str(hash_)[:16])}</code>" if hash_ else ""
            lines.append(
                f"<tr><td>{escape(row.name)}</td><td>{names}</td><td>{code}</td><td class=number>{agreed}</td></tr>"
            )
    if not lines:
        return ""
    head = "".join(f"<th scope=col>{name}</th>" for name in ("Mixer", "Files", "SHA-256 of the weights (start)"))
    head += '<th scope="col" class="number">ONNX, same top-1</th>'
    table = f'<table class="pairs files"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f"<h3>Files, beside this page</h3>{scroll_box(table, 'Files')}"


def definitions_html(comparison: Comparison) -> str:
    """What each column means and how it was obtained."""
    size = dig(comparison.raw, "data", "image_size")
    at = f" at {_pixels(size)}" if size else ""
    pairs = [
        (
            "test top-1",
            "Share of the test images whose most likely class is the true one, with the weights that were best on the "
            "validation images. The test images played no part in training or choosing. Small print: 95 % interval by "
            "Wilson's formula, for the choice of the test images. ±: sample standard deviation over seeds. “Cannot "
            "tell apart”: the 95 % interval of the difference holds zero (Newcombe's, for independent samples; both "
            "see the same images, so it is careful rather than sharp), or the difference is within the seeds' spread.",
        ),
        ("params", "Trainable parameters, in millions, of the model as it is trained, classifier included."),
        (
            "MACs",
            f"Multiply-accumulates for one image{at}, in millions; 1 MAC is one multiplication and one "
            "addition. Counted on the model as it is trained: convolutions, linear layers and matrix products, "
            "attention's two among them.",
        ),
        (
            "FFT/DCT",
            "Fourier and cosine transforms, which MAC counters overlook, by their usual operation counts (a fast 2-D "
            "transform of C channels: 1.25 H W log₂(H W) C). To be added to the MACs.",
        ),
        (
            "latency",
            "Median time of one batch, after branches that can be merged are merged. All mixers and runtimes take "
            "turns in random order within the same rounds, so that a machine that drifts hurts all alike. Small print: "
            "95 % bootstrap interval of that median.",
        ),
        ("images/s", "Batch size divided by the median latency."),
        (
            "peak memory",
            "Of PyTorch at batch 1. On a CPU: the largest resident size of a fresh process that loads and runs the "
            "model, less its size before that. On a GPU: the most memory allocated. MB are 10⁶ bytes.",
        ),
        (
            "ONNX max error",
            "Largest absolute difference of any output (logit) between ONNX Runtime and PyTorch, on real images. In "
            "the exported model, Fourier and cosine transforms are matrix products.",
        ),
        (
            "several seeds",
            "Top-1 is the mean over the seeds. Curves, confusion matrix, samples, files and speeds are those of the "
            "seed that was best on the validation images.",
        ),
        (
            "seconds",
            "Wall-clock time of training: all epochs of all seeds with their validation, on the machine above.",
        ),
        (
            "Pareto front",
            "The mixers that no other one beats: none is at least as accurate and at least as fast, and better in one "
            "of both. Computed from the measured values; intervals do not enter.",
        ),
    ]
    return facts([(term, escape(text)) for term, text in pairs])
