// The Photo tab, and choosing, dropping, pasting and taking pictures.

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
    const model = chosenModel();
    const answer = await call(server.analyse, { file, model });
    if (turn !== latest) return;
    if (answer.error) {
      say(root, answer.error);
      answerBox.replaceChildren(examples);
      return;
    }
    say(root, root.querySelector(".fer-error").textContent); // what was said of a file chosen since stays
    showAnswer(root, answer.html, model);
    const back = document.createElement("button");
    back.type = "button";
    back.className = "fer-button fer-back";
    back.textContent = "Show the examples again";
    back.addEventListener("click", () => {
      answerBox.replaceChildren(examples);
      answerBox.tabIndex = -1;
      answerBox.focus();
    });
    answerBox.append(back);
    prepareResult(answerBox.querySelector(".fer-result"));
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

// Choosing, dropping and pasting files. Drop works anywhere in the tab, paste anywhere on the page while it is shown.
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
  root.addEventListener("dragover", over);
  root.addEventListener("dragleave", (event) => {
    if (!root.contains(event.relatedTarget)) drop.classList.remove("fer-over");
  });
  root.addEventListener("drop", (event) => {
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
  let asking = false;
  const start = async () => {
    if (asking || video.srcObject) return;
    asking = true;
    say(root);
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: 1280, height: 720 } });
      whenUnplugged(video.srcObject, (reason) => {
        stop();
        say(root, reason);
      });
      panel.hidden = false;
      await video.play();
    } catch (error) {
      stop();
      say(root, `${cameraTrouble(error)} Or choose a photo instead.`);
    }
    asking = false;
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
