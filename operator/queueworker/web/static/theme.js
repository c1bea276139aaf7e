// Runs before the first paint, so that a chosen theme does not flash.
const chosen = (() => {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null; // storage may be forbidden
  }
})();
if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
