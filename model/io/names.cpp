#include "model/io/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <numeric>
#include <optional>

#include "autograd/packed.h"
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

// Every head's rows as Kind::interleaved stores them.
void interleave_rows(std::vector<float>& values, int64_t rows, int64_t head) {
  const size_t per_row = values.size() / static_cast<size_t>(rows);
  const std::vector<float> ours = values;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t c = r % head, from = r - c + c / 2 + (c % 2) * (head / 2);
    std::copy_n(ours.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(from) * per_row), per_row,
                values.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(r) * per_row));
  }
}

// Encodings of other quantisers, met in the wild: named, so that the message can say what the file is.
void refuse_foreign_encoding(const TensorSource& file) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kMarks{
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
       {"onnx::", "ONNX"}}};
  const auto refuse = [&](const std::string& where, std::string_view what) {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{}: {} belongs to the {} encoding, which isn't read; use an F32, F16 or BF16 file",
                    file.path(), where, what));
  };
  for (const auto& [name, info] : file.tensors()) {
    for (const auto& [mark, what] : kMarks) {
      if (name.find(mark) != std::string::npos) refuse("tensor " + shown(name), what);
    }
  }
}

}  // namespace

NamedTensors::NamedTensors(const TensorSource& file, const NameTable& table) : file_(file) {
  refuse_foreign_encoding(file);
  scaled_ = read_scaled_fp8(file);
  std::string prefix;
  for (const std::string& p : table.prefixes) {
    for (const auto& [name, info] : file.tensors()) {
      if (prefix.empty() && name.starts_with(p)) prefix = p;
    }
  }
  for (const auto& [file_name, info] : file.tensors()) {
    if (!file_name.starts_with(prefix) || scaled_.aside.count(file_name)) continue;
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
  e.head = rule.kind == NameRule::Kind::interleaved ? rule.head : 0;
}

void NamedTensors::assemble(const std::string& ours, Entry& e) {
  int next = e.parts.begin()->first;
  for (const auto& [part, name] : e.parts) {
    const TensorInfo& info = file_.info(name);
    e.numel += static_cast<uint64_t>(info.numel());
    e.mixed = e.mixed || info.dtype != file_.info(e.parts.begin()->second).dtype;
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
  if (e.head && (e.shape.empty() || e.head % 2 || e.shape[0] % e.head)) {
    throw Error(ErrorCode::format, fmt::format("{}: {} {} doesn't split into heads of {} rows", file_.path(),
                                               ours, str(e.shape), e.head));
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
  const Entry& e = entry(ours);
  FileDType best = file_.info(e.parts.begin()->second).dtype;
  if (!e.mixed) return best;
  const auto bits = [](FileDType t) {
    return static_cast<double>(size_of(t)) / static_cast<double>(block_values(t));
  };
  bool f16 = false, bf16 = false;
  for (const auto& [part, name] : e.parts) {
    const FileDType t = file_.info(name).dtype;
    f16 = f16 || t == FileDType::f16, bf16 = bf16 || t == FileDType::bf16;
    if (bits(t) > bits(best)) best = t;
  }
  if (f16 && bf16 && bits(best) == 2) return FileDType::f32;
  return best == FileDType::f8_e4m3 || best == FileDType::f8_e5m2 ? FileDType::q8_0 : best;
}

bool NamedTensors::scaled(const std::string& ours) const {
  const auto& parts = entry(ours).parts;
  return std::any_of(parts.begin(), parts.end(),
                     [&](const auto& p) { return scaled_.scales.count(p.second); });
}

std::string NamedTensors::mixed() const {
  size_t count = 0;
  std::string example;
  for (const auto& [ours, e] : entries_) {
    if (!e.mixed) continue;
    if (count++ > 0) continue;
    std::vector<std::string_view> types;
    for (const auto& [part, name] : e.parts) types.push_back(io::name(file_.info(name).dtype));
    example = fmt::format("{} ({})", ours, fmt::join(types, ", "));
  }
  if (count == 0) return "";
  return fmt::format(
      "{} weights have parts of different types and are kept in the most precise of them: {}{}", count,
      example, count > 1 ? ", ..." : "");
}

bool NamedTensors::packs(const std::string& ours, DType as) const {
  const Entry& e = entry(ours);
  if (!is_packed(as) || e.mixed || e.shape.size() < 2 || e.numel == 0 || e.shape[0] == 0) return false;
  return device_type(dtype(ours)) == as &&
         e.numel / static_cast<uint64_t>(e.shape[0]) % static_cast<uint64_t>(vkflux::block_values(as)) == 0;
}

std::vector<std::string> NamedTensors::names() const {
  std::vector<std::string> out;
  for (const auto& [n, e] : entries_) out.push_back(n);
  return out;
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

std::vector<ForeignPart> foreign_parts(const std::string& ours, const std::vector<int64_t>& shape,
                                       const NameTable& table, const std::vector<int64_t>& rows) {
  const int64_t all = shape.empty() ? 1 : shape[0];
  std::map<int, std::string> parts;
  for (const NameRule& rule : table.rules) {
    const auto m = match(rule.ours, ours);
    if (!m || rule.fallback) continue;
    if (rule.kind != NameRule::Kind::rows)
      return {{fill(rule.foreign, *m), 0, all, rule.kind == NameRule::Kind::swap_halves,
               rule.kind == NameRule::Kind::interleaved ? rule.head : 0}};
    parts.emplace(rule.part, fill(rule.foreign, *m));
  }
  if (parts.empty()) return {{ours, 0, all, false}};
  std::vector<int64_t> sizes = rows;
  if (sizes.empty())
    sizes.assign(parts.size(), (shape.empty() ? 0 : shape[0]) / static_cast<int64_t>(parts.size()));
  if (shape.empty() || shape[0] <= 0 || sizes.size() != parts.size() ||
      std::accumulate(sizes.begin(), sizes.end(), int64_t{0}) != shape[0]) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} {} can't be split into rows {}", ours, str(shape), str(sizes)));
  }
  std::vector<ForeignPart> out;
  int64_t row = 0;
  for (const auto& [part, name] : parts) {
    out.push_back({name, row, sizes.at(static_cast<size_t>(part)), false});
    row += out.back().rows;
  }
  return out;
}

std::vector<TensorData> to_foreign(const std::string& ours, const std::vector<int64_t>& shape,
                                   std::vector<float> values, const NameTable& table, FileDType dtype,
                                   const std::vector<int64_t>& rows) {
  const std::vector<ForeignPart> parts = foreign_parts(ours, shape, table, rows);
  if (parts.size() == 1) {
    if (parts[0].swap_halves) swap_row_halves(values);
    if (parts[0].head) interleave_rows(values, shape[0], parts[0].head);
    return {tensor_data(parts[0].name, shape, values, dtype)};
  }
  const size_t per_row = values.size() / static_cast<size_t>(shape[0]);
  std::vector<TensorData> out;
  for (const ForeignPart& part : parts) {
    std::vector<int64_t> s = shape;
    s[0] = part.rows;
    const auto some = std::span(values).subspan(static_cast<size_t>(part.row) * per_row,
                                                static_cast<size_t>(part.rows) * per_row);
    out.push_back(tensor_data(part.name, s, some, dtype));
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
