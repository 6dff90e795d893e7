/** Line icons, drawn for Studio on a grid of 16. They say nothing to screen readers: the text beside them does. */
import { html } from "./preact.js";

const PATHS = {
  home: "M2.5 7.5 8 3l5.5 4.5M4 6.5V13h8V6.5",
  room: "M2.5 3.5h11v9h-11zM2.5 7h11M6.5 7v5.5",
  queue: "M3 4h10M3 8h10M3 12h6",
  clock: "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11ZM8 5v3l2 1.5",
  hook: "M6 3.5a2 2 0 1 1 2.6 1.9L8 9a2.5 2.5 0 1 1-3.6-2M9 9.5h1.5a2 2 0 1 1-1.8 2.8",
  file: "M4 2.5h5l3 3v8H4zM9 2.5v3h3",
  folder: "M2.5 4h4l1.5 1.5h5.5V12.5h-11z",
  chat: "M2.5 3.5h11v7H7l-3 2.5v-2.5H2.5z",
  document: "M3.5 2.5h9v11h-9zM6 6h4M6 8.5h4M6 11h2",
  trace: "M2.500 4h5M5.500 8h6M9 12h4.500",
  log: "M2.5 4.5 5 7 2.5 9.5M7 10.5h6",
  host: "M2.5 3h11v4h-11zM2.5 9h11v4h-11zM5 5h.01M5 11h.01",
  tenant: "M8 7.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5ZM3 13.5c.5-3 2.500-4 5-4s4.500 1 5 4",
  key: "M10 2.500a3.500 3.500 0 1 1-2.800 5.600L3 12.500V14h2v-1.500h1.500V11l1.700-1.700M11 5h.01",
  usage: "M2.500 13.500h11M4 11V8M7 11V5M10 11V7M13 11V3",
  search: "M7 2.500a4.500 4.500 0 1 0 0 9 4.500 4.500 0 0 0 0-9ZM10.500 10.500l3 3",
  menu: "M2.500 4h11M2.500 8h11M2.500 12h11",
  close: "M4 4l8 8M12 4l-8 8",
  sun: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM8 1.500v1M8 13.500v1M1.500 8h1M13.500 8h1M3.400 3.400l.7.7M11.900 11.900l.7.7M3.400 12.600l.7-.7M11.900 4.100l.7-.7",
  moon: "M12.500 9.500A5 5 0 0 1 6.500 3.500a5 5 0 1 0 6 6Z",
  auto: "M8 2.500a5.500 5.500 0 1 0 0 11 5.500 5.500 0 0 0 0-11ZM8 2.500v11",
  out: "M6.500 2.500h-4v11h4M6 8h7.500M11 5.500 13.500 8 11 10.500",
  agent: "M4 5.500h8v7H4zM8 5.500V3M6 8.500v1M10 8.500v1M2 8v2.500M14 8v2.500",
  person: "M8 7a2.500 2.500 0 1 0 0-5 2.500 2.500 0 0 0 0 5ZM3 13.500c.5-3 2.500-4.500 5-4.500s4.500 1.500 5 4.500",
  tool: "M10 2.500a3 3 0 0 0-2.500 4.500L2.500 12 4 13.500l5-5A3 3 0 0 0 13 4.800L11.200 6.500 9.500 4.800 11.200 3A3 3 0 0 0 10 2.500Z",
  warning: "M8 2.500 14 13H2zM8 6.500v3M8 11.300h.01",
  upload: "M8 10.500v-8M5 5l3-3 3 3M2.500 10.500v3h11v-3",
  download: "M8 2.500v8M5 8l3 3 3-3M2.500 10.500v3h11v-3",
  microphone: "M8 2a2 2 0 0 0-2 2v4a2 2 0 0 0 4 0V4a2 2 0 0 0-2-2ZM3.500 8a4.500 4.500 0 0 0 9 0M8 12.500V14.500",
  send: "M2.500 3 13.500 8l-11 5 1.500-5zM4 8h4",
  pause: "M5.500 3.500v9M10.500 3.500v9",
  play: "M5 3.500 12 8l-7 4.500z",
  trash: "M3 4.500h10M6.500 4.500v-2h3v2M4.500 4.500l.5 9h6l.5-9",
  retry: "M3 8a5 5 0 1 1 1.500 3.500M3 13v-2.500h2.500",
  plus: "M8 3v10M3 8h10",
  copy: "M5.500 5.500h8v8h-8zM5.500 10.500h-3v-8h8v3",
};

/** @param {{name: keyof typeof PATHS}} props */
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;
}
