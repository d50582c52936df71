// Long work with progress and a way to stop it: Batch and Video.

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const ASK_MS = 300;
// Questions to a job or of a camera that may fail one after the other, each a second later than the one before: 21
// seconds in all, enough to change from Wi-Fi to mobile.
const RETRIES = 6;

// Takes the meter and the Stop button from the job that has them; the turn of what has them now.
function nextTurn(root) {
  root.querySelector(".fer-meter").hidden = root.querySelector(".fer-cancel").hidden = true;
  return (root.ferTurn = (root.ferTurn || 0) + 1);
}

// Sends files to a job, shows its progress, and gives its result; null when it was stopped, refused or followed by
// another job on the same tab, which takes the meter and the Stop button. What stores something (data.keep) is then
// still waited for, and its result given whatever it is, because only that has the id to withdraw it, or says why not.
async function runJob(root, server, data, tab = "") {
  const meter = root.querySelector(".fer-meter");
  const stop = root.querySelector(".fer-cancel");
  const turn = nextTurn(root);
  const shown = () => root.ferTurn === turn;
  const wanted = () => shown() || data.keep === "yes";
  const tell = (error, progress) => shown() && say(root, error, progress);
  tell("", "Sending…");
  meter.removeAttribute("value");
  meter.hidden = false;
  const started = await call(server.start, data);
  let answer = started;
  if (started.job) {
    const letGo = () => server.cancel(started.job).catch(() => {});
    let stopped = false;
    if (shown()) {
      stop.hidden = false;
      stop.onclick = () => {
        stopped = true;
        letGo();
      };
    }
    window.addEventListener("pagehide", letGo);
    let failed = 0;
    answer = { done: 0, total: 0 };
    while (!stopped && wanted() && "done" in answer) {
      await pause(failed * 1000 || ASK_MS);
      const seen = await server.look(started.job).catch(() => null);
      failed = seen ? 0 : failed + 1;
      if (seen) answer = seen;
      else if (failed > RETRIES) answer = { error: BUSY };
      if (failed) tell("", "The connection is lost; trying again…");
      else if (answer.total) {
        if (shown()) {
          meter.max = answer.total;
          meter.value = answer.done;
        }
        tell("", tab === "video" ? `${answer.done}%` : `${answer.done} of ${answer.total}`);
      } else if ("done" in answer) tell("", "Waiting for a free place…");
    }
    letGo();
    window.removeEventListener("pagehide", letGo);
    // A result that came with the click on Stop is shown: it may hold the id of what was stored.
    if ("done" in answer || (stopped && answer.error)) answer = { error: "Stopped." };
  }
  if (shown()) meter.hidden = stop.hidden = true;
  tell(answer.error || "", "");
  return data.keep !== "yes" && (answer.error || !shown()) ? null : answer;
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
  let clipUrl = "";
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
    const model = chosenModel();
    const found = await runJob(root, server, { ...data, model }, keep);
    if (!found) return;
    result = found;
    showAnswer(root, found.html, model);
    URL.revokeObjectURL(clipUrl);
    clipUrl = "";
    if (found.mp4) {
      clipUrl = URL.createObjectURL(new Blob([bytesOf(found.mp4)], { type: TYPES.mp4 }));
      answerBox.querySelector("video").src = clipUrl;
    }
  });
}
