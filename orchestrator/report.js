"use strict";
// The page says everything without this script; it adds sorting, filtering and conveniences.

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function keyOf(row, index) {
  const cell = row.cells[index];
  const key = cell.dataset.key ?? cell.textContent.trim();
  const number = key === "" ? NaN : Number(key);
  return { text: key, number, missing: key === "" || key === "–" };
}

function sortRows(table, index, descending) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => ({ row, key: keyOf(row, index) }));
  rows.sort((a, b) => {
    // What is missing stays at the end, whichever way round.
    if (a.key.missing || b.key.missing) return a.key.missing - b.key.missing;
    const numbers = !Number.isNaN(a.key.number) && !Number.isNaN(b.key.number);
    const order = numbers ? a.key.number - b.key.number : collator.compare(a.key.text, b.key.text);
    return descending ? -order : order;
  });
  body.append(...rows.map((item) => item.row));
}

function makeSortable(table) {
  const headers = Array.from(table.tHead.rows[0].cells);
  headers.forEach((header, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortRows(table, index, descending);
    });
  });
}

function makeFilterable(box, table) {
  const rows = Array.from(table.tBodies[0].rows);
  if (rows.length < 2) return;
  const label = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("output");
  input.type = "search";
  input.placeholder = "e.g. 0.01 xavier";
  label.append("Filter rows ", input);
  const line = document.createElement("p");
  line.className = "filter";
  line.append(label, " ", count);
  box.prepend(line);
  const texts = new Map(rows.map((row) => [
    row, Array.from(row.cells, (cell) => cell.textContent).join(" ").toLowerCase(),
  ]));
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !words.every((word) => texts.get(row).includes(word));
      shown += !row.hidden;
    }
    count.value = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
  };
  input.addEventListener("input", show);
  show();
}

for (const box of document.querySelectorAll(".sortable")) {
  const table = box.querySelector("table");
  makeSortable(table);
  makeFilterable(box, table);
}

document.addEventListener("keydown", (event) => {
  const enlarged = document.querySelector(".plot:target .close");
  if (event.key === "Escape" && enlarged) location.hash = enlarged.hash;
});

// Paper cannot be opened: print what is folded, then fold it again.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = Array.from(document.querySelectorAll("details:not([open])"));
  folded.forEach((details) => { details.open = true; });
});
window.addEventListener("afterprint", () => {
  folded.forEach((details) => { details.open = false; });
});
