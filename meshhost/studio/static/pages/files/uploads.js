/**
 * Uploads into a folder, one after another, with how far each is: what the room confirmed. After a cut an upload goes on by itself;
 * one that is stopped, or whose page is left, is given up at the server, too.
 */
import { storeFile } from "../../app/storing.js";
import { bytes } from "../../ui/format.js";
import { Icon } from "../../ui/icons.js";
import { html, useEffect, useRef, useState } from "../../ui/preact.js";

/** @typedef {{id: number, name: string, path: string, size: number, sent: number, state: "waiting" | "sending" | "cut" | "exists" | "done" | "failed",
 *   error: string, file: File, overwrite: boolean, stopping: AbortController}} Upload */

let last = 0;

/** @param {import("../../protocol/client.js").RoomClient | null} client */
export function useUploads(client) {
  const [list, setList] = useState(/** @type {Upload[]} */ ([]));
  const all = useRef(/** @type {Upload[]} */ ([]));
  const isBusy = useRef(false);
  const current = useRef(client);
  current.current = client;
  const show = () => setList([...all.current]);
  const run = async () => {
    if (isBusy.current) return;
    isBusy.current = true;
    for (let next = waiting(all.current); next; next = waiting(all.current)) {
      await upload(next, () => current.current, show);
      show();
    }
    isBusy.current = false;
  };
  useEffect(
    () => () => {
      for (const each of all.current) each.stopping.abort();
    },
    [],
  );
  return {
    list,
    /** @param {string} folder @param {File[]} files @param {Set<string>} taken names that are there already */
    add(folder, files, taken) {
      for (const file of files) {
        last += 1;
        const path = [folder, file.name].filter(Boolean).join("/");
        all.current.push({ id: last, name: file.name, path, size: file.size, sent: 0, state: taken.has(file.name) ? "exists" : "waiting", error: "", file, overwrite: false, stopping: new AbortController() });
      }
      show();
      void run();
    },
    /** @param {Upload} which @param {boolean} [overwrite] write over the file that is there, instead of giving up */
    remove(which, overwrite = false) {
      if (overwrite) Object.assign(which, { overwrite: true, state: "waiting" });
      else {
        which.stopping.abort();
        all.current = all.current.filter((each) => each !== which);
      }
      show();
      void run();
    },
  };
}

/** @param {Upload[]} all */
const waiting = (all) => all.find(({ state }) => state === "waiting");

/** @param {Upload} one @param {() => import("../../protocol/client.js").RoomClient | null} clientOf @param {() => void} show */
async function upload(one, clientOf, show) {
  one.state = "sending";
  try {
    await storeFile(clientOf, one.path, one.file, {
      overwrite: one.overwrite,
      signal: one.stopping.signal,
      onProgress: (sent) => {
        Object.assign(one, { state: "sending", sent });
        show();
      },
      onCut: () => {
        one.state = "cut";
        show();
      },
    });
    one.state = "done";
  } catch (error) {
    Object.assign(one, { state: "failed", error: /** @type {Error} */ (error).message });
  }
}

/** @param {{list: Upload[], remove: (which: Upload, overwrite?: boolean) => void}} props */
export function Uploads({ list, remove }) {
  if (!list.length) return null;
  return html`<section class="card" aria-label="Uploads">
    <ul class="uploads">
      ${list.map((one) => {
        const part = one.size ? one.sent / one.size : 1;
        return html`<li key=${one.id}>
          <span class="clip">${one.name}</span>
          ${one.state === "exists"
            ? html`<span>There is a file of this name. <button class="button" onClick=${() => remove(one, true)}>Write over it</button></span>`
            : one.state === "failed"
              ? html`<span class="bad-text wrap" role="alert">${one.error}</span>`
              : one.state === "done"
                ? html`<span class="muted">${bytes(one.size)} stored</span>`
                : html`<span class="upload-state"><progress value=${part} max="1" aria-label=${`Upload of ${one.name}`}></progress>
                    <span class="muted small">${one.state === "cut" ? "The connection was cut: it goes on when the server is back" : `${bytes(one.sent)} of ${bytes(one.size)}`}</span></span>`}
          <button class="button quiet icon-only" aria-label=${one.state === "done" ? `Dismiss ${one.name}` : `Stop ${one.name}`} onClick=${() => remove(one)}><${Icon} name="close" /></button>
        </li>`;
      })}
    </ul>
  </section>`;
}
