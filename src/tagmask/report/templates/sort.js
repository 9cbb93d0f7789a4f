function value(row, column, numeric) {
  const text = row.cells[column].textContent.trim();
  if (!numeric) return text.toLowerCase();
  const found = parseFloat(text);
  return Number.isNaN(found) ? -Infinity : found;
}
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const column = head.cellIndex, numeric = button.dataset.kind === "number", sign = down ? -1 : 1;
    const rows = Array.from(body.rows).filter((row) => !row.classList.contains("fixed"));
    rows.sort((a, b) => {
      const x = value(a, column, numeric), y = value(b, column, numeric);
      return sign * (x < y ? -1 : x > y ? 1 : 0);
    });
    body.append(...rows);
  });
}
