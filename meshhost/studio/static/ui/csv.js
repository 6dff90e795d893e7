/** Reading CSV: a pure function. */

/**
 * Rows of a CSV text, with quoted fields; at most `most`.
 * @param {string} text @param {string} separator @param {number} [most]
 */
export function parseCsv(text, separator, most = Infinity) {
  /** @type {string[][]} */
  const rows = [];
  let row = /** @type {string[]} */ ([]);
  let field = "";
  let isQuoted = false;
  for (let index = 0; index < text.length && rows.length < most; index += 1) {
    const sign = text[index];
    if (isQuoted) {
      if (sign !== '"') field += sign;
      else if (text[index + 1] === '"') {
        field += '"';
        index += 1;
      } else isQuoted = false;
    } else if (sign === '"' && field === "") isQuoted = true;
    else if (sign === separator) {
      row.push(field);
      field = "";
    } else if (sign === "\n" || sign === "\r") {
      if (sign === "\r" && text[index + 1] === "\n") index += 1;
      rows.push([...row, field]);
      row = [];
      field = "";
    } else field += sign;
  }
  if (rows.length < most && (field || row.length)) rows.push([...row, field]);
  return rows;
}
