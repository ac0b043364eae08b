for (const table of document.querySelectorAll("table[data-sortable]")) {
  const headings = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const numeric = heading.classList.contains("number");
    const first = numeric ? "descending" : "ascending", second = numeric ? "ascending" : "descending";
    const order = heading.getAttribute("aria-sort") === first ? second : first;
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", order);
    const key = row => row.cells[column].dataset.key ?? row.cells[column].textContent;
    const sign = order === "ascending" ? 1 : -1, missing = row => key(row) === "" || key(row) === "n/a";
    const compare = (a, b) => missing(a) - missing(b)
      || sign * (numeric ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, {numeric: true}));
    body.append(...[...body.rows].sort(compare));
  }));
}
const lines = [...document.querySelectorAll("table.results tbody tr")];
if (lines.length > 12) {  // a page without scripts has no use for the field
  const label = document.createElement("label"), field = document.createElement("input");
  label.className = "filter";
  field.type = "search";
  field.placeholder = "words of its name, settings or dataset";
  label.append("Show runs with", field);
  document.querySelector("#results h2").after(label);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const line of lines) {
      const text = (line.cells[0].textContent + " " + line.closest("table").ariaLabel).toLowerCase();
      line.hidden = !words.every(word => text.includes(word));
    }
    for (const table of document.querySelectorAll("table.results"))
      table.parentElement.hidden = ![...table.tBodies[0].rows].some(line => !line.hidden);
  });
}
function show() {  // what a link points at may be folded
  const place = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const folded = place && place.closest("details");
  if (folded && !folded.open) { folded.open = true; place.scrollIntoView(); }
}
addEventListener("hashchange", show);
show();
const unfold = () => document.querySelectorAll("details:not(.many)").forEach(item => item.open = true);
addEventListener("beforeprint", unfold);
