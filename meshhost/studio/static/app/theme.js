/**
 * Light or dark: as one chose, or as the system has it.
 *
 * The root element always says which it is, so that `css/base.css` has each theme once. `early.js` does the same before anything is
 * drawn; from then on this module keeps it true, also when the system's changes.
 */
import { signal } from "../ui/preact.js";

/** @typedef {"light" | "dark"} Scheme */

const PLACE = "meshhost.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

/** What was chosen. @type {import("../vendor/signals.js").Signal<Scheme | "system">} */
export const theme = signal(/** @type {Scheme | "system"} */ (stored()));

/** What is shown. @type {import("../vendor/signals.js").Signal<Scheme>} */
export const scheme = signal(/** @type {Scheme} */ ("light"));

show();
system.addEventListener("change", show);

/** @param {Scheme | "system"} choice */
export function setTheme(choice) {
  theme.value = choice;
  show();
  try {
    localStorage.setItem(PLACE, choice);
  } catch {
    // A browser without storage forgets the choice.
  }
}

function show() {
  const chosen = theme.peek();
  const shown = chosen === "system" ? (system.matches ? "dark" : "light") : chosen;
  // First: who sees the signal change reads colours.
  document.documentElement.dataset.theme = shown;
  scheme.value = shown;
}

function stored() {
  try {
    const found = localStorage.getItem(PLACE);
    return found === "light" || found === "dark" ? found : "system";
  } catch {
    return "system";
  }
}
