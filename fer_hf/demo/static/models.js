// The Compare and Model tabs.

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
    say(root, answer.error || root.querySelector(".fer-error").textContent);
    showAnswer(root, answer.html || "");
  });
}

function modelTab(element, server) {
  const root = element.querySelector(".fer");
  let latest = 0;
  root.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const turn = ++latest;
    say(root, "", "Loading the model…");
    const answer = await server.load(event.target.elements.model.value).catch(() => ({ error: BUSY }));
    if (turn !== latest) return;
    say(root, answer.error, answer.error ? "" : `${answer.model} answers on this page from now on.`);
    if (answer.error) return;
    root.querySelector(".fer-answer").innerHTML = answer.html;
    document.documentElement.dataset.ferModel = answer.model;
  });
}
