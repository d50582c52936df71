// What the tabs share: choosing pictures, showing results, attention and downloads. No framework, no request to others.
window.fer = (() => {
  "use strict";

  const all = (root, selector) => [...root.querySelectorAll(selector)];
  const BUSY = "The server did not answer; please try again in a moment.";

  // --- results -------------------------------------------------------------------------------------------------

  // Chooses a face of a result: marks its box and row, and shows its attention on the photo.
  function chooseFace(result, number) {
    result.dataset.face = number;
    for (const part of all(result, "[data-face]")) {
      const chosen = part.dataset.face === String(number);
      part.classList.toggle("fer-chosen", chosen);
      if (part.hasAttribute("aria-pressed")) part.setAttribute("aria-pressed", String(chosen));
    }
    const row = result.querySelector(".fer-face.fer-chosen");
    if (!row) return;
    const list = row.parentElement;
    if (list.scrollHeight > list.clientHeight) list.scrollTop = row.offsetTop - list.offsetTop - 8;
    const target = result.querySelector("[data-target]");
    if (target) target.value = row.dataset.target || row.dataset.label;
    showAttention(result);
  }

  // The maps of a row for an expression; asked of the server once, from the crop that the page already has.
  async function mapsOf(row, target, server) {
    const known = JSON.parse(row.dataset.maps);
    if (known[target] && known[target].length) return known[target];
    const crop = await (await fetch(row.querySelector(".fer-crop img").src)).blob();
    const answer = await call(server.attend, {
      file: new File([crop], "crop.png"),
      target,
      model: row.closest(".fer-result").dataset.model,
    });
    if (answer.error) throw new Error(answer.error);
    row.dataset.maps = JSON.stringify({ ...JSON.parse(row.dataset.maps), [target]: answer.maps });
    return answer.maps;
  }

  async function showAttention(result) {
    const row = result.querySelector(".fer-face.fer-chosen");
    const kind = result.querySelector("[data-kind]");
    if (!row || !kind) return;
    const target = result.querySelector("[data-target]").value;
    row.dataset.target = target;
    let maps;
    try {
      maps = await mapsOf(row, target, result.closest(".fer").ferServer);
    } catch (error) {
      say(result.closest(".fer"), error.message || BUSY);
      return;
    }
    if (kind.options.length !== maps.length + 1) {
      const wanted = kind.value;
      kind.replaceChildren(...maps.map((map) => new Option(map.title, map.name)), new Option("off", "off"));
      if (wanted) kind.value = wanted;
    }
    result.querySelector(".fer-target").hidden = kind.value !== "grad_cam";
    drawAttention(result, row, maps.find((map) => map.name === kind.value));
  }

  function drawAttention(result, row, map) {
    const isMap = map && map.kind === "map";
    for (const slot of all(result, ".fer-heat image")) {
      const here = isMap && slot.dataset.face === row.dataset.face;
      if (here) slot.setAttribute("href", map.url);
      else slot.removeAttribute("href");
    }
    const heat = row.querySelector(".fer-crop-heat");
    heat.hidden = !isMap;
    if (isMap) heat.src = map.url;
    const gates = row.querySelector(".fer-gates");
    gates.hidden = !map || isMap;
    if (map && !isMap) {
      gates.src = map.url;
      gates.alt = `${map.title}: one column a channel, brighter is wider open`;
    }
  }

  // Rows other than the chosen one show their own first map, so that a page of faces can be compared at a glance.
  function prepareResult(result) {
    for (const row of all(result, ".fer-face")) {
      const first = (JSON.parse(row.dataset.maps)[row.dataset.label] || []).find((map) => map.kind === "map");
      const heat = row.querySelector(".fer-crop-heat");
      heat.hidden = !first;
      if (first) heat.src = first.url;
    }
    if (result.querySelector(".fer-face")) chooseFace(result, 0);
  }

  // --- downloads -----------------------------------------------------------------------------------------------

  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function download(result, kind) {
    const record = JSON.parse(result.dataset.record);
    const stem = record.file.replace(/\.[^.]*$/, "") || "photo";
    if (kind === "json") save(new Blob([JSON.stringify(record, null, 2)], { type: "application/json" }), `${stem}.json`);
    if (kind === "csv") save(new Blob([result.dataset.csv], { type: "text/csv" }), `${stem}.csv`);
    if (kind === "png") drawPicture(result, record).toBlob((blob) => save(blob, `${stem}-faces.png`), "image/png");
  }

  function drawPicture(result, record) {
    const photo = result.querySelector(".fer-stage img");
    const canvas = document.createElement("canvas");
    canvas.width = photo.naturalWidth;
    canvas.height = photo.naturalHeight;
    const pen = canvas.getContext("2d");
    pen.drawImage(photo, 0, 0);
    const scale = canvas.width / record.width;
    for (const face of record.faces) {
      const { xmin, ymin, xmax, ymax } = face.box;
      const [x, y, w, h] = [xmin * scale, ymin * scale, (xmax - xmin) * scale, (ymax - ymin) * scale];
      pen.lineWidth = Math.max(2, canvas.width / 320);
      pen.strokeStyle = "#0d9488";
      pen.strokeRect(x, y, w, h);
      const size = Math.min(Math.max(w / 5, 10), canvas.width / 36);
      pen.font = `600 ${size}px system-ui, sans-serif`;
      const text = `${face.between.join(" / ")} ${Math.round(face.score * 100)} %`;
      const wide = pen.measureText(text).width + size * 0.6;
      const left = Math.max(Math.min(x, canvas.width - wide), 0);
      const top = y > size * 1.4 ? y - size * 1.4 : y;
      pen.fillStyle = "#0d9488";
      pen.fillRect(left, top, wide, size * 1.4);
      pen.fillStyle = "#fff";
      pen.fillText(text, left + size * 0.3, top + size * 1.05);
    }
    return canvas;
  }

  // Everything inside results is handled here, by delegation, because results come and go.
  function listenToResults(root) {
    root.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      const result = event.target.closest(".fer-result");
      if (!result || !button) return;
      if (button.dataset.face !== undefined) chooseFace(result, Number(button.dataset.face));
      if (button.dataset.save) download(result, button.dataset.save);
    });
    root.addEventListener("change", (event) => {
      if (event.target.matches("[data-kind], [data-target]")) showAttention(event.target.closest(".fer-result"));
    });
    root.addEventListener("input", (event) => {
      if (event.target.matches("[data-opacity]"))
        event.target.closest(".fer-result").style.setProperty("--heat", event.target.value / 100);
    });
  }

  // --- talking to the server -----------------------------------------------------------------------------------

  async function call(method, data) {
    try {
      const answer = await method({ binary: true, data: { binary: true, ...data } });
      return answer && typeof answer === "object" ? answer : { error: BUSY };
    } catch {
      return { error: BUSY };
    }
  }

  // The model that the Model tab chose for this page; empty for the server's own.
  const chosenModel = () => document.documentElement.dataset.ferModel || "";

  function tooLarge(root, file) {
    const maxBytes = Number(root.dataset.maxBytes);
    if (file.size <= maxBytes) return false;
    say(root, `This file is ${Math.ceil(file.size / 1e6)} MB; at most ${maxBytes / 1e6} MB are taken.`);
    return true;
  }

  function say(root, error = "", progress = "") {
    root.querySelector(".fer-error").textContent = error;
    root.querySelector(".fer-progress").textContent = progress;
  }

  // --- the Photo tab -------------------------------------------------------------------------------------------

  function photoTab(element, server) {
    const root = element.querySelector(".fer");
    root.ferServer = server;
    const answerBox = root.querySelector(".fer-answer");
    const examples = answerBox.querySelector(".fer-examples");
    let latest = 0;
    listenToResults(answerBox);
    all(answerBox, ".fer-result").forEach(prepareResult);

    async function analyse(file) {
      if (tooLarge(root, file)) return;
      const turn = ++latest;
      say(root, "", "Looking for faces…");
      showWaiting(answerBox, file);
      const answer = await call(server.analyse, { file, model: chosenModel() });
      if (turn !== latest) return;
      if (answer.error) {
        say(root, answer.error);
        answerBox.replaceChildren(examples);
        return;
      }
      say(root);
      answerBox.innerHTML = answer.html;
      const back = document.createElement("button");
      back.type = "button";
      back.className = "fer-button fer-back";
      back.textContent = "Show the examples again";
      back.addEventListener("click", () => answerBox.replaceChildren(examples));
      answerBox.append(back);
      const result = answerBox.querySelector(".fer-result");
      prepareResult(result);
      root.querySelector(".fer-said").textContent = result.querySelector(".fer-summary").textContent;
      if (window.innerWidth < 768) answerBox.scrollIntoView({ behavior: "smooth", block: "start" });
    }

    listenForFiles(root, ([file]) => analyse(file));
    listenToCamera(root, analyse);
  }

  function showWaiting(answerBox, file) {
    const waiting = document.createElement("div");
    waiting.className = "fer-waiting";
    const preview = new Image();
    preview.alt = "";
    preview.onload = preview.onerror = () => URL.revokeObjectURL(preview.src);
    preview.src = URL.createObjectURL(file);
    const bar = document.createElement("div");
    bar.className = "fer-busy";
    waiting.append(preview, bar);
    answerBox.replaceChildren(waiting);
  }

  // Choosing, dropping and pasting files. Paste works anywhere on the page while the tab is shown.
  function listenForFiles(root, take) {
    const input = root.querySelector(".fer-file");
    const drop = root.querySelector(".fer-drop");
    input.addEventListener("change", () => {
      const files = [...input.files];
      input.value = "";
      if (files.length) take(files);
    });
    const over = (event) => {
      event.preventDefault();
      drop.classList.add("fer-over");
    };
    drop.addEventListener("dragover", over);
    drop.addEventListener("dragleave", () => drop.classList.remove("fer-over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("fer-over");
      if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
    });
    document.addEventListener("paste", (event) => {
      const files = [...event.clipboardData.files];
      if (files.length && root.offsetParent !== null) take(files);
    });
  }

  function listenToCamera(root, analyse) {
    const panel = root.querySelector(".fer-camera");
    const video = panel.querySelector("video");
    const stop = () => {
      for (const track of video.srcObject ? video.srcObject.getTracks() : []) track.stop();
      video.srcObject = null;
      panel.hidden = true;
    };
    const start = async () => {
      say(root);
      try {
        video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: 1280, height: 720 } });
        panel.hidden = false;
        await video.play();
      } catch {
        say(root, "The camera cannot be used; allow it in the browser's address bar, or choose a photo instead.");
      }
    };
    const take = () => {
      const canvas = document.createElement("canvas");
      canvas.width = video.videoWidth;
      canvas.height = video.videoHeight;
      canvas.getContext("2d").drawImage(video, 0, 0);
      stop();
      canvas.toBlob((blob) => analyse(new File([blob], "camera.jpg", { type: "image/jpeg" })), "image/jpeg", 0.92);
    };
    root.addEventListener("click", (event) => {
      const act = event.target.closest("[data-camera]")?.dataset.camera;
      if (act === "open") start();
      if (act === "take" && video.videoWidth) take();
      if (act === "close") stop();
    });
  }

  // --- long work: Batch and Video --------------------------------------------------------------------------------

  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  // Sends files to a job, shows its progress, and gives its result; null when it was stopped or refused.
  async function runJob(root, server, data) {
    const meter = root.querySelector(".fer-meter");
    const stop = root.querySelector(".fer-cancel");
    say(root, "", "Sending…");
    meter.removeAttribute("value");
    meter.hidden = false;
    const started = await call(server.start, data);
    let answer = started;
    if (started.job) {
      let stopped = false;
      stop.hidden = false;
      stop.onclick = () => {
        stopped = true;
        server.cancel(started.job);
      };
      answer = { done: 0, total: 0 };
      while (!stopped && "done" in answer) {
        await pause(300);
        answer = await server.look(started.job).catch(() => ({ error: BUSY }));
        if (answer.total) {
          meter.max = answer.total;
          meter.value = answer.done;
          say(root, "", `${answer.done} of ${answer.total}`);
        } else if ("done" in answer) say(root, "", "Waiting for a free place…");
      }
      if (stopped) answer = { error: "Stopped." };
    }
    meter.hidden = stop.hidden = true;
    say(root, answer.error || "");
    return answer.error ? null : answer;
  }

  const TYPES = { csv: "text/csv", json: "application/json", zip: "application/zip" };

  function bytesOf(base64) {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  }

  function sortTable(button) {
    const head = button.closest("th");
    const column = Number(button.dataset.sort);
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.children) if (other.hasAttribute("aria-sort")) other.ariaSort = "none";
    head.ariaSort = down ? "descending" : "ascending";
    const body = head.closest("table").tBodies[0];
    const key = (row) => {
      const cell = row.cells[Math.min(column, row.cells.length - 1)];
      return cell.dataset.value || cell.textContent;
    };
    const order = new Intl.Collator(undefined, { numeric: true });
    const rows = [...body.rows].sort((a, b) => order.compare(key(a), key(b)) * (down ? -1 : 1));
    body.append(...rows);
  }

  function jobTab(element, server, { keep }) {
    const root = element.querySelector(".fer");
    const answerBox = root.querySelector(".fer-answer");
    const maxBytes = Number(root.dataset.maxBytes);
    let result = null;
    root.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button?.dataset.sort) sortTable(button);
      const kind = button?.dataset.take;
      if (kind) save(new Blob([kind === "zip" ? bytesOf(result.zip) : result[kind]], { type: TYPES[kind] }),
        `${keep}.${kind}`);
    });
    listenForFiles(root, async (files) => {
      const size = files.reduce((sum, file) => sum + file.size, 0);
      if (size > maxBytes) {
        say(root, `These are ${Math.ceil(size / 1e6)} MB; at most ${maxBytes / 1e6} MB are taken at a time.`);
        return;
      }
      const data = Object.fromEntries(files.map((file, number) => [`file${number}`, file]));
      const found = await runJob(root, server, { ...data, model: chosenModel() });
      if (!found) return;
      result = found;
      answerBox.innerHTML = found.html;
    });
  }

  // --- Compare and Model ---------------------------------------------------------------------------------------

  function compareTab(element, server) {
    const root = element.querySelector(".fer");
    const answerBox = root.querySelector(".fer-answer");
    let latest = 0;
    listenForFiles(root, async ([file]) => {
      if (tooLarge(root, file)) return;
      const turn = ++latest;
      say(root, "", "Asking every model…");
      showWaiting(answerBox, file);
      const answer = await call(server.compare, { file });
      if (turn !== latest) return;
      say(root, answer.error);
      answerBox.innerHTML = answer.html || "";
    });
  }

  function modelTab(element, server) {
    const root = element.querySelector(".fer");
    root.querySelector("form").addEventListener("submit", async (event) => {
      event.preventDefault();
      say(root, "", "Loading the model…");
      const answer = await server.load(event.target.elements.model.value).catch(() => ({ error: BUSY }));
      say(root, answer.error, answer.error ? "" : `${answer.model} answers on this page from now on.`);
      if (answer.error) return;
      root.querySelector(".fer-answer").innerHTML = answer.html;
      document.documentElement.dataset.ferModel = answer.model;
    });
  }

  return { all, call, chosenModel, compareTab, jobTab, modelTab, say, save, runJob, photoTab };
})();
