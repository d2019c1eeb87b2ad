// Draws a chart when it first comes into view: forty closed sections cost nothing until they are opened.
"use strict";
const specifications = JSON.parse(document.getElementById("charts").textContent);
const options = { actions: { export: true, source: false, compiled: false, editor: false }, renderer: "svg" };

function draw(element) {
  const specification = specifications[element.dataset.chart];
  vegaEmbed(element, specification, options).catch((error) => { element.textContent = `chart: ${error.message}`; });
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    watcher.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "300px" });
document.querySelectorAll(".chart").forEach((element) => watcher.observe(element));

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
}
window.addEventListener("hashchange", openTarget);
openTarget();
