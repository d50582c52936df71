// Results on the page: choosing a face, attention, downloads.

// Chooses a face of a result: marks its box and row, and shows its attention on the photo.
function chooseFace(result, number) {
  for (const part of all(result, "[data-face]")) {
    const chosen = part.dataset.face === String(number);
    part.classList.toggle("fer-chosen", chosen);
    if (part.hasAttribute("aria-pressed")) part.setAttribute("aria-pressed", String(chosen));
  }
  const row = result.querySelector(".fer-face.fer-chosen");
  if (!row) return;
  const list = row.parentElement;
  if (list.scrollHeight > list.clientHeight) list.scrollTop = row.offsetTop - list.offsetTop - 8;
  const target = result.querySelector("[data-expression]");
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
  const target = result.querySelector("[data-expression]").value;
  row.dataset.target = target;
  // An answer may come after another face or expression was chosen, whose map must stay.
  const chosen = () => row.classList.contains("fer-chosen") && row.dataset.target === target;
  let maps;
  try {
    maps = await mapsOf(row, target, result.closest(".fer").ferServer);
    if (!chosen()) return;
  } catch (error) {
    if (chosen()) say(result.closest(".fer"), error.message || BUSY);
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
    const text = `${face.between.join(" / ")} ${percent(face.score)}`;
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
    const result = event.target.closest(".fer-result");
    if (!result) return;
    const part = event.target.closest("[data-face]");
    if (part) chooseFace(result, Number(part.dataset.face));
    const kind = event.target.closest("button")?.dataset.save;
    if (kind) download(result, kind);
  });
  root.addEventListener("change", (event) => {
    if (event.target.matches("[data-kind], [data-expression]")) showAttention(event.target.closest(".fer-result"));
  });
  root.addEventListener("input", (event) => {
    if (event.target.matches("[data-opacity]"))
      event.target.closest(".fer-result").style.setProperty("--heat", event.target.value / 100);
  });
}
