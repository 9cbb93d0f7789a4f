// Dialogs beside the pictures: export.
import { postForFile } from "/static/net.js";
import { busy, save, say } from "/static/messages.js";

const $ = (id) => document.getElementById(id);

export function lessons(bench) {
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
  $("open-teach").hidden = $("open-tags").hidden = true;
}
