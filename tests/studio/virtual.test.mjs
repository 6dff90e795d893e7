// Which rows of a long list are rendered.
import assert from "node:assert/strict";
import { test } from "node:test";

const { rowsInView } = await import("../../meshhost/studio/static/ui/virtual.js");

test("what is in view is rendered, and never more than a few rows beyond", () => {
  for (const count of [0, 1, 5, 40, 1000, 1_000_000]) {
    for (const rowHeight of [17, 44, 52.5]) {
      const height = 600;
      const most = Math.max(0, count * rowHeight - height);
      for (const top of [0, 1, most / 3, most / 2, most - 1, most].map((each) => Math.max(0, each))) {
        const { first, last } = rowsInView(count, rowHeight, { top, height });
        assert.ok(first * rowHeight <= top, `${count} rows, ${top}: begins at ${first}`);
        assert.ok(last === count || last * rowHeight >= top + height, `${count} rows, ${top}: ends at ${last}`);
        assert.ok(first >= 0 && last <= count && last - first <= height / rowHeight + 19);
      }
    }
  }
});

test("a list that got shorter than where one had scrolled to shows its end", () => {
  const { first, last } = rowsInView(100, 40, { top: 400_000, height: 600 });
  assert.deepEqual([last, first], [100, 69]);
});
