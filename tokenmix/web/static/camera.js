// The camera: one frame at a time, the next when the former is answered.

const REASONS = {
  NotAllowedError: "The camera was not allowed. Allow it for this page in the browser’s settings, and try again.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera is used by another program.",
};

export function camera({ video, button, frame, problem, ready, running }) {
  let stream = null;

  function show(on) {
    button.textContent = on ? "Stop camera" : "Start camera";
    button.setAttribute("aria-pressed", String(on));
    running(on);
  }

  function stop() {
    if (!stream) return;
    for (const track of stream.getTracks()) track.stop();
    stream = null;
    video.srcObject = null;
    show(false);
  }

  async function start() {
    problem();
    if (!ready()) return problem("The model is not ready yet.");
    if (!navigator.mediaDevices?.getUserMedia) {
      return problem("The camera works only on https pages and on localhost.");
    }
    button.disabled = true;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 640 } }, audio: false });
      stream.getVideoTracks()[0].addEventListener("ended", stop);
      video.srcObject = stream;
      await video.play();
      show(true);
    } catch (error) {
      stop();
      return problem(REASONS[error.name] ?? `The camera did not start: ${error.message}`);
    } finally {
      button.disabled = false;
    }
    const own = stream;
    while (stream === own) {
      const answered = await frame(await createImageBitmap(video));
      if (!answered) break;
      await new Promise(requestAnimationFrame);
    }
  }

  button.addEventListener("click", () => (stream ? stop() : start()));
  return { stop };
}
