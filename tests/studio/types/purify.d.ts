declare const DOMPurify: {
  sanitize(html: string, options: { RETURN_DOM_FRAGMENT: true; [name: string]: unknown }): DocumentFragment;
  addHook(name: string, run: (node: Element) => void): void;
};
export default DOMPurify;
