export class Doc {
  getXmlFragment(name: string): XmlFragment;
  on(event: string, listener: (...args: any[]) => void): void;
  transact(run: () => void, origin?: unknown): void;
  destroy(): void;
}
export class XmlFragment {
  toArray(): (XmlElement | XmlText)[];
  get(index: number): XmlElement | XmlText;
  insert(index: number, content: (XmlElement | XmlText)[]): void;
  push(content: (XmlElement | XmlText)[]): void;
  delete(index: number, length?: number): void;
  observeDeep(listener: (...args: any[]) => void): void;
  length: number;
}
export class XmlElement extends XmlFragment {
  constructor(name: string);
  nodeName: string;
  getAttribute(name: string): any;
  setAttribute(name: string, value: any): void;
  getAttributes(): Record<string, any>;
}
export class XmlText {
  constructor(text?: string);
  toString(): string;
  toDelta(): { insert: unknown; attributes?: object }[];
  insert(index: number, text: string): void;
}
export function applyUpdate(doc: Doc, update: Uint8Array, origin?: unknown): void;
export function encodeStateAsUpdate(doc: Doc): Uint8Array;
