#include "app/verify/case.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "model/io/json.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

constexpr double kOutputTolerance = 2e-4, kGradTolerance = 1e-3, kZeroTolerance = 1e-5, kReferenceFactor = 10;
constexpr size_t kSample = 2048;

bool starts_with(const std::string& s, const char* p) {
  return s.rfind(p, 0) == 0;
}

nlohmann::json metadata_json(const io::SafetensorsFile& file, const char* key) {
  const auto it = file.metadata().find(key);
  if (it == file.metadata().end()) return nlohmann::json::object();
  return nlohmann::json(
      io::parse_json(it->second, fmt::format("metadata {}", key), io::WholeNumbers::keep_digits));
}

template <class T>
double max_abs(const std::vector<T>& v) {
  double m = 0;
  for (const T x : v) {
    if (std::isfinite(x)) m = std::max(m, std::fabs(static_cast<double>(x)));
  }
  return m;
}

// 0 for equal values, NaN and infinities among them.
double distance(double got, double want) {
  if (got == want || (std::isnan(got) && std::isnan(want))) return 0;
  const double e = std::fabs(got - want);
  return std::isfinite(e) ? e : INFINITY;
}

// "grad_sample.in.img" -> ("grad.in.img", 's'), "out.step5_stat.w" -> ("out.step5.w", 't'); other names come
// back unchanged.
std::pair<std::string, char> base_name(const std::string& name) {
  const size_t first = name.find('.');
  for (const size_t dot : {first, first == std::string::npos ? first : name.find('.', first + 1)}) {
    if (dot == std::string::npos) continue;
    for (const auto& [suffix, kind] : {std::pair{"_sample", 's'}, std::pair{"_stat", 't'}}) {
      const std::string s(suffix);
      if (dot > s.size() && name.compare(dot - s.size(), s.size(), s) == 0) {
        return {name.substr(0, dot - s.size()) + name.substr(dot), kind};
      }
    }
  }
  return {name, 0};
}

std::vector<float> derived(const std::vector<float>& full, char kind) {
  if (kind == 's') {
    std::vector<float> out;
    const size_t stride = std::max<size_t>(1, full.size() / kSample);
    for (size_t i = 0; i < full.size() && out.size() < kSample; i += stride) out.push_back(full[i]);
    return out;
  }
  if (kind == 't') {
    double sum = 0, squares = 0;
    for (float x : full) {
      sum += x;
      squares += static_cast<double>(x) * x;
    }
    return {static_cast<float>(sum), static_cast<float>(squares), static_cast<float>(max_abs(full))};
  }
  return full;
}

}  // namespace

bool Report::passed() const {
  return error.empty() && !checks.empty() &&
         std::all_of(checks.begin(), checks.end(), [](const Check& c) { return c.passed; });
}

Case::Case(Device& device, const std::string& path) : device_(device), file_(path) {
  const auto& meta = file_.metadata();
  const auto text = [&](const char* key) {
    const auto it = meta.find(key);
    return it == meta.end() ? std::string() : it->second;
  };
  kind_ = text("case");
  if (kind_.empty()) throw Error(ErrorCode::format, path + ": no golden file: its metadata names no case");
  config_ = metadata_json(file_, "config");
  ref_err_ = metadata_json(file_, "f32_ref_err");
  const nlohmann::json worst = metadata_json(file_, "f32_ref_err_worst");
  const auto number = [&](const char* key) {
    const double x = field(worst, key, 0.0);
    return std::isfinite(x) ? x : 0;
  };
  worst_outputs_ = number("outputs");
  worst_grads_ = number("grads");
  std::string other = text("weights_file");
  other.resize(std::min(other.size(), other.find(" (")));  // a remark may follow the name
  if (!other.empty()) {
    if (std::filesystem::path(other).has_parent_path())
      throw Error(ErrorCode::format, path + ": weights_file leaves the folder");
    weights_ =
        std::make_unique<io::SafetensorsFile>((std::filesystem::path(path).parent_path() / other).string());
  }
}

