/** A document of a room for a component: open while the component is shown, which renders again whenever anybody changes it. */
import { RoomDocument } from "../protocol/document.js";
import { useEffect, useState } from "../ui/preact.js";

/** @typedef {{document: RoomDocument | null, error: Error | null, version: number}} Shown `version` grows with each change */

/**
 * @param {import("../protocol/client.js").RoomClient | null} client @param {string} path
 * @param {unknown} [json] its content, if it is not there yet
 * @returns {Shown}
 */
export function useDocument(client, path, json = null) {
  const [state, setState] = useState(/** @type {Shown} */ ({ document: null, error: null, version: 0 }));
  useEffect(() => {
    if (!client) return undefined;
    let isHere = true;
    /** @type {RoomDocument | null} */
    let document = null;
    const show = (/** @type {Error | null} */ error) => isHere && setState((before) => ({ document, error, version: before.version + 1 }));
    import("../vendor/yjs.js").then((yjs) => {
      if (!isHere) return;
      document = new RoomDocument(client, path, yjs, () => show(document?.error ?? null));
      document.open(json);
    }, show);
    return () => {
      isHere = false;
      document?.close();
    };
  }, [client, path]);
  return state;
}
