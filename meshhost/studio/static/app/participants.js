/** Who in a room takes messages, kept by the events of messaging; and sending to them. */
import { useEffect, useState } from "../ui/preact.js";

/**
 * @typedef {{id: string, role: string, attributes: Record<string, any>}} Participant
 * @typedef {{from: string, type: string, message: any}} Message
 */

/**
 * @param {ReturnType<typeof import("./room-client.js").useRoomClient>} connection
 * @param {(message: Message) => void} [onMessage]
 * @returns {Participant[] | null} null until they are known
 */
export function useParticipants(connection, onMessage) {
  const [present, setPresent] = useState(/** @type {Participant[] | null} */ (null));
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
    client.request("messaging.enable").catch(() => {});
    return stop;
  }, [client, state]);
  return present;
}

/** @param {import("../protocol/client.js").RoomClient} client @param {string} to @param {string} type @param {object} message */
export const tell = (client, to, type, message) => client.request("messaging.send", { to_participant_id: to, type, message });
