/**
 * Charts of a queue's or a room's past: what waited, what was done, how old the oldest was. The server keeps ten minutes by ten
 * seconds and a day by minutes; one chooses. A server that keeps no past shows no charts.
 */
import { ApiError, get } from "../../app/api.js";
import { useResource } from "../../app/live.js";
import { Chart } from "../../ui/chart.js";
import { duration, number } from "../../ui/format.js";
import { Card } from "../../ui/parts.js";
import { html, useMemo, useState } from "../../ui/preact.js";

/** @typedef {{time: string, ready: number, delayed: number, leased: number, dead: number, oldest_seconds: number | null,
 *   sent: number, started: number, done: number, failed: number}} Point */

/** Seconds that are shown, by the seconds between points. @type {Record<number, number>} */
const SPANS = { 10: 600, 60: 86_400 };

/** @param {{path: string}} props */
export function Series({ path }) {
  const [step, setStep] = useState(10);
  const series = useResource((signal) => get(`${path}?step=${step}`, signal), [path, step], { every: step === 10 ? 5000 : 30_000 });
  const points = /** @type {Point[] | undefined} */ (series.data?.points);
  const parts = useMemo(() => (points ? lines(points, step) : null), [points, step]);
  if (series.error instanceof ApiError && series.error.status === 404) return null;
  const choice = (/** @type {number} */ value, /** @type {string} */ text) => html`<button class="button quiet" aria-pressed=${step === value} onClick=${() => setStep(value)}>${text}</button>`;
  return html`<${Card} title="Over time" actions=${html`<div class="choice" role="group" aria-label="How far back">${choice(10, "10 minutes")}${choice(60, "24 hours")}</div>`}>
    ${parts && points && points.length > 1
      ? html`<div class="charts">
          <${Chart} title="Waiting and in progress" times=${parts.times} lines=${parts.waiting} span=${SPANS[step]} />
          <${Chart} title="Per minute" times=${parts.times} lines=${parts.rates} show=${rate} span=${SPANS[step]} />
          <${Chart} title="Age of the oldest" times=${parts.times} lines=${parts.ages} show=${duration} span=${SPANS[step]} />
        </div>`
      : html`<p class="loading">${series.error ? series.error.message : "The first points come within half a minute."}</p>`}
  </${Card}>`;
}

/** @param {number} value */
const rate = (value) => (value >= 10 || value === 0 ? number(Math.round(value)) : value.toFixed(1));

/** @param {Point[]} points @param {number} step */
function lines(points, step) {
  const of = (/** @type {keyof Point} */ name) => points.map((point) => /** @type {number | null} */ (point[name]));
  const perMinute = (/** @type {keyof Point} */ name) => points.map((point) => (Number(point[name]) * 60) / step);
  return {
    times: points.map((point) => Date.parse(point.time) / 1000),
    waiting: [
      { label: "Ready", tone: 1, values: of("ready") },
      { label: "In progress", tone: 3, values: of("leased") },
      { label: "Delayed", tone: 2, values: of("delayed") },
      { label: "Dead", tone: 4, values: of("dead") },
    ],
    rates: [
      { label: "Sent", tone: 1, values: perMinute("sent") },
      { label: "Done", tone: 3, values: perMinute("done") },
      { label: "Failed", tone: 4, values: perMinute("failed") },
    ],
    ages: [{ label: "Oldest", tone: 2, values: of("oldest_seconds") }],
  };
}
