"use strict";
// On every page: the theme, and sorting, filtering and copying of tables. Everything is readable
// without this script.

(() => {
  const button = document.getElementById("theme");
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const root = document.documentElement;
      const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
      const theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
      root.dataset.theme = theme;
      try {
        localStorage.setItem("theme", theme);
      } catch {
        // Storage may be blocked: the theme lasts for this page.
      }
    });
  }

  const value = (cell) => cell?.dataset.value ?? cell?.textContent.trim() ?? "";

  // A spreadsheet would run names that begin like formulas, and break rows at tabs and line ends.
  const plain = (cell) => {
    const text = value(cell).replace(/^−(?=\d)/, "-").replace(/[\t\r\n]+/g, " ");
    return /^[=+\-@]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  };

  const compare = (a, b) => {
    // Missing values are last in both orders.
    if (a === "" || b === "") return a === b ? 0 : a === "" ? Infinity : -Infinity;
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  };

  const sortable = (table, body) => {
    for (const [at, head] of [...table.tHead.rows[0].cells].entries()) {
      // Heads with a link are sorted by the server.
      if (head.querySelector("a, button") || head.textContent.trim() === "") continue;
      const sort = document.createElement("button");
      sort.type = "button";
      sort.className = "sort";
      sort.append(...head.childNodes);
      head.append(sort);
      sort.addEventListener("click", () => {
        const ascending = head.getAttribute("aria-sort") !== "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => [value(row.cells[at]), row]);
        rows.sort(([a], [b]) => {
          const order = compare(a, b);
          return Math.abs(order) === Infinity || ascending ? order : -order;
        });
        body.append(...rows.map(([, row]) => row));
      });
    }
  };

  const copy = async (table, button) => {
    const rows = [...table.rows].filter((row) => !row.hidden);
    // Spreadsheets read the ASCII minus sign only.
    const text = rows.map((row) => [...row.cells].map(plain).join("\t")).join("\n");
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // Without access to the clipboard the table is selected, to be copied by hand.
      getSelection().selectAllChildren(table);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  };

  for (const block of document.querySelectorAll("div.table")) {
    const table = block.querySelector("table");
    const body = table.tBodies[0];
    const filter = block.querySelector("input.filter");
    const button = block.querySelector("button.copy");
    if (!body || !filter || !button) continue;
    sortable(table, body);
    button.hidden = false;
    button.addEventListener("click", () => copy(table, button));
    filter.hidden = body.rows.length < 6;
    filter.addEventListener("input", () => {
      const wanted = filter.value.trim().toLowerCase();
      for (const row of body.rows) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
      }
    });
  }

  // Filters apply when they are changed; their button stays for those without a script.
  for (const form of document.querySelectorAll("form[data-auto]")) {
    form.addEventListener("change", () => form.requestSubmit());
    form.addEventListener("formdata", ({ formData }) => {
      for (const name of new Set(formData.keys())) {
        const filled = formData.getAll(name).filter((entry) => entry !== "");
        formData.delete(name);
        for (const entry of filled) formData.append(name, entry);
      }
    });
  }

  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copy)?.textContent ?? "";
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Select the text and press Ctrl+C";
      }
    });
  }
})();
