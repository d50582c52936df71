// Talking to the server, and what every tab needs for it.

const all = (root, selector) => [...root.querySelectorAll(selector)];
const BUSY = "The server did not answer; please try again in a moment.";

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
}

// A probability as people read it, as fer_hf.rendering.percent has it.
function percent(score) {
  if (score >= 0.995) return ">99%";
  return score < 0.005 ? "<1%" : `${Math.round(100 * score)}%`;
}
