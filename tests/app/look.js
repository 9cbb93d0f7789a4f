// Texts with a contrast below 4.5, controls without a name, a page that scrolls sideways.
const seen = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) &&
  e.getBoundingClientRect().width > 1;
const rgb = (text) => (text.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
const linear = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const colour = rgb(getComputedStyle(e).backgroundColor);
    if (colour.length < 4 || colour[3] > 0.99) return colour;
  }
  return [255, 255, 255];
};
const faults = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const text = walker.currentNode.data.trim(), e = walker.currentNode.parentElement;
  if (!text || ["SCRIPT", "STYLE"].includes(e.tagName) || !seen(e)) continue;
  const [high, low] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < 4.5) faults.push(`contrast ${ratio.toFixed(1)}: ${text.slice(0, 40)}`);
}
const controls = "input, textarea, select, button, img, [role=region], [role=img]";
for (const e of document.querySelectorAll(controls)) {
  if (!seen(e)) continue;
  const others = (e.getAttribute("aria-labelledby") || "").split(" ");
  const name = e.getAttribute("aria-label") || e.getAttribute("alt") || e.title ||
    others.map((id) => document.getElementById(id)?.innerText).join("") ||
    [...(e.labels || [])].map((label) => label.innerText).join("") ||
    (e.tagName === "BUTTON" ? e.innerText : "");
  if (!name.trim()) faults.push(`no name: ${e.outerHTML.slice(0, 120)}`);
}
const root = document.documentElement;
if (root.scrollWidth > root.clientWidth) faults.push(`wider than the window: ${root.scrollWidth}`);
return faults;
