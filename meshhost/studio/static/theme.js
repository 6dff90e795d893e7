// Sets the theme before the page is drawn, so that nobody sees a white flash. A classic script, because modules run too late.
(() => {
  try {
    const theme = localStorage.getItem("meshhost.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Without storage the system's theme stays.
  }
})();