Tensor Case::load(const io::SafetensorsFile& file, const std::string& name) {
  const std::vector<double> values = file.read_f64(name);
  const std::vector<float> single(values.begin(), values.end());
  return Tensor::from(device_, std::span<const float>(single), Shape(file.info(name).shape));
}

Tensor Case::in(const std::string& name) {
  auto [it, fresh] = loaded_.try_emplace("in." + name);
  if (!fresh) return it->second;
  it->second = load(file_, "in." + name);
  watch("grad.in." + name, it->second);
  return it->second;
}

Tensor Case::key_mask(const std::string& name, int64_t batch, int64_t keys) {
  if (!has_in(name)) return {};
  const std::vector<int64_t>& shape = file_.info("in." + name).shape;
  const bool rows = shape.size() > 1 && shape.front() == batch;
  const bool fits =
      !shape.empty() && shape.back() == keys &&
      std::all_of(shape.begin() + (rows ? 1 : 0), shape.end() - 1, [](int64_t n) { return n == 1; });
  if (!fits) {
    throw Error(ErrorCode::format, fmt::format("in.{} has shape {}, a mask of keys [{}, {}] is needed", name,
                                               Shape(shape).str(), batch, keys));
  }
  const std::vector<double> values = numbers("in." + name);
  std::vector<uint8_t> keep;
  for (int64_t i = 0; i < batch * keys; ++i)
    keep.push_back(values[static_cast<size_t>(i) % values.size()] != 0);
  return Tensor::from(device_, std::span<const uint8_t>(keep), {batch, keys});
}

Tensor Case::weight(const std::string& name) {
  auto [it, fresh] = loaded_.try_emplace("w." + name);
  if (!fresh) return it->second;
  it->second = load(weights(), "w." + name);
  watch("grad." + name, it->second);
  return it->second;
}

Tensor Case::weight(const std::string& name, const Shape& shape) {
  const Tensor stored = weight(name);
  if (stored.shape() == shape) return stored;
  if (stored.numel() != shape.numel()) {
    throw Error(ErrorCode::format,
                fmt::format("w.{} is {}, {} is expected", name, stored.shape().str(), shape.str()));
  }
  const Tensor shaped = stored.view(shape);
  watch("grad." + name, shaped);
  return shaped;
}

void Case::watch(const std::string& gradient, const Tensor& leaf) {
  const std::string rest = gradient.substr(std::string("grad").size());
  if (!file_.has(gradient) && !file_.has("grad_sample" + rest) && !file_.has("grad_stat" + rest)) return;
  tape_.watch(leaf);
  watched_.emplace_back(gradient, leaf);
}

std::vector<std::string> Case::weight_names(const std::string& prefix) const {
  std::vector<std::string> out;
  for (const auto& [name, info] : weights().tensors()) {
    if (name.rfind("w." + prefix, 0) == 0) out.push_back(name.substr(2 + prefix.size()));
  }
  return out;
}

Shape Case::weight_shape(const std::string& name) const {
  return Shape(weights().info("w." + name).shape);
}

void Case::backward(const std::vector<std::pair<Tensor, std::string>>& outputs) {
  went_back_ = true;
  std::vector<std::pair<Tensor, Tensor>> seeds;
  for (const auto& [y, name] : outputs) {
    if (has_in(name) && tape_.active(y)) seeds.emplace_back(y, load(file_, "in." + name).view(y.shape()));
  }
  if (seeds.empty()) return;
  Grads grads;
  tape_.backward(seeds, grads);
  for (const auto& [name, leaf] : watched_) {
    const Tensor g = grads.of(leaf);
    if (g.defined()) got_[name] = g.to_host();
  }
}

