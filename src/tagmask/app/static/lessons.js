// Dialogs beside the pictures: export, and teaching the model from what was corrected.
import { forgetAll } from "/static/images.js";
import { getJson, postForFile, postJson } from "/static/net.js";
import { busy, save, say } from "/static/messages.js";

const $ = (id) => document.getElementById(id);
const words = { idle: "", waiting: "Getting ready", reading: "Reading the corrections", learning: "Learning", checking: "Checking on corrections held back", done: "" };

function exports(bench) {
  $("open-export").addEventListener("click", () => $("export").showModal());
  $("export-now").addEventListener("click", async () => {
    $("export").close();
    bench.flush();
    await bench.outbox.last;
    try {
      const file = await busy("Exporting", postForFile("export", JSON.stringify({ format: $("format").value })));
      save(file);
      say(`${file.name} is downloaded.`);
    } catch (error) { say(error.message, true); }
  });
}

class Lesson {
  constructor(bench) {
    this.bench = bench;
    $("open-teach").addEventListener("click", () => { $("teach").showModal(); this.follow(); });
    $("teach-now").addEventListener("click", () => this.start());
    $("teach-take").addEventListener("click", () => this.take());
  }

  tell(found) {
    const going = ["waiting", "reading", "learning", "checking"].includes(found.what);
    const intro = "The model learns for at most a minute from all masks that were accepted or corrected; some are held back to see whether it got better.";
    $("teach-text").textContent = found.text || (going ? `${words[found.what]}: ${found.seconds.toFixed(0)} s` : intro);
    $("teach-bar").value = found.share;
    $("teach-now").disabled = going;
    $("teach-take").disabled = !found.better;
    return going;
  }

  async start() {
    this.bench.flush();
    await this.bench.outbox.last;
    try {
      this.tell(await postJson("teach", {}));
      this.follow();
    } catch (error) { $("teach-text").textContent = error.message; say(error.message, true); }
  }

  async follow() {
    clearTimeout(this.timer);
    try {
      const found = await getJson("lesson");
      if (this.tell(found)) this.timer = setTimeout(() => this.follow(), 500);
      else if (found.text) say(found.text);
    } catch (error) { say(error.message, true); }
  }

  async take() {
    try {
      const { folder } = await postJson("take", {});
      forgetAll();
      Object.assign(this.bench, { taught: true, choice: "now" });
      $("teach").close();
      await this.bench.open(this.bench.name);
      say(`The new model looks from now on; it is kept in ${folder}.`);
    } catch (error) { say(error.message, true); }
  }
}

export function lessons(bench) {
  exports(bench);
  $("open-teach").hidden = !bench.run.teaches;
  return new Lesson(bench);
}
