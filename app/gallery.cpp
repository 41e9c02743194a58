#include "app/gallery.h"

#include <fmt/format.h>

#include "app/html.h"

namespace vkflux {

std::string base64(const std::string& bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t v = 0;
    for (size_t k = 0; k < 3; ++k)
      v = v << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? kDigits[v >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::string gallery_html(const GalleryInfo& info, const std::vector<GalleryPicture>& pictures) {
  std::string cells;
  for (const GalleryPicture& p : pictures) {
    cells += fmt::format(
        "<figure><img alt=\"{0}\" src=\"data:image/png;base64,{1}\"><figcaption>{0}<small>seed "
        "{2}</small></figcaption></figure>\n",
        escape_html(p.prompt), base64(p.png), p.seed);
  }
  const double total = info.encode_s + info.denoise_s + info.decode_s;
  return fmt::format(
      R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>vkflux: {model}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem; color: #222; background: #fafafa; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; padding: .75rem; background: #fff; border: 1px solid #ddd; border-radius: .5rem; text-align: center; }}
img {{ width: 100%; image-rendering: auto; }} small {{ display: block; color: #777; }} td {{ padding-right: 1.5rem; }}
</style></head><body>
<h1>Drawn by vkflux</h1>
<table><tr><td>model</td><td>{model}, {width}x{height}, {steps} Euler steps, true guidance {cfg}, distilled guidance {guidance}</td></tr>
<tr><td>device</td><td>{device}</td></tr><tr><td>driver</td><td>{driver}</td></tr>
<tr><td>time</td><td>{total:.2f} s for {count} pictures: text {encode:.2f} s, denoising {denoise:.2f} s, decoding {decode:.2f} s</td></tr></table>
<main>
{cells}</main></body></html>
)",
      fmt::arg("model", escape_html(info.model)), fmt::arg("width", info.width),
      fmt::arg("height", info.height), fmt::arg("steps", info.steps), fmt::arg("cfg", info.cfg),
      fmt::arg("guidance", info.guidance), fmt::arg("device", escape_html(info.device)),
      fmt::arg("driver", escape_html(info.driver)), fmt::arg("total", total),
      fmt::arg("count", pictures.size()), fmt::arg("encode", info.encode_s),
      fmt::arg("denoise", info.denoise_s), fmt::arg("decode", info.decode_s), fmt::arg("cells", cells));
}

std::string comparison_html(const GalleryInfo& info, const std::vector<GalleryRow>& rows) {
  std::string body;
  for (const GalleryRow& row : rows) {
    body += fmt::format("<h2>{}</h2>\n<div class=\"row\">\n", escape_html(row.title));
    for (const GalleryCell& cell : row.cells) {
      body += fmt::format("<figure><img alt=\"\" src=\"data:image/png;base64,{}\"><figcaption>",
                          base64(cell.png));
      for (const std::string& line : cell.lines) body += escape_html(line) + "<br>";
      body += "</figcaption></figure>\n";
    }
    body += "</div>\n";
  }
  return fmt::format(
      R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>vkflux: {model}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #222; background: #fafafa; }}
h2 {{ font-size: 1.05rem; margin: 1.2rem 0 .3rem; }} .row {{ display: flex; gap: .6rem; overflow-x: auto; }}
figure {{ margin: 0; flex: 0 0 8.5rem; padding: .5rem; background: #fff; border: 1px solid #ddd; border-radius: .4rem; }}
img {{ width: 100%; }} figcaption {{ font-size: .78rem; color: #555; }}
</style></head><body>
<h1>Full attention and its students</h1>
<p>{model}, {width}x{height}, {steps} Euler steps, true guidance {cfg}, on {device} ({driver}).</p>
{body}</body></html>
)",
      fmt::arg("model", escape_html(info.model)), fmt::arg("width", info.width),
      fmt::arg("height", info.height), fmt::arg("steps", info.steps), fmt::arg("cfg", info.cfg),
      fmt::arg("device", escape_html(info.device)), fmt::arg("driver", escape_html(info.driver)),
      fmt::arg("body", body));
}

}  // namespace vkflux
