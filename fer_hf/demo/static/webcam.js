// The Webcam tab: a camera's pictures sent one after the other, boxes and a timeline drawn over the live video.

// Okabe and Ito's colours, told apart without colour vision; the eighth is for contempt.
const COLOURS = ["#d55e00", "#8a6d00", "#9b59b6", "#009e73", "#0072b2", "#e69f00", "#64748b", "#cc79a7"];
const SHOWN_S = 20;

function webcamTab(element, server) {
  const root = element.querySelector(".fer");
  const part = (name) => root.querySelector(`[data-live="${name}"]`);
  const live = root.querySelector(".fer-live");
  const video = live.querySelector("video");
  const state = {
    running: false, paused: false, settled: false, stream: "", best: null, shown: 0, looks: [], lag: 0,
    classes: "", history: [],
  };

  const setButtons = () => {
    part("start").hidden = state.running;
    part("pause").hidden = part("stop").hidden = !state.running;
    part("pause").textContent = state.paused ? "Go on" : "Pause";
    live.hidden = !state.running;
    root.querySelector(".fer-placeholder").hidden = state.running;
  };

  const stop = (error = "") => {
    for (const track of video.srcObject ? video.srcObject.getTracks() : []) track.stop();
    video.srcObject = null;
    if (state.stream) server.close(state.stream).catch(() => {});
    Object.assign(state, { running: false, paused: false, settled: false, stream: "", history: [] });
    root.querySelector(".fer-legend").replaceChildren();
    root.querySelector(".fer-speed").textContent = "";
    say(root, error);
    setButtons();
  };

  let asking = false;
  const start = async () => {
    if (asking || video.srcObject) return;
    asking = true;
    let gone = false;
    say(root);
    try {
      const wanted = { video: { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "user" } };
      video.srcObject = await navigator.mediaDevices.getUserMedia(wanted);
      whenUnplugged(video.srcObject, (reason) => {
        gone = true;
        stop(reason);
      });
      await video.play();
    } catch (error) {
      if (!gone) stop(cameraTrouble(error));
      return;
    } finally {
      asking = false;
    }
    Object.assign(state, { running: true, stream: crypto.randomUUID(), history: [], looks: [] });
    setButtons();
    countFrames(video, state);
    lookOn();
  };

  const lookOn = async () => {
    const stream = state.stream;
    const canvas = document.createElement("canvas");
    let failed = 0;
    while (state.running && state.stream === stream) {
      // A paused picture is looked at once more, so that its boxes stand where the faces are.
      if (state.settled || document.hidden || root.offsetParent === null) {
        await pause(100);
        continue;
      }
      const settling = state.paused;
      const grabbed = performance.now();
      const blob = await grab(video, canvas);
      const file = new File([blob], "frame.jpg");
      const answer = await call(server.look, { file, stream, model: chosenModel() });
      if (!state.running || state.stream !== stream) return;
      if (answer.error && (!isPassing(answer.error) || failed === RETRIES)) return stop(answer.error);
      if (answer.error) {
        say(root, "", "The server does not answer; trying again…");
        await pause(++failed * 1000);
        continue;
      }
      if (failed) say(root);
      failed = 0;
      const now = performance.now();
      state.lag = now - grabbed;
      state.looks.push(now);
      state.looks = state.looks.filter((time) => now - time < 2000);
      state.settled = settling && state.paused;
      drawLive(root, answer);
      remember(state, answer, now);
      drawTimeline(root, state, now);
      keepBest(root, state, answer, blob);
      root.dataset.looks = (Number(root.dataset.looks) || 0) + 1;
      root.querySelector(".fer-speed").textContent =
        `${state.shown} frames/s shown · ${(state.looks.length / 2).toFixed(1)} looks/s · ` +
        `boxes ${Math.round(state.lag)} ms behind`;
    }
  };

  root.addEventListener("click", (event) => {
    const act = event.target.closest("button")?.dataset.live;
    if (act === "start") start();
    if (act === "stop") stop();
    if (act === "pause") {
      state.paused = !state.paused;
      state.settled = false;
      if (state.paused) video.pause();
      else video.play();
      setButtons();
    }
    if (act === "save" && state.best) save(state.best.blob, "best.jpg");
  });
  part("keep").addEventListener("change", () => {
    state.best = null;
    root.querySelector(".fer-best").hidden = true;
  });
  window.addEventListener("pagehide", () => stop());
}

function countFrames(video, state) {
  let times = [];
  const note = (now) => {
    times = [...times.filter((time) => now - time < 1000), now];
    state.shown = times.length;
    if (state.running) video.requestVideoFrameCallback(note);
  };
  video.requestVideoFrameCallback(note);
}

// The picture that goes to the server: at most 640 pixels wide, so that a fast camera costs no more than a slow one.
function grab(video, canvas) {
  const scale = Math.min(1, 640 / video.videoWidth);
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.8));
}

// The video is shown mirrored, as people know themselves, so the boxes are placed from the right.
function drawLive(root, { faces, size: [width, height] }) {
  const layer = root.querySelector(".fer-live-boxes");
  while (layer.children.length > faces.length) layer.lastChild.remove();
  while (layer.children.length < faces.length) {
    const box = document.createElement("div");
    box.className = "fer-live-box";
    box.append(document.createElement("span"));
    layer.append(box);
  }
  faces.forEach((face, number) => {
    const box = layer.children[number];
    const [x0, y0, x1, y1] = face.box;
    box.style.cssText = `right:${(100 * x0) / width}%;top:${(100 * y0) / height}%;` +
      `width:${(100 * (x1 - x0)) / width}%;height:${(100 * (y1 - y0)) / height}%`;
    box.firstChild.textContent = `${face.label} ${percent(face.score)}`;
  });
}

function remember(state, { faces }, now) {
  const classes = faces.length ? Object.keys(faces[0].scores).join() : "";
  if (classes && classes !== state.classes) Object.assign(state, { classes, history: [] });
  state.history = state.history.filter((entry) => now - entry.time < SHOWN_S * 1000);
  if (faces.length) state.history.push({ time: now, id: faces[0].id, scores: faces[0].scores });
}

function drawTimeline(root, state, now) {
  const canvas = root.querySelector(".fer-timeline");
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const last = state.history[state.history.length - 1];
  if (!last) return;
  const names = Object.keys(last.scores);
  const x = (time) => canvas.width * (1 - (now - time) / (SHOWN_S * 1000));
  const y = (score) => 4 + (canvas.height - 8) * (1 - score);
  names.forEach((name, number) => {
    pen.strokeStyle = COLOURS[number % COLOURS.length];
    pen.lineWidth = 3;
    pen.beginPath();
    let before = null;
    for (const entry of state.history) {
      const joined = before && entry.id === before.id && entry.time - before.time < 1500;
      pen[joined ? "lineTo" : "moveTo"](x(entry.time), y(entry.scores[name]));
      before = entry;
    }
    pen.stroke();
  });
  const legend = root.querySelector(".fer-legend");
  if (all(legend, "li").map((item) => item.textContent).join() !== names.join())
    legend.replaceChildren(...names.map((name, number) => {
      const item = document.createElement("li");
      item.style.setProperty("--colour", COLOURS[number % COLOURS.length]);
      item.textContent = name;
      return item;
    }));
}

function keepBest(root, state, { faces }, blob) {
  if (!root.querySelector('[data-live="keep"]').checked || !faces.length) return;
  if (state.best && state.best.score >= faces[0].score) return;
  const panel = root.querySelector(".fer-best");
  const image = panel.querySelector("img");
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
  panel.hidden = false;
  state.best = { blob, score: faces[0].score };
}
