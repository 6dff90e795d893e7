/**
 * Line charts over time, drawn by uPlot on a canvas, which says nothing to screen readers: each chart has a sentence with its last
 * values, and the same points as a table that one may open. uPlot is loaded with the first chart.
 */
import { scheme } from "../app/theme.js";
import { axisWidth } from "./axis.js";
import { clockTime, number } from "./format.js";
import { html, useEffect, useRef, useSignal } from "./preact.js";

const HEIGHT = 150;
const TABLE_ROWS = 30;
const MINUTES = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
const STEPS = [60, 120, 300, 600, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800];

/**
 * @typedef {{label: string, tone: 1 | 2 | 3 | 4, values: (number | null)[], show?: (value: number) => string}} Line
 * @param {{title: string, times: number[], lines: Line[], show?: (value: number) => string, span?: number, least?: number}} props
 * times in seconds since 1970; `span` is how many seconds the axis shows, also where there are not as many points yet; the axis of the
 * values goes to `least` at least
 */
export function Chart({ title, times, lines, show = number, span, least = 1 }) {
  const target = useRef(/** @type {HTMLElement | null} */ (null));
  const plot = useRef(/** @type {any} */ (null));
  const shown = useSignal(scheme);
  const data = [times, ...lines.map(({ values }) => values)];
  const latest = useRef(data);
  latest.current = data;
  useEffect(() => {
    const element = target.current;
    if (!element) return undefined;
    let isGone = false;
    const resize = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    void import("../vendor/uplot.js").then(({ default: UPlot }) => {
      // Of other lines by now: they were rendered, and the effect for them comes.
      if (isGone || latest.current.length !== lines.length + 1) return;
      plot.current = new UPlot(options(element, lines, show, span, least), latest.current, element);
      resize.observe(element);
    });
    return () => {
      isGone = true;
      resize.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shown, span, lines.map(({ label }) => label).join()]);
  useEffect(() => plot.current?.setData(data), [times, lines]);
  const last = times.length - 1;
  const now = lines
    .filter(({ values }) => values[last] !== null && values[last] !== undefined)
    .map(({ label, values }) => `${label} ${show(Number(values[last]))}`)
    .join(", ");
  return html`<figure class="chart">
    <figcaption>
      <h3>${title}</h3>
      <ul class="legend">${lines.map(
        ({ label, tone, values }) => html`<li data-tone=${tone}>${label} <strong>${values[last] === null || values[last] === undefined ? "–" : show(Number(values[last]))}</strong></li>`,
      )}</ul>
    </figcaption>
    <div class="plot" ref=${target} role="img" aria-label=${`${title}: ${now || "no values yet"}`}></div>
    <details>
      <summary>As a table</summary>
      <div class="table-wrap"><table>
        <thead><tr><th scope="col">Time</th>${lines.map(({ label }) => html`<th scope="col" class="number">${label}</th>`)}</tr></thead>
        <tbody>
          ${times.slice(-TABLE_ROWS).map((time, offset) => {
            const index = Math.max(0, times.length - TABLE_ROWS) + offset;
            return html`<tr><th scope="row">${clockTime(time)}</th>${lines.map(({ values }) => html`<td class="number">${values[index] === null ? "–" : show(Number(values[index]))}</td>`)}</tr>`;
          })}
        </tbody>
      </table></div>
    </details>
  </figure>`;
}

/** @param {HTMLElement} element @param {Line[]} lines @param {(value: number) => string} show @param {number | undefined} span @param {number} least */
function options(element, lines, show, span, least) {
  const style = getComputedStyle(element);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: colour("--muted"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1, size: 4 },
    font: `11px ${colour("--sans")}`,
  };
  return {
    width: element.clientWidth || 300,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, points: { size: 6 } },
    scales: {
      ...(span && { x: { range: (/** @type {any} */ _, /** @type {number} */ __, /** @type {number} */ last) => [last - span, last] } }),
      y: { range: (/** @type {any} */ _, /** @type {number} */ __, /** @type {number} */ most) => [0, Math.max(most * 1.1, least)] },
    },
    axes: [
      { ...axis, space: 68, incrs: STEPS, values: (/** @type {any} */ _, /** @type {number[]} */ ticks) => ticks.map((tick) => MINUTES.format(tick * 1000)) },
      // The first two words say enough at an axis: "33 min" of "33 min 20 s".
      { ...axis, size: (/** @type {any} */ _, /** @type {string[] | null} */ labels) => axisWidth(labels ?? []), values: (/** @type {any} */ _, /** @type {number[]} */ ticks) => ticks.map((tick) => show(tick).split(" ").slice(0, 2).join(" ")) },
    ],
    series: [
      {},
      ...lines.map(({ label, tone }) => ({ label, stroke: colour(`--series-${tone}`), width: 1.75, points: { show: false }, spanGaps: false })),
    ],
  };
}
