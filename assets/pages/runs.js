"use strict";
// Live progress of a run. Without this script the page has a link to reload it.

(() => {
  const section = document.querySelector("section.progress[data-events]");
  if (!section || !window.EventSource) return;
  const part = (id) => document.getElementById(id);
  const format = new Intl.NumberFormat("en");
  const rate = part("rate");
  const seen = [];

  const duration = (seconds) => {
    if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return `${(seconds / 3600).toFixed(1)} h`;
  };

  const describe = (counts, held) => {
    if (held) return `Blocked: ${held.detail}`;
    const now = performance.now();
    const done = counts.scored + counts.failed;
    seen.push([now, done]);
    // The rate of the last minute, from at least two seconds.
    while (seen.length > 2 && now - seen[0][0] > 60_000) seen.shift();
    const [from, before] = seen[0];
    const seconds = (now - from) / 1000;
    if (counts.pending === 0) return "Live. Nothing is pending.";
    if (seconds < 2 || done === before) return "Live.";
    const speed = (done - before) / seconds;
    return `Live: ${speed.toPrecision(2)} samples a second, about ${duration(counts.pending / speed)} left.`;
  };

  const show = ({ counts, held }) => {
    const done = counts.scored + counts.failed;
    part("bar").max = Math.max(counts.accepted, 1);
    part("bar").value = done;
    part("done").textContent = format.format(done);
    for (const name of ["accepted", "scored", "failed", "pending"]) {
      part(name).textContent = format.format(counts[name]);
    }
    rate.textContent = describe(counts, held);
  };

  const source = new EventSource(section.dataset.events);
  source.addEventListener("progress", (event) => show(JSON.parse(event.data)));
  source.addEventListener("finished", (event) => {
    source.close();
    show(JSON.parse(event.data));
    location.reload();
  });
  source.addEventListener("error", () => {
    // The browser connects again by itself, unless the server refused.
    rate.textContent =
      source.readyState === EventSource.CLOSED
        ? "Live updates are not available now. Reload the page to see the current counts."
        : "The connection was lost. Connecting again …";
  });
})();
