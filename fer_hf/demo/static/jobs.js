// Long work with progress and a way to stop it: Batch and Video.

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Sends files to a job, shows its progress, and gives its result; null when it was stopped or refused.
async function runJob(root, server, data, keep = "") {
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
        say(root, "", keep === "video" ? `${answer.done}%` : `${answer.done} of ${answer.total}`);
      } else if ("done" in answer) say(root, "", "Waiting for a free place…");
    }
    // A result that came with the click on Stop is shown: it may hold the id of what was stored.
    if (stopped && ("done" in answer || answer.error)) answer = { error: "Stopped." };
  }
  meter.hidden = stop.hidden = true;
  say(root, answer.error || "");
  return answer.error ? null : answer;
}

const TYPES = { csv: "text/csv", json: "application/json", zip: "application/zip", mp4: "video/mp4" };

const BINARY = new Set(["zip", "mp4"]);

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
    if (kind) save(new Blob([BINARY.has(kind) ? bytesOf(result[kind]) : result[kind]], { type: TYPES[kind] }),
      `${keep}.${kind}`);
  });
  listenForFiles(root, async (files) => {
    const size = files.reduce((sum, file) => sum + file.size, 0);
    if (size > maxBytes) {
      say(root, `These are ${Math.ceil(size / 1e6)} MB; at most ${maxBytes / 1e6} MB are taken at a time.`);
      return;
    }
    const data = Object.fromEntries(files.map((file, number) => [`file${number}`, file]));
    const found = await runJob(root, server, { ...data, model: chosenModel() }, keep);
    if (!found) return;
    result = found;
    answerBox.innerHTML = found.html;
    if (found.mp4) {
      const clip = answerBox.querySelector("video");
      clip.src = URL.createObjectURL(new Blob([bytesOf(found.mp4)], { type: TYPES.mp4 }));
    }
  });
}
