"""The page's scripts against servers that fail, are slow or change their mind, played by the page itself."""

from playwright.sync_api import expect

PLAY = """() => {
window.play = (tab, script, server, options) => {
  const element = document.createElement("div");
  element.innerHTML = document.querySelector(`#${tab} .fer`).outerHTML;
  document.body.replaceChildren(element);
  element.id = "played";
  const later = window.setTimeout;
  window.setTimeout = (work, ms) => later(work, ms / 20);
  fer[script](element, server, options);
};
window.choose = (name) => {
  const files = new DataTransfer();
  files.items.add(new File(["x"], name));
  const input = document.querySelector("#played .fer-file");
  input.files = files.files;
  input.dispatchEvent(new Event("change"));
};
}"""


def open_tab(open_page, name):
    """A page with that tab made, and the functions above to play its server."""
    page = open_page()
    page.get_by_role("tab", name=name).click()
    page.locator(f"#{name.lower()} .fer").wait_for()
    page.evaluate(PLAY)
    return page


def test_a_job_outlives_questions_that_fail_for_a_moment(open_page):
    page = open_tab(open_page, "Batch")
    page.evaluate("""() => {
      window.calls = [];
      let asked = 0;
      play("batch", "jobTab", {
        start: async () => ({ job: "one" }),
        look: async () => {
          asked += 1;
          if (asked < 3) return { done: asked, total: 5 };
          if (asked < 7) throw new Error("no network");
          return { html: "<p class=got>the result</p>" };
        },
        cancel: async (job) => void calls.push(job),
      }, { keep: "batch" });
      choose("photos.zip");
    }""")
    expect(page.locator("#played .fer-progress")).to_contain_text("trying again")
    expect(page.locator("#played .got")).to_have_text("the result")
    expect(page.locator("#played .fer-meter")).to_be_hidden()
    assert page.evaluate("calls") == ["one"]  # the server need not keep what has come


def test_a_job_whose_server_stays_away_is_given_up_and_called_off(open_page):
    page = open_tab(open_page, "Batch")
    page.evaluate("""() => {
      window.calls = [];
      play("batch", "jobTab", {
        start: async () => ({ job: "one" }),
        look: async () => { throw new Error("no network"); },
        cancel: async (job) => { calls.push(job); throw new Error("no network"); },
      }, { keep: "batch" });
      choose("photos.zip");
    }""")
    expect(page.locator("#played .fer-error")).to_contain_text("did not answer")
    expect(page.locator("#played .fer-cancel")).to_be_hidden()
    assert page.evaluate("calls") == ["one"]


def test_another_file_takes_the_place_of_a_job_that_runs(open_page):
    page = open_tab(open_page, "Video")
    page.evaluate("""() => {
      window.calls = [];
      window.revoked = [];
      window.finished = new Set();
      window.gates = [];
      URL.revokeObjectURL = (url) => url && revoked.push(url);
      let started = 0;
      play("video", "jobTab", {
        start: async () => {
          const job = String(++started);
          if (job === "3") await new Promise((open) => gates.push(open));
          return { job };
        },
        look: async (job) => finished.has(job)
          ? { html: `<p class=got>${job}</p><video></video>`, mp4: btoa(job) }
          : { done: 10 * job, total: 100 },
        cancel: async (job) => void calls.push(job),
      }, { keep: "video" });
      choose("first.mp4");
    }""")
    progress = page.locator("#played .fer-progress")
    expect(progress).to_have_text("10%")
    page.evaluate("choose('second.mp4')")
    expect(progress).to_have_text("20%")
    page.wait_for_function("calls.includes('1')")
    page.evaluate("finished.add('1')")
    page.wait_for_timeout(200)
    expect(progress).to_have_text("20%")
    expect(page.locator("#played .fer-cancel")).to_be_visible()
    page.evaluate("finished.add('2')")
    expect(page.locator("#played .got")).to_have_text("2")
    shown = page.locator("#played video").get_attribute("src")
    assert page.evaluate("revoked") == []
    page.evaluate("choose('third.mp4')")  # the next one overtakes it while it is sent
    page.wait_for_function("gates.length")
    page.evaluate("choose('fourth.mp4')")
    expect(progress).to_have_text("40%")
    page.evaluate("gates[0]()")
    page.evaluate("finished.add('4')")
    expect(page.locator("#played .got")).to_have_text("4")
    page.wait_for_function("calls.length === 4")
    assert sorted(page.evaluate("calls")) == ["1", "2", "3", "4"]
    assert page.evaluate("revoked") == [shown]


def test_what_stores_something_is_waited_for_whatever_is_chosen_since(open_page):
    page = open_tab(open_page, "Contribute")
    page.evaluate("""() => {
      window.finished = new Set();
      let started = 0;
      play("contribute", "contributeTab", {
        start: async () => ({ job: String(++started) }),
        look: async (job) => finished.has(job)
          ? (job === "2" ? { receipt: "my-id" } : { html: "<p class=got>audit</p><button data-give-zip>Give</button>" })
          : { done: Number(job), total: 9 },
        cancel: async () => {},
      });
      document.querySelector("#played [name=consent]").checked = true;
      finished.add("1");
      choose("set.zip");
    }""")
    page.locator("#played [data-give-zip]").click()
    expect(page.locator("#played .fer-progress")).to_have_text("2 of 9")
    page.evaluate("choose('other.zip')")
    expect(page.locator("#played .fer-progress")).to_have_text("3 of 9")
    page.evaluate("finished.add('2')")
    expect(page.locator("#played .fer-receipts")).to_contain_text("set.zip is stored. Your id to withdraw it: my-id")
    page.evaluate("finished.add('3')")
    expect(page.locator("#played .got")).to_have_text("audit")


