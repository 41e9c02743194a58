#include "model/io/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <numeric>
#include <optional>

#include "model/io/values.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

constexpr size_t kMaxListed = 20;

struct Match {
  std::map<char, std::string> values;  // of {i}, {j}, {w}
};

std::optional<Match> match(const std::string& pattern, const std::string& text) {
  Match m;
  size_t t = 0;
  for (size_t p = 0; p < pattern.size();) {
    if (pattern.compare(p, 1, "{") == 0 && p + 2 < pattern.size() && pattern[p + 2] == '}') {
      const char kind = pattern[p + 1];
      size_t end = t;
      if (kind == 'w') {
        for (const char* w : {"weight", "bias"}) {
          if (text.compare(t, std::string::npos, w) == 0) end = text.size();
        }
      } else {
        while (end < text.size() && end - t < 6 && std::isdigit(static_cast<unsigned char>(text[end]))) ++end;
      }
      if (end == t) return std::nullopt;
      m.values[kind] = text.substr(t, end - t);
      t = end;
      p += 3;
    } else {
      if (t >= text.size() || text[t] != pattern[p]) return std::nullopt;
      ++t;
      ++p;
    }
  }
  return t == text.size() ? std::optional(m) : std::nullopt;
}

std::string fill(const std::string& pattern, const Match& m) {
  std::string out;
  for (size_t p = 0; p < pattern.size();) {
    if (pattern[p] == '{' && p + 2 < pattern.size() && pattern[p + 2] == '}') {
      out += m.values.at(pattern[p + 1]);
      p += 3;
    } else {
      out += pattern[p++];
    }
  }
  return out;
}

bool ignored(const NameTable& table, const std::string& name) {
  return std::any_of(table.ignore.begin(), table.ignore.end(), [&](const std::string& i) {
    return i.ends_with('*') ? name.compare(0, i.size() - 1, i, 0, i.size() - 1) == 0
                            : match(i, name).has_value();
  });
}

std::vector<int64_t> without_trailing_ones(std::vector<int64_t> s) {
  while (s.size() > 1 && s.back() == 1) s.pop_back();
  return s;
}

std::string str(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

void swap_row_halves(std::vector<float>& values) {
  std::rotate(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
}

// Encodings of other quantisers, met in the wild: named, so that the message can say what the file is.
void refuse_foreign_encoding(const TensorSource& file) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 15> kMarks{
      {{".quant_state.", "bitsandbytes"},
       {".absmax", "bitsandbytes"},
       {".quant_map", "bitsandbytes"},
       {".qzeros", "GPTQ/AWQ"},
       {".qweight", "GPTQ/AWQ/SVDQuant"},
       {".wscales", "SVDQuant"},
       {"weight._data", "quanto"},
       {"weight._scale", "quanto"},
       {"weight:qdata", "torchao"},
       {"weight_qdata", "torchao"},
       {"scaled_fp8", "scaled fp8"},
       {".scale_weight", "scaled fp8"},
       {".weight_scale", "scaled fp8"},
       {".comfy_quant", "ComfyUI quantised"},
       {"onnx::", "ONNX"}}};
  const auto refuse = [&](const std::string& where, std::string_view what) {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{}: {} belongs to the {} encoding, which isn't read; use an F32, F16 or BF16 file",
                    file.path(), where, what));
  };
  if (file.metadata().count("_quantization_metadata"))
    refuse("the metadata _quantization_metadata", "ComfyUI quantised");
  for (const auto& [name, info] : file.tensors()) {
    for (const auto& [mark, what] : kMarks) {
      if (name.find(mark) != std::string::npos) refuse("tensor " + shown(name), what);
    }
  }
}

}  // namespace

NamedTensors::NamedTensors(const TensorSource& file, const NameTable& table) : file_(file) {
  refuse_foreign_encoding(file);
  std::string prefix;
  for (const std::string& p : table.prefixes) {
    for (const auto& [name, info] : file.tensors()) {
      if (prefix.empty() && name.starts_with(p)) prefix = p;
    }
  }
  for (const auto& [file_name, info] : file.tensors()) {
    if (!file_name.starts_with(prefix)) continue;
    const std::string name = file_name.substr(prefix.size());
    if (ignored(table, name)) continue;
    bool placed = false;
    for (const NameRule& rule : table.rules) {
      if (const auto m = match(rule.foreign, name)) {
        if (rule.fallback && file.has(prefix + fill(rule.ours, *m))) {
          placed = true;  // a second copy of it
          break;
        }
        place(fill(rule.ours, *m), file_name, rule);
        placed = true;
        break;
      }
    }
    if (!placed) place(name, file_name, {});
  }
  for (auto& [ours, e] : entries_) assemble(ours, e);
}

