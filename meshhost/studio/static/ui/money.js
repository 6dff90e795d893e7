/**
 * Amounts of money, exactly: whole numbers (BigInt) of 1/10^12 of a currency, as the server computes them. Only what is drawn or
 * shown in few digits becomes a floating-point number. A leaf.
 */
const DECIMALS = 12;
const UNIT = 10 ** DECIMALS;
/** Less is said to be less. */
export const LEAST = 0.000001;

/** @param {string} text a decimal number such as "0.0175" @returns {bigint} */
export function amountOf(text) {
  const [whole, rest = ""] = text.split(".");
  return BigInt(whole + rest.slice(0, DECIMALS).padEnd(DECIMALS, "0"));
}

/** The whole amount as a decimal number. @param {bigint} amount */
export function exactly(amount) {
  const digits = amount.toString().padStart(DECIMALS + 1, "0");
  return `${digits.slice(0, -DECIMALS)}.${digits.slice(-DECIMALS)}`.replace(/\.?0+$/, "");
}

/** As a number, for charts. @param {bigint} amount */
export const drawn = (amount) => Number(amount) / UNIT;

/** Such as "US$1,234.50" or "US$0.00175". @param {number} value @param {string} currency of three letters */
export function money(value, currency) {
  const digits = value === 0 || value >= 1 ? { minimumFractionDigits: 2, maximumFractionDigits: 2 } : { maximumSignificantDigits: 3 };
  const format = new Intl.NumberFormat(undefined, { style: "currency", currency, ...digits });
  return value > 0 && value < LEAST ? `< ${new Intl.NumberFormat(undefined, { style: "currency", currency, maximumSignificantDigits: 1 }).format(LEAST)}` : format.format(value);
}
