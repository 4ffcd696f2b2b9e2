"use strict";
// Keys for the buttons of a pair. Without this script, the buttons do the same.

(() => {
  // Arrows stand for two images, and a third answer.
  const isPair = !document.querySelector(".ballot[data-many]");
  const arrows = isPair ? { ArrowLeft: "1", ArrowRight: "2", ArrowDown: "3" } : {};
  const keys = document.querySelector(".keys");
  if (keys) keys.hidden = false;

  let sent = false;
  for (const form of document.querySelectorAll("form[method=post]")) {
    // A double click is one answer.
    form.addEventListener("submit", (event) => {
      if (sent) event.preventDefault();
      sent = true;
    });
  }
  // The page may be shown again by the button "back".
  addEventListener("pageshow", () => (sent = false));

  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.target.closest("input, select, textarea")) return;
    const key = arrows[event.key] ?? event.key.toLowerCase();
    const button = [...document.querySelectorAll("button[data-key]")].find((each) => each.dataset.key === key);
    if (!button) return;
    event.preventDefault();
    button.click();
  });
})();