void NamedTensors::place(const std::string& ours, const std::string& file_name, const NameRule& rule) {
  Entry& e = entries_[ours];
  const bool split = rule.kind == NameRule::Kind::rows;
  const int key = split ? rule.part : -1;
  if (e.parts.count(key) || (!e.parts.empty() && (split != (e.parts.begin()->first >= 0)))) {
    throw Error(ErrorCode::format,
                fmt::format("{}: {} and {} both give {}", file_.path(), shown(e.parts.begin()->second),
                            shown(file_name), shown(ours)));
  }
  e.parts[key] = file_name;
  if (rule.any_size) e.any_size.insert(key);
  e.swap_halves = rule.kind == NameRule::Kind::swap_halves;
}

void NamedTensors::assemble(const std::string& ours, Entry& e) {
  int next = e.parts.begin()->first;
  for (const auto& [part, name] : e.parts) {
    const TensorInfo& info = file_.info(name);
    e.numel += static_cast<uint64_t>(info.numel());
    if (part != next++ || (part >= 0 && e.parts.begin()->first != 0)) {
      throw Error(ErrorCode::format, fmt::format("{}: a part of {} is missing before {}", file_.path(),
                                                 shown(ours), shown(name)));
    }
    if (e.shape.empty() && part <= 0) {
      e.shape = info.shape;
      continue;
    }
    if (info.shape.empty() || info.shape.size() != e.shape.size() ||
        !std::equal(info.shape.begin() + 1, info.shape.end(), e.shape.begin() + 1)) {
      throw Error(ErrorCode::format, fmt::format("{}: {} {} can't be stacked below {} for {}", file_.path(),
                                                 name, str(info.shape), str(e.shape), ours));
    }
    if (info.shape[0] != file_.info(e.parts.begin()->second).shape[0] && !e.any_size.count(part)) {
      throw Error(ErrorCode::format,
                  fmt::format("{}: {} is {}, its rows should equal those of {}", file_.path(), shown(name),
                              str(info.shape), shown(e.parts.begin()->second)));
    }
    if (__builtin_add_overflow(e.shape[0], info.shape[0], &e.shape[0])) {
      throw Error(ErrorCode::format, fmt::format("{}: {} has too many rows", file_.path(), shown(ours)));
    }
  }
  if (e.swap_halves && (e.shape.empty() || e.shape[0] % 2)) {
    throw Error(ErrorCode::format,
                fmt::format("{}: {} {} has no two halves", file_.path(), ours, str(e.shape)));
  }
}

const NamedTensors::Entry& NamedTensors::entry(const std::string& ours) const {
  const auto it = entries_.find(ours);
  if (it != entries_.end()) return it->second;
  throw Error(ErrorCode::format,
              fmt::format("{}: tensor {} is missing{}", file_.path(), ours, nearest(ours, names())));
}

const std::vector<int64_t>& NamedTensors::shape(const std::string& ours) const {
  return entry(ours).shape;
}

FileDType NamedTensors::dtype(const std::string& ours) const {
  return file_.info(entry(ours).parts.begin()->second).dtype;
}

std::vector<std::string> NamedTensors::names() const {
  std::vector<std::string> out;
  for (const auto& [n, e] : entries_) out.push_back(n);
  return out;
}

std::vector<float> NamedTensors::read_f32(const std::string& ours) const {
  std::vector<float> out(entry(ours).numel);
  read(ours, DType::f32, 0, std::as_writable_bytes(std::span(out)));
  return out;
}

void NamedTensors::read(const std::string& ours, DType to, uint64_t first, std::span<std::byte> out) const {
  const Entry& e = entry(ours);
  const size_t unit = vkflux::size_of(to);
  if (first > e.numel || out.size() / unit > e.numel - first)
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: read beyond {}", file_.path(), ours));
  if (!e.swap_halves) return read_stacked(e, to, first, out);
  // The second half of what is stored comes first.
  const uint64_t half = e.numel / 2,
                 head = first < half ? std::min<uint64_t>(half - first, out.size() / unit) : 0;
  read_stacked(e, to, half + first, out.first(head * unit));
  if (head * unit < out.size()) read_stacked(e, to, first + head - half, out.subspan(head * unit));
}

// Through a buffer that stays in the caches.
void NamedTensors::read_stacked(const Entry& e, DType to, uint64_t first, std::span<std::byte> out) const {
  std::array<std::byte, size_t{128} << 10> buffer;
  const size_t unit = vkflux::size_of(to);
  for (const auto& [part, name] : e.parts) {
    const ErrorContext context(shown(name));
    const TensorInfo& info = file_.info(name);
    const size_t stored = size_of(info.dtype);
    const auto numel = static_cast<uint64_t>(info.numel()),
               block = static_cast<uint64_t>(block_values(info.dtype));
    while (first < numel && !out.empty()) {
      const uint64_t n = std::min({numel - first, out.size() / unit, buffer.size() / stored * block});
      if (first % block != 0 || n % block != 0) {
        throw Error(ErrorCode::internal,
                    fmt::format("{}: a read of {} that cuts a block", file_.path(), info.name));
      }
      const std::span<std::byte> raw(buffer.data(), n / block * stored);
      file_.read(info, first / block * stored, raw);
      if (!convert(info.dtype, raw, to, out.first(n * unit))) {
        const std::vector<float> values = decode_f32(info.dtype, raw);
        const auto odd =
            std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
        throw Error(ErrorCode::format,
                    fmt::format("{}: {} holds {}: the file is damaged", file_.path(), shown(name), *odd));
      }
      first += n;
      out = out.subspan(n * unit);
    }
    first -= std::min(first, numel);
  }
}

