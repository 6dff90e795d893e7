// Light or dark: chosen, or as the system has it; the root element always says which.
import assert from "node:assert/strict";
import { test } from "node:test";

let tell = () => {};
const system = { matches: true, addEventListener: (_, listener) => (tell = listener) };
const root = { dataset: {} };
const kept = new Map();
globalThis.matchMedia = () => system;
globalThis.document = { documentElement: root };
globalThis.localStorage = { getItem: (name) => kept.get(name) ?? null, setItem: (name, text) => kept.set(name, text) };
const { scheme, setTheme, theme } = await import("../../meshhost/studio/static/app/theme.js");

test("the theme is the system's, also when that changes, until one is chosen", () => {
  const seen = [];
  scheme.subscribe((value) => seen.push([value, root.dataset.theme]));
  assert.deepEqual([theme.value, scheme.value], ["system", "dark"]);
  system.matches = false;
  tell();
  setTheme("dark");
  system.matches = true;
  tell();
  setTheme("light");
  assert.equal(kept.get("meshhost.theme"), "light");
  setTheme("system");
  assert.deepEqual(seen, [["dark", "dark"], ["light", "light"], ["dark", "dark"], ["light", "light"], ["dark", "dark"]]);
});
