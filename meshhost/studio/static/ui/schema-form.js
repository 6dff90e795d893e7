/**
 * A form made from a JSON schema, as task runners and tools have for their arguments.
 *
 * Known are objects, texts, numbers, yes or no, choices and lists; what else a schema may say is entered as JSON. One may always
 * change to JSON for the whole. `valueOf` turns what was entered into the value, or says what is wrong by field. Descriptions come
 * from strangers and stand as text.
 */
import { Field } from "./field.js";
import { Icon } from "./icons.js";
import { JsonEditor, parseJson } from "./json-editor.js";
import { html, useState } from "./preact.js";

/** @typedef {Record<string, any>} Schema */
/** @typedef {{value: any, faults: Record<string, string>}} Read */

/** Follow a reference inside the schema, and of several forms take the first that is not null. @param {Schema} schema @param {Schema} root @returns {Schema} */
function resolved(schema, root, depth = 0) {
  if (typeof schema !== "object" || schema === null || depth > 20) return {};
  if (typeof schema.$ref === "string" && schema.$ref.startsWith("#/")) {
    const target = schema.$ref.slice(2).split("/").reduce((/** @type {any} */ at, /** @type {string} */ name) => at?.[name], root);
    return resolved({ ...target, ...without(schema, "$ref") }, root, depth + 1);
  }
  const forms = schema.anyOf ?? schema.oneOf;
  if (Array.isArray(forms)) {
    const others = forms.filter((form) => form?.type !== "null");
    if (others.length === 1) return resolved({ ...others[0], ...without(schema, "anyOf", "oneOf") }, root, depth + 1);
  }
  if (Array.isArray(schema.allOf) && schema.allOf.length === 1) return resolved({ ...schema.allOf[0], ...without(schema, "allOf") }, root, depth + 1);
  if (Array.isArray(schema.type)) {
    const types = schema.type.filter((/** @type {string} */ type) => type !== "null");
    if (types.length === 1) return { ...schema, type: types[0] };
  }
  return schema;
}

/** @param {Schema} schema @param {...string} names */
const without = (schema, ...names) => Object.fromEntries(Object.entries(schema).filter(([name]) => !names.includes(name)));

/** @param {Schema} schema @returns {"object" | "choice" | "text" | "number" | "boolean" | "list" | "json"} */
function kindOf(schema) {
  if (Array.isArray(schema.enum) && schema.enum.every((each) => ["string", "number"].includes(typeof each))) return "choice";
  switch (schema.type) {
    case "object":
      return schema.properties && Object.keys(schema.properties).length ? "object" : "json";
    case "string":
      return "text";
    case "integer":
    case "number":
      return "number";
    case "boolean":
      return "boolean";
    case "array":
      return ["string", "number", "integer"].includes(schema.items?.type) ? "list" : "json";
    default:
      return "json";
  }
}

/** What stands in the form at first. @param {Schema} given @param {Schema} [root] @returns {any} */
export function initial(given, root = given) {
  const schema = resolved(given, root);
  switch (kindOf(schema)) {
    case "object":
      return Object.fromEntries(Object.entries(schema.properties).map(([name, each]) => [name, initial(/** @type {Schema} */ (each), root)]));
    case "boolean":
      return schema.default ?? false;
    case "list":
      return Array.isArray(schema.default) ? schema.default.map(String) : [];
    case "json":
      return schema.default === undefined ? "" : JSON.stringify(schema.default, null, 2);
    default:
      return schema.default === undefined ? "" : String(schema.default);
  }
}

/**
 * The value of what was entered; members that are empty and not required are left out.
 * @param {Schema} given @param {any} entered @param {string} [path] @param {boolean} [isRequired] @param {Schema} [root]
 * @returns {Read}
 */
