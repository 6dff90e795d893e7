type Setter<T> = (next: T | ((before: T) => T)) => void;
export function useState<T>(initial: T | (() => T)): [T, Setter<T>];
export function useEffect(effect: () => void | (() => void) | undefined, inputs?: unknown[]): void;
export function useLayoutEffect(effect: () => void | (() => void) | undefined, inputs?: unknown[]): void;
export function useMemo<T>(make: () => T, inputs: unknown[]): T;
export function useCallback<F>(call: F, inputs: unknown[]): F;
export function useRef<T>(initial: T): { current: T };
export function useContext<T>(context: any): any;
export function useId(): string;
