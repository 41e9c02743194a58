#include "app/picture_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>

#include "model/io/json.h"

namespace vkflux {
namespace {

using io::Json;

constexpr size_t kMostSentences = 32;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

/// Letters and digits alone: "DPM++ 2M SDE" and "dpmpp_2m_sde" differ only in signs.
std::string bare(std::string_view text) {
  std::string out;
  for (const char c : lower(text)) {
    if (std::isalnum(static_cast<unsigned char>(c))) out += c;
    if (c == '+') out += 'p';
  }
  return out;
}

std::string_view trimmed(std::string_view s) {
  constexpr std::string_view kBlank = " \t\r\n";
  const size_t first = s.find_first_not_of(kBlank);
  return first == std::string_view::npos ? std::string_view()
                                         : s.substr(first, s.find_last_not_of(kBlank) - first + 1);
}

void leave(PictureSettings& s, const std::string& sentence) {
  if (s.left.size() < kMostSentences) s.left.push_back(sentence);
}

/// "Steps: 20, Sampler: Euler, Model: \"a, b\"" as pairs.
std::vector<std::pair<std::string, std::string>> listed_pairs(std::string_view line) {
  std::vector<std::pair<std::string, std::string>> out;
  while (!line.empty()) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) break;
    const std::string key(trimmed(line.substr(0, colon)));
    line = trimmed(line.substr(colon + 1));
    size_t end = 0;
    std::string value;
    if (line.starts_with('"')) {
      end = 1;
      while (end < line.size() && line[end] != '"') end += line[end] == '\\' ? 2 : 1;
      end = std::min(end + 1, line.size());
      try {
        const Json text = io::parse_json(line.substr(0, end), "a value");
        if (text.is_string()) value = text.get<std::string>();
      } catch (const Error&) {
        value = line.substr(0, end);
      }
      end = line.find(',', end);
    } else {
      end = line.find(',');
      value = trimmed(line.substr(0, end));
    }
    if (!key.empty()) out.emplace_back(key, value);
    line = end == std::string_view::npos ? std::string_view() : trimmed(line.substr(end + 1));
  }
  return out;
}

std::string text_of(const Json& value) {
  return value.is_string() ? value.get<std::string>() : io::json_text(value);
}

}  // namespace

void PictureSettings::set(std::string flag, std::string value) {
  for (auto& [known, old] : flags) {
    if (known != flag) continue;
    old = std::move(value);
    return;
  }
  flags.emplace_back(std::move(flag), std::move(value));
}

std::string sampler_flag(std::string_view name) {
  static const std::map<std::string, std::string> known{
      {"euler", "euler"},   {"eulera", "euler_a"},   {"eulerancestral", "euler_a"},
      {"heun", "heun"},     {"dpmpp2m", "dpmpp_2m"}, {"unipc", "unipc"},
      {"lcm", "lcm"},       {"ddim", "ddim"},        {"ddimtrailing", "ddim"},
      {"unipcbh2", "unipc"}};
  const auto it = known.find(bare(name));
  return it == known.end() ? "" : it->second;
}

std::string schedule_flag(std::string_view name) {
  static const std::map<std::string, std::string> known{{"simple", "simple"}, {"sgmuniform", "sgm_uniform"},
                                                        {"karras", "karras"}, {"exponential", "exponential"},
                                                        {"beta", "beta"},     {"kloptimal", "kl_optimal"}};
  const auto it = known.find(bare(name));
  return it == known.end() ? "" : it->second;
}

PictureSettings vkflux_settings(const std::string& json) {
  PictureSettings out{"vkflux", {}, {}};
  const Json j = io::parse_json(json, "its text \"vkflux\"");
  if (!j.is_object()) {
    leave(out, "its text \"vkflux\" is no JSON object");
    return out;
  }
  // Names of files, of which the picture keeps no more than the last part.
  constexpr std::array kFiles{"model",      "init",        "mask",         "control",        "ref", "ttr",
                              "controller", "transformer", "text_encoder", "text_encoder_2", "vae", "taesd",
                              "tokenizer",  "tokenizer_2", "from_latents", "from_noise"};
  for (const auto& [key, value] : j.items()) {
    if (key == "width" || key == "height" || value.is_null()) continue;
    if (std::find(kFiles.begin(), kFiles.end(), key) != kFiles.end()) {
      if (key != "model")
        leave(out, fmt::format("{} {}: give the file itself", key, io::shown(text_of(value))));
    } else if (key == "guidance" && value == 0) {
      continue;  // of a model without such an input
    } else if (value.is_structured()) {
      leave(out, fmt::format("\"{}\" is no flag with one value", io::shown(key)));
    } else {
      std::string flag = "--" + key;
      std::replace(flag.begin(), flag.end(), '_', '-');
      out.set(flag, text_of(value));
    }
  }
  if (j.contains("width") && j.contains("height"))
    out.set("--size", text_of(j["width"]) + "x" + text_of(j["height"]));
  return out;
}