export function read(given, entered, path = "", isRequired = true, root = given) {
  const schema = resolved(given, root);
  const wrong = (/** @type {string} */ text) => ({ value: undefined, faults: { [path]: text } });
  switch (kindOf(schema)) {
    case "object": {
      /** @type {Read} */
      const all = { value: {}, faults: {} };
      for (const [name, each] of Object.entries(schema.properties)) {
        const needed = (schema.required ?? []).includes(name);
        const member = read(/** @type {Schema} */ (each), entered[name], path ? `${path}.${name}` : name, needed, root);
        Object.assign(all.faults, member.faults);
        if (member.value !== undefined) all.value[name] = member.value;
      }
      if (!isRequired && !Object.keys(all.value).length && !Object.keys(all.faults).length) return { value: undefined, faults: {} };
      return all;
    }
    case "boolean":
      return { value: Boolean(entered), faults: {} };
    case "list": {
      const items = entered.filter((/** @type {string} */ item) => item !== "");
      if (!items.length && !isRequired) return { value: undefined, faults: {} };
      const value = schema.items.type === "string" ? items : items.map(Number);
      return value.some(Number.isNaN) && schema.items.type !== "string" ? wrong("Expected numbers.") : { value, faults: {} };
    }
    case "number": {
      if (String(entered).trim() === "") return isRequired ? wrong("Expected a number.") : { value: undefined, faults: {} };
      const value = Number(entered);
      if (!Number.isFinite(value)) return wrong("Expected a number.");
      if (schema.type === "integer" && !Number.isInteger(value)) return wrong("Expected a whole number.");
      if (schema.minimum !== undefined && value < schema.minimum) return wrong(`Expected at least ${schema.minimum}.`);
      if (schema.maximum !== undefined && value > schema.maximum) return wrong(`Expected at most ${schema.maximum}.`);
      return { value, faults: {} };
    }
    case "choice": {
      const value = schema.enum.find((/** @type {any} */ each) => String(each) === entered);
      return value === undefined && isRequired ? wrong("Choose one.") : { value, faults: {} };
    }
    case "json": {
      if (!String(entered).trim()) return isRequired ? wrong("Expected JSON.") : { value: undefined, faults: {} };
      const parsed = parseJson(entered);
      return "fault" in parsed ? wrong(parsed.fault) : { value: parsed.value, faults: {} };
    }
    default:
      if (entered === "" && !isRequired) return { value: undefined, faults: {} };
      if (schema.minLength !== undefined && entered.length < schema.minLength) return wrong(`Expected at least ${schema.minLength} characters.`);
      if (schema.maxLength !== undefined && entered.length > schema.maxLength) return wrong(`Expected at most ${schema.maxLength} characters.`);
      return { value: entered, faults: {} };
  }
}

/**
 * The form with its button. `onSubmit` gets the value once it is right.
 * @param {{schema: Schema | null, action: string, isBusy: boolean, onSubmit: (value: any) => void}} props
 */
export function SchemaForm({ schema, action, isBusy, onSubmit }) {
  const known = schema && kindOf(resolved(schema, schema)) === "object" ? resolved(schema, schema) : null;
  const [entered, setEntered] = useState(() => (known ? initial(known) : {}));
  const [asJson, setAsJson] = useState(!known);
  const [text, setText] = useState("{}");
  const [faults, setFaults] = useState(/** @type {Record<string, string>} */ ({}));
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    const parsed = asJson ? parseJson(text) : null;
    const result = parsed ? ("fault" in parsed ? { value: undefined, faults: { "": parsed.fault } } : { value: parsed.value, faults: {} }) : read(/** @type {Schema} */ (known), entered);
    setFaults(result.faults);
    if (!Object.keys(result.faults).length) onSubmit(result.value);
  };
  const change = () => {
    if (!asJson && known) setText(JSON.stringify(read(known, entered).value ?? {}, null, 2));
    setAsJson(!asJson);
    setFaults({});
  };
  return html`<form class="form" onSubmit=${submit} novalidate>
    ${asJson
      ? html`<${JsonEditor} label="Arguments" value=${text} onInput=${setText} fault=${faults[""]} />`
      : html`<${Members} schema=${known} root=${schema} entered=${entered} setEntered=${setEntered} faults=${faults} path="" />`}
    <div class="buttons">
      <button class="button primary" disabled=${isBusy}>${isBusy ? "Waiting for the answer…" : action}</button>
      ${known && html`<button class="button quiet" type="button" onClick=${change}>${asJson ? "As a form" : "As JSON"}</button>`}
    </div>
  </form>`;
}

