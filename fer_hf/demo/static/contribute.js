// The Contribute tab.

function contributeTab(element, server) {
  const root = element.querySelector(".fer");
  const answerBox = root.querySelector(".fer-answer");
  const consent = () => (root.querySelector("[name=consent]").checked ? "yes" : "no");
  let given = null;

  const thank = (answer, place) => {
    say(root, answer.error);
    if (!answer.receipt) return;
    const note = document.createElement("p");
    note.className = "fer-summary";
    note.textContent = `Thank you, it is stored. Your id to withdraw it: ${answer.receipt}`;
    place.replaceChildren(note);
  };

  listenForFiles(root, async ([file]) => {
    given = file;
    answerBox.replaceChildren();
    if (file.name.toLowerCase().endsWith(".zip")) {
      const audit = await runJob(root, server, { file });
      if (audit) answerBox.innerHTML = audit.html;
      return;
    }
    if (tooLarge(root, file)) return;
    say(root, "", "Looking for faces…");
    const answer = await call(server.find, { file });
    say(root, answer.error);
    answerBox.innerHTML = answer.html || "";
  });

  answerBox.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (consent() === "no") return say(root, "Tick the consent first; nothing was stored.");
    button.disabled = true;
    if (button.hasAttribute("data-give-zip")) {
      const answer = await runJob(root, server, { file: given, keep: "yes", consent: "yes" });
      if (answer) thank(answer, answerBox);
    } else {
      const row = button.closest(".fer-face");
      const label = row.querySelector("select").value;
      const answer = await call(server.give, { file: given, face: row.dataset.face, label, consent: "yes" });
      thank(answer, row.querySelector(".fer-face-text"));
    }
    button.disabled = false;
  });

  root.querySelector(".fer-withdraw").addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = await server.withdraw(event.target.elements.receipt.value).catch(() => ({ error: BUSY }));
    say(root, answer.error, answer.said || "");
  });
}
