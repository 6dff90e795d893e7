/**
 * Tables. On a narrow screen each row becomes a card whose cells carry their column's name (`css/parts.css`, `.stacks`).
 *
 * A table of more than MOST_PLAIN rows scrolls by itself and renders those in view (`virtual.js`).
 */
import { html, useLayoutEffect, useState } from "./preact.js";
import { useRowsInView } from "./virtual.js";

const MOST_PLAIN = 60;
const ROW_HEIGHT = 38;

/**
 * @template T
 * @typedef {{name: string, cell: (row: T) => any, number?: boolean, head?: boolean, full?: boolean, hidden?: boolean}} Column
 * `head` marks the cell that names the row; `full` takes the whole width of a card; `hidden` leaves the column out.
 */

/**
 * @template T
 * @typedef {{label: string, columns: Column<T>[], rows: T[], rowKey: (row: T) => string, onEnd?: () => void}} Props
 * `onEnd` is called when the last row of a long table comes near.
 */

/**
 * @template T
 * @param {Props<T>} props
 */
export function Table(props) {
  const { label, columns, rows, rowKey } = props;
  if (rows.length > MOST_PLAIN) return html`<${LongTable} ...${props} />`;
  const shown = columns.filter((column) => !column.hidden);
  return html`<div class="table-wrap">
    <table class="stacks" aria-label=${label}><${Head} columns=${shown} />
      <tbody>${rows.map((row) => html`<tr key=${rowKey(row)}>${cells(row, shown)}</tr>`)}</tbody>
    </table>
  </div>`;
}

/**
 * @template T
 * @param {Props<T>} props
 */
function LongTable({ label, columns, rows, rowKey, onEnd }) {
  const [rowHeight, setRowHeight] = useState(ROW_HEIGHT);
  const { box, space, first, last } = useRowsInView(rows.length, rowHeight, onEnd);
  const shown = columns.filter((column) => !column.hidden);
  useLayoutEffect(() => {
    const body = space.current?.querySelector("tbody");
    const height = body ? body.getBoundingClientRect().height / Math.max(1, last - first) : 0;
    // A little more or less is no reason to draw all again, and would not come to an end where rows differ.
    if (height && Math.abs(height - rowHeight) > rowHeight / 10) setRowHeight(height);
  });
  return html`<div class="virtual long" ref=${box} tabindex="0" role="group" aria-label=${`Rows of ${label}`}>
    <div ref=${space}>
      <table class="stacks" aria-label=${label} aria-rowcount=${rows.length + 1}><${Head} columns=${shown} />
        <tbody>${rows.slice(first, last).map((row, offset) => html`<tr key=${rowKey(row)} aria-rowindex=${first + offset + 2}>${cells(row, shown)}</tr>`)}</tbody>
      </table>
    </div>
  </div>`;
}

/** @param {{columns: Column<any>[]}} props */
function Head({ columns }) {
  return html`<thead>
    <tr>${columns.map(({ name, number }) => html`<th scope="col" class=${number ? "number" : ""}>${name || html`<span class="hidden-text">Actions</span>`}</th>`)}</tr>
  </thead>`;
}

/**
 * @template T
 * @param {T} row @param {Column<T>[]} columns
 */
function cells(row, columns) {
  return columns.map((column) => {
    const style = [column.number && "number", column.full && "full"].filter(Boolean).join(" ");
    return column.head
      ? html`<th scope="row" class=${style}>${column.cell(row)}</th>`
      : html`<td class=${style} data-label=${column.name || null}>${column.cell(row)}</td>`;
  });
}

/** A count that is grey when it is nothing. @param {{value: number | null | undefined, tone?: "bad" | "warn"}} props */
export function Count({ value, tone }) {
  const style = !value ? "zero" : tone ? `${tone}-text` : "";
  return html`<span class=${style}>${value === null || value === undefined ? "–" : value.toLocaleString()}</span>`;
}
