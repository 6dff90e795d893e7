/** The API keys and the quota of the tenant that is signed in. */
import { at, get } from "../../app/api.js";
import { useResource } from "../../app/live.js";
import { may, session } from "../../app/store.js";
import { Card, Loaded, PageHead } from "../../ui/parts.js";
import { html, useSignal } from "../../ui/preact.js";
import { KeyTable } from "./key-table.js";
import { Quota } from "./quota.js";

export default function Keys() {
  const current = useSignal(session);
  const path = at`/tenants/${current?.tenant?.id ?? ""}`;
  const tenant = useResource((signal) => get(path, signal), [path], { every: 15_000 });
  return html`<${PageHead} title="Keys and quota" />
    <${KeyTable} path=${path} mayChange=${may("admin", current)} />
    <${Card} title="Quota"><${Loaded} of=${tenant}>${(/** @type {any} */ data) => html`<${Quota} tenant=${data} />`}</${Loaded}></${Card}>`;
}
