// What the page says, what it waits for and for how long, and files it hands over.
const $ = (id) => document.getElementById(id);

export function say(text, problem = false) {
  $("message").textContent = text;
  $("message").classList.toggle("problem", problem);
}

const waits = new Set();
export async function busy(text, promise) {
  const wait = { text, since: performance.now() };
  waits.add(wait);
  try { return await promise; } finally { waits.delete(wait); }
}
setInterval(() => {
  const [wait] = [...waits].filter((one) => performance.now() - one.since > 150);
  $("busy").textContent = wait ? `${wait.text} ${((performance.now() - wait.since) / 1000).toFixed(1)} s` : "";
}, 100);

export function save({ name, blob }) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
