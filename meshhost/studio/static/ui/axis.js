/** How much place the labels of a chart's axis need, which is drawn on a canvas. A leaf. */
const LEAST_PX = 52;
// Of the axis's font, and between its texts and the chart.
const LETTER_PX = 6.5;
const GAP_PX = 12;

/** How many pixels the axis of the values needs for these. @param {string[]} labels */
export const axisWidth = (labels) => Math.max(LEAST_PX, ...labels.map((label) => Math.ceil(label.length * LETTER_PX) + GAP_PX));
