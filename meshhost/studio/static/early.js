// Runs before anything is drawn and before the modules are there, so it is a classic script.
(() => {
  // The theme, so that nobody sees a white flash; from then on it is `app/theme.js` that sets it.
  let theme = null;
  try {
    theme = localStorage.getItem("meshhost.theme");
  } catch {
    // Without storage the system's theme counts.
  }
  if (theme !== "light" && theme !== "dark") theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.documentElement.dataset.theme = theme;
  // Who is signed in is asked for at once: the answer comes while the modules load. `app/session.js` takes it.
  if (!location.hash.startsWith("#code=")) /** @type {any} */ (window).meshhostSession = fetch("/studio/api/session").catch(() => null);
})();
