export class Marked {
  constructor(...extensions: any[]);
  parse(text: string, options?: { async?: false }): string;
}
