// Runs before anything is drawn and before the modules are there, so it is a classic script.
(() => {
  // The theme that was chosen, so that nobody sees a white flash.
  try {
    const theme = localStorage.getItem("meshhost.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Without storage the system's theme stays.
  }
  // Who is signed in is asked for at once: the answer comes while the modules load. `app/session.js` takes it.
  if (!location.hash.startsWith("#code=")) /** @type {any} */ (window).meshhostSession = fetch("/studio/api/session").catch(() => null);
})();
