"use strict";
// Sorts a table by the column whose head was pressed: ascending, then descending. What has no value stays last.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(other => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const numeric = head.classList.contains("n");
      const value = row => {
        const cell = row.cells[column];
        if (!numeric) return cell.textContent;
        return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
      };
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        const less = numeric ? x - y : x.localeCompare(y, "en", { numeric: true });
        return down ? -less : less;
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(order));
    });
  });
}
// Colours: as the system has them, light, dark.
const button = document.getElementById("theme");
const themes = [["", "as the system"], ["light", "light"], ["dark", "dark"]];
let theme = 0;
button.hidden = false;
button.addEventListener("click", () => {
  theme = (theme + 1) % themes.length;
  const [name, words] = themes[theme];
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  button.querySelector("span").textContent = words;
});
// What is collapsed is printed too.
const details = [...document.querySelectorAll("details")];
let closed = [];
addEventListener("beforeprint", () => {
  closed = details.filter(one => !one.open);
  closed.forEach(one => { one.open = true; });
});
addEventListener("afterprint", () => closed.forEach(one => { one.open = false; }));
