// Clouds that can be turned: every element ".cloud-view" holds its cloud as JSON. No library, no network.
"use strict";
(() => {
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  function start(box) {
    const cloud = JSON.parse(box.querySelector("script").textContent);
    const raw = new Uint16Array(bytes(cloud.coord).buffer);
    const count = raw.length / 3;
    const place = new Float32Array(raw.length);
    for (let i = 0; i < raw.length; i++) place[i] = (raw[i] / 65535 - 0.5) * cloud.size[i % 3];
    const facing = cloud.normal ? new Int8Array(bytes(cloud.normal).buffer) : null;
    const layers = cloud.layers.map((layer) => paint(layer, count));
    const radius = Math.hypot(...cloud.size) / 2 || 1;

    const canvas = box.querySelector("canvas");
    const context = canvas.getContext("2d");
    const look = { turn: 0.6, tilt: 0.75, zoom: 1, layer: 0, inside: Boolean(facing) };
    let waiting = false;

    function draw() {
      waiting = false;
      const width = Math.max(1, Math.round(canvas.clientWidth));
      const height = Math.max(1, Math.round(canvas.clientHeight));
      if (canvas.width !== width || canvas.height !== height) {
        canvas.width = width;
        canvas.height = height;
      }
      const image = context.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      const depth = new Float32Array(width * height).fill(-Infinity);
      const colors = layers[look.layer];
      const [cosT, sinT] = [Math.cos(look.turn), Math.sin(look.turn)];
      const [cosP, sinP] = [Math.cos(look.tilt), Math.sin(look.tilt)];
      const scale = (0.48 * Math.min(width, height * 1.15) * look.zoom) / radius;
      const dot = Math.max(1, Math.min(12, Math.round(scale * Math.sqrt((6 * radius * radius) / count) * 0.95)));
      for (let i = 0; i < count; i++) {
        const [x, y, z] = [place[3 * i], place[3 * i + 1], place[3 * i + 2]];
        const ahead = sinT * x + cosT * y;
        if (look.inside) {
          const near = -cosP * (sinT * facing[3 * i] + cosT * facing[3 * i + 1]) + sinP * facing[3 * i + 2];
          if (near < -20) continue;
        }
        const near = -cosP * ahead + sinP * z;
        const left = Math.round(width / 2 + scale * (cosT * x - sinT * y) - dot / 2);
        const top = Math.round(height / 2 - scale * (sinP * ahead + cosP * z) - dot / 2);
        for (let row = Math.max(top, 0); row < Math.min(top + dot, height); row++) {
          for (let column = Math.max(left, 0); column < Math.min(left + dot, width); column++) {
            const pixel = row * width + column;
            if (near > depth[pixel]) {
              depth[pixel] = near;
              pixels[pixel] = colors[i];
            }
          }
        }
      }
      context.putImageData(image, 0, 0);
    }

    function change(parts) {
      Object.assign(look, parts);
      look.tilt = Math.max(-1.57, Math.min(1.57, look.tilt));
      look.zoom = Math.max(0.3, Math.min(20, look.zoom));
      if (!waiting) {
        waiting = true;
        requestAnimationFrame(draw);
      }
    }

    const fingers = new Map();
    canvas.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      canvas.setPointerCapture(event.pointerId);
    });
    for (const end of ["pointerup", "pointercancel"])
      canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const spread = () => {
        const [a, b] = [...fingers.values()];
        return Math.hypot(a[0] - b[0], a[1] - b[1]);
      };
      const was = fingers.size === 2 ? spread() : 0;
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (fingers.size === 2) change({ zoom: (look.zoom * spread()) / Math.max(was, 1) });
      else
        change({
          turn: look.turn + (event.clientX - before[0]) / 120,
          tilt: look.tilt + (event.clientY - before[1]) / 120,
        });
    });
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (document.activeElement !== canvas) return; // the page scrolls until the cloud is clicked
        event.preventDefault();
        change({ zoom: look.zoom * Math.exp(-event.deltaY / 500) });
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => {
      const moves = {
        ArrowLeft: { turn: look.turn - 0.1 },
        ArrowRight: { turn: look.turn + 0.1 },
        ArrowUp: { tilt: look.tilt + 0.1 },
        ArrowDown: { tilt: look.tilt - 0.1 },
        "+": { zoom: look.zoom * 1.15 },
        "-": { zoom: look.zoom / 1.15 },
      };
      if (!(event.key in moves) || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      change(moves[event.key]);
    });
    const buttons = [...box.querySelectorAll("button[data-layer]")];
    for (const button of buttons)
      button.addEventListener("click", () => {
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
        change({ layer: Number(button.dataset.layer) });
      });
    const inside = box.querySelector("button[data-inside]");
    if (inside)
      inside.addEventListener("click", () => {
        change({ inside: !look.inside });
        inside.setAttribute("aria-pressed", String(look.inside));
      });
    new ResizeObserver(() => change({})).observe(canvas);
    draw();
  }

  // One 32-bit colour per point: alpha, blue, green, red in the order of the machine's bytes.
  function paint(layer, count) {
    const data = bytes(layer.data);
    const palette = layer.palette ? bytes(layer.palette) : data;
    const result = new Uint32Array(count);
    for (let i = 0; i < count; i++) {
      const at = 3 * (layer.palette ? data[i] : i);
      result[i] = (255 << 24) | (palette[at + 2] << 16) | (palette[at + 1] << 8) | palette[at];
    }
    return result;
  }

  const run = () => document.querySelectorAll(".cloud-view").forEach(start);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", run);
  else run();
})();
