/** Who in a room takes messages, kept by the events of messaging; and sending to them. */
import { ConnectionLostError } from "../protocol/client.js";
import { useEffect, useState } from "../ui/preact.js";

/**
 * @typedef {{id: string, role: string, attributes: Record<string, any>}} Participant
 * @typedef {{from: string, type: string, message: any}} Message
 */

/**
 * @param {ReturnType<typeof import("./room-client.js").useRoomClient>} connection
 * @param {(message: Message) => void} [onMessage]
 * @returns {{present: Participant[] | null, error: Error | null}} `present` is null until they are known
 */
export function useParticipants(connection, onMessage) {
  const [present, setPresent] = useState(/** @type {Participant[] | null} */ (null));
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  const { client, state } = connection;
  useEffect(() => {
    if (!client || state !== "ready") return undefined;
    const stop = client.on("messaging.send", ({ from_participant_id: from, type, message }) => {
      switch (type) {
        case "messaging.enabled":
          return setPresent(message.participants);
        case "participant.enabled":
          return setPresent((before) => [...(before ?? []).filter(({ id }) => id !== message.id), message]);
        case "participant.disabled":
          return setPresent((before) => (before ?? []).filter(({ id }) => id !== message.id));
        case "participant.attributes":
          return setPresent((before) => (before ?? []).map((each) => (each.id === from ? { ...each, attributes: { ...each.attributes, ...message.attributes } } : each)));
        default:
          return onMessage?.({ from, type, message });
      }
    });
    setError(null);
    client.request("messaging.enable").catch((/** @type {Error} */ refused) => {
      // It is asked again when the connection is back.
      if (!(refused instanceof ConnectionLostError)) setError(refused);
    });
    return stop;
  }, [client, state]);
  return { present, error };
}

/** @param {import("../protocol/client.js").RoomClient} client @param {string} to @param {string} type @param {object} message @param {Uint8Array} [attachment] */
export const tell = (client, to, type, message, attachment) => client.request("messaging.send", { to_participant_id: to, type, message }, attachment);
