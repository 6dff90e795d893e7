// What Studio uses of Preact; the vendored file itself is minified and has no types.
export type ComponentChildren = any;
export type VNode = object;
export function h(type: any, props: any, ...children: any[]): VNode;
export function render(node: VNode, parent: Element): void;
export const Fragment: any;
export function createContext<T>(value: T): any;
export class Component<P = any, S = any> {
  constructor(props?: P);
  props: any;
  state: any;
  setState(change: Partial<S> | Record<string, unknown>): void;
  componentDidCatch?(error: Error): void;
  render(): any;
}
