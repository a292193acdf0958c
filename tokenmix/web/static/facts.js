// What is known of the model, from its manifest.
import { MOST } from "./enlarging.js";

const TASKS = { classification: "classification", segmentation: "semantic segmentation", detection: "object detection", instances: "instance segmentation", super_resolution: "super-resolution" };

function exactness(errors) {
  if (!errors) return null;
  if (errors.verified === false) return `not verified: ${errors.reason}`;
  const error = errors.relative_error ?? errors.max_error;
  const text = error === undefined ? "verified" : `${error.toExponential(1)} ${errors.relative_error === undefined ? "at most" : "relative"}`;
  return errors.images ? `${text}, on ${errors.images} pictures` : text;
}

const count = (n) => (n >= 1e5 ? `${(n / 1e6).toFixed(2)} M` : n?.toLocaleString("en"));

function size(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 1)} MB`;
}

export function facts(manifest, provider) {
  const [height, width] = manifest.preprocess.image_size;
  const open = manifest.preprocess.crop_mode === "none" && !Number.isInteger(manifest.input.shape[2]);
  const pairs = [
    ["Task", TASKS[manifest.task] ?? manifest.task],
    ["Head", manifest.head],
    ["Parameters", count(manifest.parameters)],
    ["File", `${manifest.file}, ${size(manifest.bytes)}`],
    ["Precision", manifest.precision],
    ["Input", open ? `any size up to ${MOST / 1e6} megapixel` : `${height} × ${width} pixels`],
    ["Classes", manifest.labels?.length],
    ["Difference from PyTorch", exactness(manifest.errors)],
    ["Licence of the weights", manifest.license],
    ["Runs on", provider],
    ["Written by", `tokenmix ${manifest.versions?.tokenmix ?? manifest.tokenmix}`],
  ];
  return pairs.filter(([, value]) => value !== undefined && value !== null && value !== "").map(([term, value]) => {
    const row = document.createElement("div");
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = term;
    dd.textContent = value;
    row.append(dt, dd);
    return row;
  });
}
