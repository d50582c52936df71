// The Contribute tab.

function contributeTab(element, server) {
  const root = element.querySelector(".fer");
  const answerBox = root.querySelector(".fer-answer");
  const receipts = root.querySelector(".fer-receipts");
  const consent = () => (root.querySelector("[name=consent]").checked ? "yes" : "no");
  let given = null;
  let latest = 0;

  // What became of a gift has a place of its own, so that no id is lost however late it comes and whatever is shown.
  const give = async (file, data, place) => {
    const answer = await runJob(root, server, { file, ...data, keep: "yes", consent: "yes" });
    const line = document.createElement("p");
    line.textContent = answer.receipt
      ? `${file.name} is stored. Your id to withdraw it: ${answer.receipt}`
      : `${file.name} is not stored. ${answer.error}`;
    receipts.append(line);
    if (!answer.receipt) return;
    const note = document.createElement("p");
    note.className = "fer-summary";
    note.textContent = `Thank you, it is stored. To withdraw it, keep ${answer.receipt}`;
    place()?.replaceChildren(note);
  };

  listenForFiles(root, async ([file]) => {
    const turn = ++latest;
    answerBox.replaceChildren();
    const zipped = file.name.toLowerCase().endsWith(".zip");
    if (tooLarge(root, file, zipped ? root.dataset.maxRequest : root.dataset.maxBytes)) return;
    if (!zipped) {
      nextTurn(root);
      say(root, "", "Looking for faces…");
    }
    const answer = zipped ? await runJob(root, server, { file }) : await call(server.find, { file });
    // What is given must be what is shown: an answer to a file chosen before comes too late.
    if (turn !== latest) return;
    if (!zipped) say(root, answer.error);
    given = file;
    showAnswer(root, answer?.html || "");
  });

  answerBox.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (consent() === "no") {
      say(root, "Tick the consent first; nothing was stored.");
      const box = root.querySelector("[name=consent]");
      box.focus({ preventScroll: true });
      box.scrollIntoView({ block: "center" });
      return;
    }
    button.disabled = true;
    const [turn, file] = [latest, given];
    if (button.hasAttribute("data-give-zip")) {
      await give(file, {}, () => (turn === latest ? answerBox : null));
    } else {
      const row = button.closest(".fer-face");
      const label = row.querySelector("select").value;
      await give(file, { face: row.dataset.face, label }, () => row.querySelector(".fer-face-text"));
    }
    button.disabled = false;
  });

  root.querySelector(".fer-withdraw").addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = await server.withdraw(event.target.elements.receipt.value).catch(() => ({ error: BUSY }));
    say(root, answer.error, answer.said || "");
  });
}
