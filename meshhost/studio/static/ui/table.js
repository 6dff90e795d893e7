/**
 * Tables. On a narrow screen each row becomes a card whose cells carry their column's name (`css/parts.css`, `.stacks`).
 * For lists that may be long use `virtual.js`.
 */
import { html } from "./preact.js";

/**
 * @template T
 * @typedef {{name: string, cell: (row: T) => any, number?: boolean, head?: boolean, full?: boolean, hidden?: boolean}} Column
 * `head` marks the cell that names the row; `full` takes the whole width of a card; `hidden` leaves the column out.
 */

/**
 * @template T
 * @param {{label: string, columns: Column<T>[], rows: T[], rowKey: (row: T) => string}} props
 */
export function Table({ label, columns, rows, rowKey }) {
  const shown = columns.filter((column) => !column.hidden);
  return html`<div class="table-wrap">
    <table class="stacks" aria-label=${label}>
      <thead>
        <tr>${shown.map(({ name, number }) => html`<th scope="col" class=${number ? "number" : ""}>${name || html`<span class="hidden-text">Actions</span>`}</th>`)}</tr>
      </thead>
      <tbody>
        ${rows.map(
          (row) => html`<tr key=${rowKey(row)}>
            ${shown.map((column) => {
              const style = [column.number && "number", column.full && "full"].filter(Boolean).join(" ");
              return column.head
                ? html`<th scope="row" class=${style}>${column.cell(row)}</th>`
                : html`<td class=${style} data-label=${column.name || null}>${column.cell(row)}</td>`;
            })}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** A count that is grey when it is nothing. @param {{value: number | null | undefined, tone?: "bad" | "warn"}} props */
export function Count({ value, tone }) {
  const style = !value ? "zero" : tone ? `${tone}-text` : "";
  return html`<span class=${style}>${value === null || value === undefined ? "–" : value.toLocaleString()}</span>`;
}
