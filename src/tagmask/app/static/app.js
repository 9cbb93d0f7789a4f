// Opacity, zoom, shortcuts and downloads; nothing here talks to the network.
window.tagmask = (() => {
  const root = document.documentElement.style;
  const place = { left: 0, top: 0 };
  let shortcuts = true;
  const buttons = { a: "tm-accept", r: "tm-reject", j: "tm-next", k: "tm-back", d: "tm-download" };
  const writes = (element) => element.closest("input, textarea, select, [contenteditable]");

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && writes(event.target)) return event.target.blur();
    if (!shortcuts || event.ctrlKey || event.metaKey || event.altKey || writes(event.target)) return;
    const key = event.key.toLowerCase();
    if (key === "n") document.querySelector("#tm-note textarea")?.focus();
    else if (buttons[key]) document.getElementById(buttons[key])?.click();
    else return;
    event.preventDefault();
  });

  // The panels show the same part of the picture, also after they were drawn anew.
  document.addEventListener("scroll", (event) => {
    const moved = event.target;
    if (!moved.classList?.contains("tm-view")) return;
    [place.left, place.top] = [moved.scrollLeft, moved.scrollTop];
    restore(moved);
  }, true);
  const restore = (except) => {
    for (const view of document.querySelectorAll(".tm-view")) {
      if (view === except) continue;
      if (view.scrollLeft !== place.left) view.scrollLeft = place.left;
      if (view.scrollTop !== place.top) view.scrollTop = place.top;
    }
  };
  new MutationObserver((changes) => {
    if (changes.some((change) => change.target.id === "tm-pictures" || change.target.closest?.("#tm-pictures")))
      restore();
    // Its name must hold the words that are seen.
    const upload = document.querySelector("#tm-files button[aria-dropeffect]");
    const words = upload?.innerText.replace(/\s+/g, " ").trim();
    if (words && upload.getAttribute("aria-label") !== words) upload.setAttribute("aria-label", words);
  }).observe(document, { childList: true, subtree: true });

  return {
    opacity: (percent) => { root.setProperty("--tm-opacity", percent / 100); return []; },
    zoom: (factor) => { root.setProperty("--tm-zoom", factor); return []; },
    keys: (on) => { shortcuts = on; return []; },
    download: (text) => {
      if (!text) return [];
      const { name, content } = JSON.parse(text);
      const link = document.createElement("a");
      link.href = "data:image/png;base64," + content;
      link.download = name;
      link.click();
      return [];
    },
  };
})();