PictureSettings a1111_settings(const std::string& parameters) {
  PictureSettings out{"A1111", {}, {}};
  // The prompt, "Negative prompt: ...", and a last line of pairs that begins with the steps.
  std::string_view text = parameters;
  size_t at = text.rfind("\nSteps: ");
  if (at == std::string_view::npos && text.starts_with("Steps: ")) at = 0;
  const std::string_view line = at == std::string_view::npos ? std::string_view() : trimmed(text.substr(at));
  text = text.substr(0, at);
  constexpr std::string_view kNegative = "Negative prompt:";
  size_t negative = text.starts_with(kNegative) ? 0 : text.find("\n" + std::string(kNegative));
  if (negative != std::string_view::npos) {
    const size_t begin = text.find(':', negative) + 1;
    out.set("--negative", std::string(trimmed(text.substr(begin))));
    text = text.substr(0, negative);
  }
  out.set("--prompt", std::string(trimmed(text)));
  if (line.empty()) leave(out, "its parameters have no line \"Steps: ...\": only the prompt was found");
  out.set("--noise", "philox");  // that program's generator unless it says another
  for (const auto& [key, value] : listed_pairs(line)) {
    const std::string k = lower(key);
    if (k == "steps") {
      out.set("--steps", value);
    } else if (k == "seed") {
      out.set("--seed", value);
    } else if (k == "size") {
      out.set("--size", value);
    } else if (k == "cfg scale") {
      out.set("--cfg", value);
    } else if (k == "distilled cfg scale") {
      out.set("--guidance", value);
    } else if (k == "denoising strength") {
      out.set("--strength", value);
    } else if (k == "rng") {
      out.set("--noise", lower(value) == "cpu" ? "mersenne" : "philox");
    } else if (k == "sampler") {
      const std::string ours = sampler_flag(value);
      if (ours.empty()) {
        leave(out, fmt::format("Sampler: {} has no counterpart here", io::shown(value)));
      } else {
        out.set("--sampler", ours);
      }
    } else if (k == "schedule type") {
      const std::string ours = schedule_flag(value);
      if (!ours.empty()) {
        out.set("--schedule", ours);
      } else if (lower(value) != "automatic") {
        leave(out, fmt::format("Schedule type: {} has no counterpart here", io::shown(value)));
      }
    } else if (k != "model" && k != "version") {
      leave(out, fmt::format("{}: {}", io::shown(key), io::shown(value)));
    }
  }
  return out;
}

std::optional<PictureSettings> picture_settings(const io::PngText& texts) {
  std::vector<std::string> unread;
  const auto attempt = [&](const char* keyword, const auto& read) -> std::optional<PictureSettings> {
    for (const auto& [key, text] : texts) {
      if (key != keyword) continue;
      try {
        PictureSettings s = read(text);
        s.left.insert(s.left.begin(), unread.begin(), unread.end());
        return s;
      } catch (const Error& e) {
        unread.push_back(fmt::format("its text \"{}\" can't be read: {}", keyword, io::shown(e.what())));
      }
    }
    return {};
  };
  if (auto s = attempt("vkflux", vkflux_settings)) return s;
  if (auto s = attempt("parameters", a1111_settings)) return s;
  if (auto s = attempt("prompt", [](const std::string& t) { return comfy_settings(t, false); })) return s;
  if (auto s = attempt("workflow", [](const std::string& t) { return comfy_settings(t, true); })) return s;
  if (unread.empty()) return {};
  return PictureSettings{"nobody", {}, unread};
}

}  // namespace vkflux