/** @param {{schema: Schema, root: Schema, entered: any, setEntered: (value: any) => void, faults: Record<string, string>, path: string}} props */
function Members({ schema, root, entered, setEntered, faults, path }) {
  const required = schema.required ?? [];
  return Object.entries(schema.properties).map(
    ([name, each]) => html`<${Member} key=${name} name=${name} schema=${resolved(/** @type {Schema} */ (each), root)} root=${root} isRequired=${required.includes(name)}
      entered=${entered[name]} setEntered=${(/** @type {any} */ value) => setEntered({ ...entered, [name]: value })} faults=${faults} path=${path ? `${path}.${name}` : name} />`,
  );
}

/** @param {{name: string, schema: Schema, root: Schema, isRequired: boolean, entered: any, setEntered: (value: any) => void, faults: Record<string, string>, path: string}} props */
function Member({ name, schema, root, isRequired, entered, setEntered, faults, path }) {
  const title = `${schema.title ?? name}${isRequired ? "" : " (optional)"}`;
  const hint = schema.description;
  const fault = faults[path];
  const onInput = (/** @type {any} */ event) => setEntered(event.target.value);
  switch (kindOf(schema)) {
    case "object":
      return html`<fieldset><legend>${title}</legend><${Members} schema=${schema} root=${root} entered=${entered} setEntered=${setEntered} faults=${faults} path=${path} /></fieldset>`;
    case "boolean":
      return html`<div class="field"><label class="check"><input type="checkbox" checked=${entered} onChange=${(/** @type {any} */ event) => setEntered(event.target.checked)} />${schema.title ?? name}</label>${hint && html`<div class="hint">${hint}</div>`}</div>`;
    case "choice":
      return html`<${Field} label=${title} hint=${hint} fault=${fault}>${(/** @type {object} */ attributes) => html`<select ...${attributes} onChange=${onInput}>
        <option value="" selected=${entered === ""}></option>
        ${schema.enum.map((/** @type {any} */ each) => html`<option value=${String(each)} selected=${String(each) === entered}>${String(each)}</option>`)}
      </select>`}</${Field}>`;
    case "list":
      return html`<${List} title=${title} hint=${hint} fault=${fault} entered=${entered} setEntered=${setEntered} />`;
    case "json":
      return html`<${JsonEditor} label=${`${title}, as JSON`} hint=${hint} fault=${fault} value=${entered} onInput=${setEntered} rows=${4} />`;
    case "number":
      return html`<${Field} label=${title} hint=${hint} fault=${fault}>${(/** @type {object} */ attributes) => html`<input ...${attributes} inputmode="decimal" autocomplete="off" value=${entered} onInput=${onInput} />`}</${Field}>`;
    default:
      return html`<${Field} label=${title} hint=${hint} fault=${fault}>${(/** @type {object} */ attributes) => html`<textarea ...${attributes} class="text" rows=${schema.maxLength && schema.maxLength < 100 ? 1 : 3} value=${entered} onInput=${onInput}></textarea>`}</${Field}>`;
  }
}

/** @param {{title: string, hint?: string, fault?: string, entered: string[], setEntered: (value: string[]) => void}} props */
function List({ title, hint, fault, entered, setEntered }) {
  const change = (/** @type {number} */ index, /** @type {string} */ text) => setEntered(entered.map((each, place) => (place === index ? text : each)));
  return html`<fieldset>
    <legend>${title}</legend>
    ${hint && html`<p class="muted small">${hint}</p>`}
    ${entered.map(
      (each, index) => html`<div class="list-item"><input aria-label=${`${title}, ${index + 1}`} value=${each} onInput=${(/** @type {any} */ event) => change(index, event.target.value)} />
        <button class="button quiet icon-only" type="button" aria-label=${`Remove ${index + 1}`} onClick=${() => setEntered(entered.filter((_, place) => place !== index))}><${Icon} name="close" /></button></div>`,
    )}
    <div><button class="button" type="button" onClick=${() => setEntered([...entered, ""])}><${Icon} name="plus" />Add</button></div>
    ${fault && html`<p class="bad-text small" role="alert">${fault}</p>`}
  </fieldset>`;
}
