// The Contribute tab.

function contributeTab(element, server) {
  const root = element.querySelector(".fer");
  const answerBox = root.querySelector(".fer-answer");
  const receipts = root.querySelector(".fer-receipts");
  const consent = () => (root.querySelector("[name=consent]").checked ? "yes" : "no");
  let given = null;
  let latest = 0;

  // Ids have a place of their own, so that none is lost however late it comes and whatever is shown by then.
  const thank = (answer, file, place) => {
    say(root, answer.error);
    if (!answer.receipt) return;
    const note = document.createElement("p");
    note.className = "fer-summary";
    note.textContent = "Thank you, it is stored.";
    place?.replaceChildren(note);
    const line = document.createElement("p");
    line.textContent = `${file.name} is stored. Your id to withdraw it: ${answer.receipt}`;
    receipts.append(line);
  };

  listenForFiles(root, async ([file]) => {
    const turn = ++latest;
    answerBox.replaceChildren();
    const zipped = file.name.toLowerCase().endsWith(".zip");
    if (tooLarge(root, file, zipped ? root.dataset.maxRequest : root.dataset.maxBytes)) return;
    if (!zipped) say(root, "", "Looking for faces…");
    const answer = zipped ? await runJob(root, server, { file }) : await call(server.find, { file });
    // What is given must be what is shown: an answer to a file chosen before comes too late.
    if (turn !== latest) return;
    if (!zipped) say(root, answer.error);
    given = file;
    answerBox.innerHTML = answer?.html || "";
  });

  answerBox.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (consent() === "no") return say(root, "Tick the consent first; nothing was stored.");
    button.disabled = true;
    const [turn, file] = [latest, given];
    if (button.hasAttribute("data-give-zip")) {
      const answer = await runJob(root, server, { file, keep: "yes", consent: "yes" });
      if (answer) thank(answer, file, turn === latest ? answerBox : null);
    } else {
      const row = button.closest(".fer-face");
      const label = row.querySelector("select").value;
      const answer = await call(server.give, { file, face: row.dataset.face, label, consent: "yes" });
      thank(answer, file, row.querySelector(".fer-face-text"));
    }
    button.disabled = false;
  });

  root.querySelector(".fer-withdraw").addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = await server.withdraw(event.target.elements.receipt.value).catch(() => ({ error: BUSY }));
    say(root, answer.error, answer.said || "");
  });
}
