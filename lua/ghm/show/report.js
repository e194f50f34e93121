// Sorts a table by the column whose heading is pressed: rising first, then falling. Without this
// script the headings are plain words and the report is whole.
"use strict";

// What a cell sorts by: its number, or its words; null where it has none, which stays last.
function key(cell) {
    const number = cell.querySelector("data");
    const value = number ? Number(number.value) : cell.textContent.trim();
    return value === "" || Number.isNaN(value) ? null : value;
}

function order(a, b) {
    if (typeof a === "number" && typeof b === "number") {
        return a < b ? -1 : a > b ? 1 : 0; // infinities too
    }
    return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sort(table, column, sign) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, key: key(row.cells[column]) }));
    rows.sort((a, b) => a.key === null || b.key === null
        ? (a.key === null) - (b.key === null)
        : sign * order(a.key, b.key));
    body.append(...rows.map((entry) => entry.row));
}

for (const table of document.querySelectorAll("table.sorts")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
        const button = document.createElement("button"); // so that Tab and Enter reach it
        button.append(...head.childNodes);
        head.append(button);
        button.addEventListener("click", () => {
            const falling = head.getAttribute("aria-sort") === "ascending";
            heads.forEach((other) => other.removeAttribute("aria-sort"));
            head.setAttribute("aria-sort", falling ? "descending" : "ascending");
            sort(table, column, falling ? -1 : 1);
        });
    });
}
