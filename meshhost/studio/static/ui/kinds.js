/** What kind of file a name means, as far as previews differ. */

/** @type {Record<string, string>} */
export const IMAGES = { png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", gif: "image/gif", webp: "image/webp", avif: "image/avif", svg: "image/svg+xml", ico: "image/x-icon", bmp: "image/bmp" };
const BINARY = new Set(["zip", "gz", "tar", "7z", "exe", "bin", "so", "wasm", "mp3", "mp4", "wav", "ogg", "webm", "mov", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "parquet", "sqlite", "db", "pkl", "onnx", "safetensors"]);

/** @param {string} name */
export function kindOf(name) {
  const ending = name.toLowerCase().split(".").pop() ?? "";
  if (ending in IMAGES) return "image";
  if (ending === "pdf") return "pdf";
  if (ending === "md" || ending === "markdown") return "markdown";
  if (ending === "json") return "json";
  if (ending === "csv" || ending === "tsv") return "csv";
  if (ending === "html" || ending === "htm") return "html";
  return BINARY.has(ending) ? "other" : "text";
}
