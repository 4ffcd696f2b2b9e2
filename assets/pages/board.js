"use strict";
// The leaderboard: filters that exclude each other, and folds that stay open when a filter is changed.
(() => {
  // Of the filters for parts of the images, only one may be set. Choosing one clears the others before
  // the form is sent.
  for (const group of document.querySelectorAll("[data-one-of]")) {
    group.addEventListener("change", (event) => {
      if (event.target.value === "") return;
      for (const field of group.querySelectorAll("input, select")) {
        if (field !== event.target) field.value = "";
      }
    });
  }

  const folds = [...document.querySelectorAll("form.filters details")];
  const key = "leaderboard-folds";
  try {
    const open = new Set(JSON.parse(sessionStorage.getItem(key) ?? "[]"));
    folds.forEach((fold, at) => (fold.open ||= open.has(at)));
    for (const fold of folds) {
      fold.addEventListener("toggle", () => {
        const open = folds.flatMap((each, at) => (each.open ? [at] : []));
        sessionStorage.setItem(key, JSON.stringify(open));
      });
    }
  } catch {
    // Storage may be blocked: folds then close when a filter is changed.
  }
})();