std::optional<std::vector<float>> Case::unreached(const std::string& gradient) const {
  constexpr std::string_view kPrefix = "grad.";
  if (!went_back_ || gradient.rfind(kPrefix, 0) != 0) return {};
  const std::string leaf = gradient.substr(kPrefix.size());
  // "in.x", a weight, or a weight behind the tag of its sub-case.
  for (const std::string& name : {leaf, "w." + leaf, "w." + leaf.substr(leaf.find('.') + 1)}) {
    const io::SafetensorsFile& file = name.rfind("in.", 0) == 0 ? file_ : weights();
    if (file.has(name)) return std::vector<float>(static_cast<size_t>(file.info(name).numel()), 0.0f);
  }
  return {};
}

void Case::tolerance(const std::string& prefix, double value, bool absolute) {
  tolerances_[prefix] = {value, absolute};
}

Check Case::compare_one(const std::string& name) const {
  const auto [base, kind] = base_name(name);
  const bool grad = starts_with(base, "grad.");
  double reference = grad ? worst_grads_ : worst_outputs_;
  for (const std::string& key : {name, base}) {
    if (const auto x = optional_field<double>(ref_err_, key); x && std::isfinite(*x)) reference = *x;
  }
  Check c{name,  0,     std::max(grad ? kGradTolerance : kOutputTolerance, kReferenceFactor * reference),
          false, false, ""};
  size_t best = 0;
  for (const auto& [prefix, t] : tolerances_) {
    if ((base.rfind(prefix, 0) == 0 || name.rfind(prefix, 0) == 0) && prefix.size() >= best) {
      best = prefix.size();
      c.tolerance = t.absolute ? t.value : std::max(t.value, t.value > 0 ? kReferenceFactor * reference : 0);
      c.absolute = t.absolute;
    }
  }
  const auto it = got_.find(base);
  const auto values = it == got_.end() ? unreached(base) : std::optional(it->second);
  if (!values) {
    c.note = "not computed";
    c.error = INFINITY;
    return c;
  }
  const std::vector<double> want = numbers(name);
  const std::vector<float> got = derived(*values, kind);
  if (want.size() != got.size()) {
    c.note = fmt::format("{} values, {} expected", got.size(), want.size());
    c.error = INFINITY;
    return c;
  }
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i)
    worst = std::max(worst, distance(static_cast<double>(got[i]), want[i]));
  // What double precision leaves of a gradient that is zero in mathematics counts as zero.
  constexpr double kRoundingOfZero = 1e-13;
  const double largest = max_abs(want), scale = grad && largest < kRoundingOfZero ? 0 : largest;
  if (scale == 0 && !c.absolute && c.tolerance > 0) {
    c.absolute = true;
    c.tolerance = std::max(kZeroTolerance, 5 * reference);
  }
  c.error = c.absolute || scale == 0 ? worst : worst / scale;
  c.passed = c.error <= c.tolerance;
  if (!c.passed && it == got_.end()) c.note = "no output depends on it here";
  return c;
}

Report Case::compare() const {
  Report r{file_.path(), kind_, "", extra_};
  for (const auto& [name, info] : file_.tensors()) {
    const bool must = starts_with(name, "out") || starts_with(name, "grad");
    // Intermediates help to locate a difference; those that the handler records are held to the same bounds.
    const bool optional = starts_with(name, "mid") && got_.count(base_name(name).first);
    if (must || optional) r.checks.push_back(compare_one(name));
  }
  return r;
}

void Case::dump(const std::string& folder) const {
  std::vector<io::TensorData> tensors;
  for (const auto& [name, values] : got_) {
    std::vector<int64_t> shape{static_cast<int64_t>(values.size())};
    if (file_.has(name)) shape = file_.info(name).shape;
    tensors.push_back(io::tensor_data(name, shape, values));
  }
  const std::string stem = std::filesystem::path(file_.path()).filename().string();
  io::write_safetensors((std::filesystem::path(folder) / stem).string(), tensors, {{"case", kind_}});
}

}  // namespace vkflux::verify
