"use strict";
// Shows the copies that this tab has of images which the service does not store (`score.js`).

(() => {
  let kept = {};
  try {
    kept = JSON.parse(sessionStorage.getItem(`images:${location.pathname}`) ?? "{}");
  } catch {
    return;
  }
  for (const element of document.querySelectorAll("[data-of]")) {
    const copy = kept[element.dataset.of];
    if (typeof copy !== "string" || !copy.startsWith("data:image/jpeg;base64,")) continue;
    if (element instanceof SVGImageElement) element.setAttribute("href", copy);
    else element.querySelector("img")?.setAttribute("src", copy);
    document.querySelector(".kept").hidden = false;
    document.querySelector(".not-kept")?.remove();
  }
})();