def test_why_a_gift_is_not_stored_is_said_whatever_is_chosen_since(open_page):
    page = open_tab(open_page, "Contribute")
    page.evaluate("""() => {
      window.started = [];
      let answer = { done: 1, total: 9 };
      window.refuse = () => (answer = { error: "The store cannot be written to; nothing was stored." });
      play("contribute", "contributeTab", {
        find: async () => ({ html: `<article class="fer-face" data-face="1"><select><option>sad</option></select>
          <div class="fer-face-text"><button data-give>Give</button></div></article>` }),
        start: async ({ data }) => { started.push([data.face, data.label, data.keep]); return { job: "1" }; },
        look: async () => answer,
        cancel: async () => {},
      });
      document.querySelector("#played [name=consent]").checked = true;
      choose("anna.png");
    }""")
    page.locator("#played [data-give]").click()
    expect(page.locator("#played .fer-progress")).to_have_text("1 of 9")
    page.evaluate("choose('other.png')")
    page.evaluate("refuse()")
    receipts = page.locator("#played .fer-receipts")
    expect(receipts).to_have_text("anna.png is not stored. The store cannot be written to; nothing was stored.")
    assert page.evaluate("started") == [["1", "sad", "yes"]]


def test_the_legend_and_the_timeline_follow_the_model(open_page):
    page = open_tab(open_page, "Webcam")
    page.evaluate("""() => {
      window.names = ["happy", "sad", "fear"];
      play("webcam", "webcamTab", {
        look: async () => {
          const scores = Object.fromEntries(names.map((name, place) => [name, 0.5 - place / 5]));
          return { size: [640, 480], faces: [{ id: 1, box: [9, 9, 99, 99], label: names[0], score: 0.5, scores }] };
        },
        close: async () => {},
      });
    }""")
    legend = page.locator("#played .fer-legend li")
    page.locator("#played").get_by_role("button", name="Start the camera").click()
    expect(legend).to_have_text(["happy", "sad", "fear"])
    page.evaluate("names = ['fear', 'happy', 'sad']")
    expect(legend).to_have_text(["fear", "happy", "sad"])
    page.locator("#played").get_by_role("button", name="Stop the camera").click()
    expect(legend).to_have_count(0)


def test_a_camera_outlives_answers_that_fail_for_a_moment_and_stops_at_the_others_and_when_it_is_gone(open_page):
    page = open_tab(open_page, "Webcam")
    page.evaluate("""() => {
      window.answers = [null, { error: "Busy, please try again in a moment." }];
      play("webcam", "webcamTab", {
        look: async () => {
          if (answers.length) return answers.shift() ?? Promise.reject(new Error("offline"));
          const scores = { happy: 0.9, sad: 0.1 };
          return { size: [640, 480], faces: [{ id: 1, box: [9, 9, 99, 99], label: "happy", score: 0.9, scores }] };
        },
        close: async () => {},
      });
    }""")
    root = page.locator("#played")
    start = root.get_by_role("button", name="Start the camera")
    start.click()
    expect(root.locator(".fer-live-box")).to_have_count(1)
    expect(root.locator(".fer-error")).to_be_empty()
    page.evaluate("answers.push({ error: 'The camera has run for 10 minutes.' })")
    expect(root.locator(".fer-error")).to_have_text("The camera has run for 10 minutes.")
    start.click()
    expect(root.get_by_role("button", name="Stop the camera")).to_be_visible()
    root.locator("video").evaluate("video => video.srcObject.getTracks()[0].dispatchEvent(new Event('ended'))")
    expect(root.locator(".fer-error")).to_have_text("The camera was disconnected.")
    assert root.locator("video").evaluate("video => video.srcObject") is None


def test_why_a_camera_does_not_start_is_said(open_page):
    page = open_tab(open_page, "Webcam")
    page.evaluate("""() => {
      navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("", window.fault); };
      play("webcam", "webcamTab", { look: async () => ({}), close: async () => {} });
    }""")
    root = page.locator("#played")
    for fault, said in (
        ("NotFoundError", "There is no camera"),
        ("NotReadableError", "close other programs"),
        ("NotAllowedError", "allow it in the browser's address bar"),
    ):
        page.evaluate("fault => { window.fault = fault; }", fault)
        root.get_by_role("button", name="Start the camera").click()
        expect(root.locator(".fer-error")).to_contain_text(said)
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    root.get_by_role("button", name="Start the camera").click()
    expect(root.locator(".fer-error")).to_contain_text("only to pages opened by https")


def test_a_file_that_misses_its_place_does_not_replace_the_page(open_page):
    page = open_page()
    for kind in ("dragover", "drop"):
        prevented = page.evaluate(
            """(kind) => {
              const files = new DataTransfer();
              files.items.add(new File(["x"], "a.png"));
              const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: files });
              document.querySelector("footer, header").dispatchEvent(event);
              return event.defaultPrevented;
            }""",
            kind,
        )
        assert prevented


def test_the_model_asked_for_last_answers_and_is_named(open_page):
    page = open_tab(open_page, "Model")
    page.evaluate("""() => {
      window.loads = [];
      play("model", "modelTab", {
        load: (model) => new Promise((resolve) => loads.push(() => resolve({ model, html: `<p>${model}</p>` }))),
      });
    }""")
    field = page.locator("#played input")
    for name in ("slow", "quick"):
        field.fill(name)
        field.press("Enter")
    page.wait_for_function("loads.length === 2")
    page.evaluate("loads[1]()")
    expect(page.locator("#played .fer-progress")).to_have_text("quick answers on this page from now on.")
    page.evaluate("loads[0]()")
    page.wait_for_timeout(100)
    expect(page.locator("#played .fer-answer")).to_have_text("quick")
    assert page.evaluate("document.documentElement.dataset.ferModel") == "quick"
