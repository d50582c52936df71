// Talking to the server, and what every tab needs for it.

const all = (root, selector) => [...root.querySelectorAll(selector)];
const BUSY = "The server did not answer; please try again in a moment.";
const isPassing = (error) => error.endsWith("try again in a moment.");

// A file that misses its place must not be opened instead of this page.
for (const kind of ["dragover", "drop"])
  window.addEventListener(kind, (event) => {
    if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
  });

// What is called off as the page goes must still be sent, which browsers drop on reload without this.
window.addEventListener(
  "pagehide",
  () => {
    const plain = window.fetch;
    window.fetch = (address, options) => plain(address, { ...options, keepalive: true });
    setTimeout(() => (window.fetch = plain));
  },
  { capture: true },
);

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

function tooLarge(root, file, limit = root.dataset.maxBytes) {
  const maxBytes = Number(limit);
  if (file.size <= maxBytes) return false;
  say(root, `This file is ${Math.ceil(file.size / 1e6)} MB; at most ${maxBytes / 1e6} MB are taken.`);
  return true;
}

function say(root, error = "", progress = "") {
  root.querySelector(".fer-error").textContent = error;
  root.querySelector(".fer-progress").textContent = progress;
  root.querySelector(".fer-said").textContent = "";
}

// Puts an answer in its place, on a phone in sight, and its summary where screen readers hear of it. Where this page has
// chosen a model of its own, the answer says that it is from that one.
function showAnswer(root, html, model = "") {
  const answerBox = root.querySelector(".fer-answer");
  answerBox.innerHTML = html;
  const summary = answerBox.querySelector(".fer-summary");
  root.querySelector(".fer-said").textContent = summary?.textContent || "";
  if (summary && model) {
    const note = document.createElement("p");
    note.className = "fer-note";
    note.textContent = `Model: ${model}`;
    summary.after(note);
  }
  if (html && window.innerWidth < 768) answerBox.scrollIntoView({ behavior: "smooth", block: "start" });
}

// Why a camera did not start, for someone who wants it to.
function cameraTrouble(error) {
  if (!navigator.mediaDevices) return "Browsers lend a camera only to pages opened by https, or at localhost.";
  if (error.name === "NotFoundError") return "There is no camera; connect one and try again.";
  if (error.name === "NotReadableError") return "The camera cannot be read; close other programs that use it.";
  return "The camera cannot be used; allow it in the browser's address bar.";
}

function whenUnplugged(stream, tell) {
  for (const track of stream.getTracks()) track.addEventListener("ended", () => tell("The camera was disconnected."));
}

// A probability as people read it, as fer_hf.rendering.percent has it.
function percent(score) {
  if (score >= 0.995) return ">99%";
  return score < 0.005 ? "<1%" : `${Math.round(100 * score)}%`;
}
