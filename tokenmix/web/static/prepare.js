// From a picture to the model's input, as the manifest says, and where the input's pixels lie in the picture.
import { MOST } from "./enlarging.js";
import { crop, resize } from "./resample.js";

const LONGEST = 16; // times the shorter side: of longer pictures only the middle is resized

// Python's round: halves go to the even neighbour.
export function roundEven(x) {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 ? low + 1 : low;
}

const upTo = (x, multiple) => Math.ceil(x / multiple) * multiple;

function middle(picture, height, width) {
  const top = roundEven((picture.height - height) / 2);
  const left = roundEven((picture.width - width) / 2);
  return { left, top, picture: crop(picture, left, top, height, width) };
}

// The picture at the manifest's size, and the scale and offset with which it came there.
function fitted(picture, { preprocess, input, postprocess }) {
  const multiple = postprocess.multiple ?? 1;
  const { crop_mode: mode, interpolation } = preprocess;
  const [height, width] = preprocess.image_size;
  let source = picture;
  let [left, top] = [0, 0];
  if (mode === "none") {
    const pixels = picture.width * picture.height;
    if (pixels > MOST) throw new Error(`the picture has ${(pixels / 1e6).toFixed(1)} megapixels, and this page enlarges at most ${MOST / 1e6}; larger ones: tokenmix upscale.`);
    return { picture, padded: [picture.height, picture.width], left, top, scaleX: 1, scaleY: 1 };
  }
  if (mode === "fit") {
    const [short, long] = [Math.min(height, width), Math.max(height, width)];
    const sides = [picture.height, picture.width];
    let factor = Math.min(short / Math.min(...sides), long / Math.max(...sides));
    // Of a file with fixed sizes none may be passed.
    input.shape.slice(2).forEach((limit, i) => { if (Number.isInteger(limit)) factor = Math.min(factor, limit / sides[i]); });
    const [h, w] = sides.map((side) => Math.max(1, roundEven(side * factor)));
    const result = resize(picture, h, w, interpolation);
    const padded = input.shape.slice(2).map((size, i) => (Number.isInteger(size) ? size : upTo(i ? w : h, multiple)));
    return { picture: result, padded, left, top, scaleX: picture.width / w, scaleY: picture.height / h };
  }
  const share = preprocess.crop_pct;
  const [least, wide] = [Math.floor(height / share), Math.floor(width / share)];
  const longest = LONGEST * Math.min(picture.width, picture.height);
  if (mode !== "squash" && Math.max(picture.width, picture.height) > longest) {
    ({ left, top, picture: source } = middle(picture, Math.min(picture.height, longest), Math.min(picture.width, longest)));
  }
  let size = [least, wide];
  if (mode !== "squash") {
    size = least * source.width >= wide * source.height
      ? [least, Math.max(wide, Math.floor((least * source.width) / source.height))]
      : [Math.max(least, Math.floor((wide * source.height) / source.width)), wide];
  }
  const cut = middle(resize(source, ...size, interpolation), height, width);
  const [scaleX, scaleY] = [source.width / size[1], source.height / size[0]];
  return { picture: cut.picture, padded: [height, width], left: left + cut.left * scaleX, top: top + cut.top * scaleY, scaleX, scaleY };
}

// {data, dims, frame}: the input (1, 3, H, W), and of it `frame`: the height and width that hold the picture, and how
// its pixels become the picture's: x * scaleX + left.
export function prepare(picture, manifest) {
  const { preprocess, input } = manifest;
  const inside = preprocess.inside ?? [];
  const whole = inside.includes("resize");
  const frame = whole
    ? { picture, padded: [picture.height, picture.width], left: 0, top: 0, scaleX: 1, scaleY: 1 }
    : fitted(picture, manifest);
  const [height, width] = frame.padded;
  const pixels = frame.picture;
  const bytes = input.dtype === "uint8";
  const plane = height * width;
  const data = new (bytes ? Uint8Array : Float32Array)(3 * plane);
  for (let channel = 0; channel < 3; channel++) {
    const mean = preprocess.mean[channel];
    const normal = inside.includes("normalize");
    const scale = normal ? 1 : Math.fround(1 / (255 * preprocess.std[channel]));
    const shift = normal ? 0 : Math.fround(-mean / preprocess.std[channel]);
    // Padding is zero after normalising: the mean colour before it.
    if (normal && plane > pixels.width * pixels.height) {
      data.fill(bytes ? roundEven(255 * mean) : 255 * mean, channel * plane, (channel + 1) * plane);
    }
    for (let y = 0; y < pixels.height; y++) {
      let from = y * pixels.width * 4 + channel;
      const start = channel * plane + y * width;
      for (let x = 0; x < pixels.width; x++, from += 4) data[start + x] = pixels.data[from] * scale + shift;
    }
  }
  const { left, top, scaleX, scaleY } = frame;
  return { data, dims: [1, 3, height, width], frame: { height: pixels.height, width: pixels.width, left, top, scaleX, scaleY } };
}
