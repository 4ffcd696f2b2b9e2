"use strict";
// The leaderboard: of the filters for parts of the images, only one may be set. Choosing one clears the
// others before the form is sent.
for (const group of document.querySelectorAll("[data-one-of]")) {
  group.addEventListener("change", (event) => {
    if (event.target.value === "") return;
    for (const field of group.querySelectorAll("input, select")) {
      if (field !== event.target) field.value = "";
    }
  });
}