void NamedTensors::check(const NamedShapes& expected) const {
  std::vector<std::string> faults;
  std::map<std::string, bool> wanted;
  size_t more = 0;
  const auto fault = [&](std::string text) {
    if (faults.size() < kMaxListed) {
      faults.push_back(std::move(text));
    } else {
      ++more;
    }
  };
  const std::vector<std::string> have = names();
  for (const auto& [name, shape] : expected) {
    wanted[name] = true;
    const auto it = entries_.find(name);
    if (it == entries_.end()) {
      fault(fmt::format("missing {} {}{}", name, str(shape), faults.size() < 4 ? nearest(name, have) : ""));
    } else if (without_trailing_ones(it->second.shape) != without_trailing_ones(shape)) {
      fault(fmt::format("{} is {}, {} is expected", name, str(it->second.shape), str(shape)));
    }
  }
  for (const std::string& name : have) {
    if (!wanted.count(name)) fault("unexpected " + shown(entries_.at(name).parts.begin()->second));
  }
  if (faults.empty()) return;
  throw Error(ErrorCode::format,
              fmt::format("{}: its tensors don't fit:\n  {}{}", file_.path(), fmt::join(faults, "\n  "),
                          more ? fmt::format("\n  and {} more", more) : ""));
}

int64_t NamedTensors::count(const std::string& prefix) const {
  std::vector<bool> seen;
  for (const auto& [name, e] : entries_) {
    if (!name.starts_with(prefix)) continue;
    size_t at = prefix.size(), n = 0;
    const size_t start = at;
    while (at < name.size() && at - start < 4 && std::isdigit(static_cast<unsigned char>(name[at]))) {
      n = n * 10 + static_cast<size_t>(name[at++] - '0');
    }
    if (at == start || at >= name.size() || name[at] != '.') continue;
    if (seen.size() <= n) seen.resize(n + 1);
    seen[n] = true;
  }
  const auto gap = std::find(seen.begin(), seen.end(), false);
  if (gap != seen.end()) {
    throw Error(ErrorCode::format,
                fmt::format("{}: {}{} is missing between others", file_.path(), prefix, gap - seen.begin()));
  }
  return static_cast<int64_t>(seen.size());
}

std::vector<TensorData> to_foreign(const std::string& ours, const std::vector<int64_t>& shape,
                                   std::vector<float> values, const NameTable& table, FileDType dtype,
                                   const std::vector<int64_t>& rows) {
  std::map<int, std::string> parts;
  for (const NameRule& rule : table.rules) {
    const auto m = match(rule.ours, ours);
    if (!m || rule.fallback) continue;
    if (rule.kind != NameRule::Kind::rows) {
      if (rule.kind == NameRule::Kind::swap_halves) swap_row_halves(values);
      return {tensor_data(fill(rule.foreign, *m), shape, values, dtype)};
    }
    parts.emplace(rule.part, fill(rule.foreign, *m));
  }
  if (parts.empty()) return {tensor_data(ours, shape, values, dtype)};
  std::vector<int64_t> sizes = rows;
  if (sizes.empty())
    sizes.assign(parts.size(), (shape.empty() ? 0 : shape[0]) / static_cast<int64_t>(parts.size()));
  if (shape.empty() || shape[0] <= 0 || sizes.size() != parts.size() ||
      std::accumulate(sizes.begin(), sizes.end(), int64_t{0}) != shape[0]) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} {} can't be split into rows {}", ours, str(shape), str(sizes)));
  }
  const size_t per_row = values.size() / static_cast<size_t>(shape[0]);
  std::vector<TensorData> out;
  size_t at = 0;
  for (const auto& [part, name] : parts) {
    std::vector<int64_t> s = shape;
    s[0] = sizes.at(static_cast<size_t>(part));
    const size_t n = static_cast<size_t>(s[0]) * per_row;
    out.push_back(tensor_data(name, s, std::span(values).subspan(at, n), dtype));
    at += n;
  }
  return out;
}

std::vector<ForeignName> foreign_names(const std::string& ours, const NameTable& table) {
  std::vector<ForeignName> out;
  for (const NameRule& rule : table.rules) {
    if (const auto m = match(rule.ours, ours)) out.push_back({fill(rule.foreign, *m), rule.kind, rule.part});
  }
  return out;
}

std::string rename(const std::string& text, const std::string& pattern, const std::string& foreign) {
  const auto m = match(pattern, text);
  return m ? fill(foreign, *m) : "";
}

}  // namespace vkflux::io
