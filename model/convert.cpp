#include "model/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <thread>

#include "autograd/blocks.h"
#include "autograd/packed.h"
#include "model/io/tensor_writer.h"
#include "model/io/values.h"
#include "vk/error.h"
#include "vk/interrupt.h"

namespace vkflux {
namespace {

using io::FileDType;

FileDType file_type(DType t) {
  for (int i = 0; i < static_cast<int>(FileDType::i64); ++i) {
    const auto f = static_cast<FileDType>(i);
    if (f != FileDType::f64 && io::device_type(f) == t) return f;
  }
  return FileDType::f32;
}

bool is_f8(FileDType t) {
  return t == FileDType::f8_e4m3 || t == FileDType::f8_e5m2;
}
bool is_half(FileDType t) {
  return t == FileDType::f16 || t == FileDType::bf16;
}

// The 16-bit type for what is stored as `t`.
FileDType half_of(FileDType t) {
  return is_half(t) ? t : io::block_values(t) > 1 || t == FileDType::f32 ? FileDType::f16 : FileDType::bf16;
}

class Conversion {
 public:
  Conversion(const ModelPartFile& part, const WeightSource& source, const ConvertOptions& options)
      : part_(part), source_(source), options_(options) {}

  FileDType type_of(const Param& p) {
    const FileDType stored = source_.stored(p);
    if (options_.gguf && p.shape.rank() < 2) return FileDType::f32;
    if (!options_.type) {
      const FileDType t = stored == FileDType::f64 ? FileDType::f32 : stored;
      return fits_container(p, t, stored);
    }
    const DType wanted = *options_.type;
    if (p.shape.rank() < 2) return FileDType::f32;
    if (p.shape.rank() > 2) {  // convolutions: as they are where a packed type is wanted
      if (!is_packed(wanted)) return file_type(wanted);
      return is_half(stored) ? stored : FileDType::f32;
    }
    return fits_container(p, file_type(storage_of(part_.rules, p, wanted, stored)), stored);
  }

  std::vector<io::OutTensor> plan() {
    std::vector<io::OutTensor> out;
    for (const Param& p : part_.params) {
      const FileDType type = type_of(p);
      const std::vector<int64_t> shape(p.shape.begin(), p.shape.end());
      std::vector<io::ForeignPart> parts{{p.name, 0, shape.empty() ? 1 : shape[0], false}};
      if (options_.layout == "diffusers")
        parts = io::foreign_parts(p.name, shape, part_.names,
                                  part_.rows ? part_.rows(p) : std::vector<int64_t>{});
      if (options_.gguf && !part_.gguf_names.rules.empty())
        parts = io::foreign_parts(p.name, shape, part_.gguf_names);
      if (options_.gguf && part_.architecture == "t5encoder") parts[0].name = gguf_t5_name(p.name);
      for (const io::ForeignPart& piece : parts) {
        std::vector<int64_t> s = shape;
        if (!s.empty()) s[0] = piece.rows;
        out.push_back({piece.name, type, s,
                       [this, p, type, piece](const io::Sink& sink) { write(p, type, piece, sink); }});
      }
    }
    return out;
  }

  void expect(uint64_t total) { total_ = total; }
  std::vector<std::string> remarks() const {
    std::vector<std::string> out = remarks_;
    if (saturated_ > 0)
      out.push_back(fmt::format(
          "{} values are beyond the range of F16 and became its largest; BF16 holds them", saturated_));
    return out;
  }
  void remark(const std::string& text) { remarks_.push_back(text); }

 private:
  // GGUF has no fp8 and safetensors no blocks. Where such a type comes from a rule, not from a wish, another
  // is taken.
  FileDType fits_container(const Param& p, FileDType t, FileDType stored) {
    if (options_.gguf && is_f8(t) && !options_.type)
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{} is {}, which GGUF files don't have: choose a --type, q8_0 say", p.name,
                              io::name(t)));
    if (!options_.gguf && io::block_values(t) > 1) {
      if (options_.type) return half_of(stored);
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{} is {}, which safetensors files don't have: choose a --type, bf16 say",
                              p.name, io::name(t)));
    }
    return t;
  }

  // As llama.cpp calls the encoder's tensors.
  std::string gguf_t5_name(const std::string& ours) const {
    for (const io::NameRule& rule : part_.names.rules) {
      if (!rule.fallback || !(rule.foreign.starts_with("enc.") || rule.foreign.starts_with("token_embd")))
        continue;
      io::NameTable one;
      one.rules.push_back(rule);
      one.rules.back().fallback = false;
      const std::string name = io::foreign_parts(ours, {1}, one)[0].name;
      if (name != ours) return name;
    }
    return ours;
  }

  void write(const Param& p, FileDType type, const io::ForeignPart& part, const io::Sink& sink) {
    if (part.head) {
      for (int64_t r = 0; r < part.rows; ++r) {
        const int64_t c = r % part.head;
        write_rows(p, type, r - c + c / 2 + (c % 2) * (part.head / 2), 1, sink);
      }
      return;
    }
    if (!part.swap_halves) return write_rows(p, type, part.row, part.rows, sink);
    const int64_t half = part.rows / 2;
    write_rows(p, type, part.row + half, part.rows - half, sink);
    write_rows(p, type, part.row, half, sink);
  }

  void write_rows(const Param& p, FileDType type, int64_t row, int64_t rows, const io::Sink& sink) {
    const int64_t all = p.shape.rank() ? p.shape[0] : 1, columns = all ? p.shape.numel() / all : 0;
    if (columns == 0) return;
    constexpr int64_t kValues = 4 << 20;
    const int64_t most = std::max<int64_t>(1, kValues / columns);
    const auto row_size = static_cast<uint64_t>(columns / io::block_values(type)) * io::size_of(type);
    for (const int64_t end = row + rows; row < end; row += most) {
      check_interrupted("converting");
      const int64_t n = std::min(most, end - row);
      bytes_.resize(static_cast<uint64_t>(n) * row_size);
      if (source_.has_blocks(p, type)) {
        source_.blocks(p, type, row, bytes_);
      } else {
        encode(p, type, row, n, columns);
      }
      sink(bytes_);
      done_ += bytes_.size();
      if (options_.progress) options_.progress(done_, total_);
    }
  }

  // Rows in as many threads as there are processors.
  void encode(const Param& p, FileDType type, int64_t row, int64_t rows, int64_t columns) {
    const auto threads = std::clamp<int64_t>(static_cast<int64_t>(std::thread::hardware_concurrency()), 1,
                                             std::min<int64_t>(rows, 64));
    const size_t row_size = bytes_.size() / static_cast<size_t>(rows);
    std::vector<std::thread> pool;
    std::vector<std::exception_ptr> failed(static_cast<size_t>(threads));
    std::vector<uint64_t> beyond(static_cast<size_t>(threads));
    for (int64_t t = 0; t < threads; ++t) {
      pool.emplace_back([&, t] {
        try {
          const int64_t from = rows * t / threads, to = rows * (t + 1) / threads;
          std::vector<float> values(static_cast<size_t>((to - from) * columns));
          source_.values(p, static_cast<uint64_t>((row + from) * columns), values);
          const auto bytes = std::span(bytes_).subspan(static_cast<size_t>(from) * row_size,
                                                       static_cast<size_t>(to - from) * row_size);
          if (is_packed(io::device_type(type))) {
            encode_blocks(io::device_type(type), values, bytes);
          } else {
            io::convert(FileDType::f32, std::as_bytes(std::span(values)), io::device_type(type), bytes);
          }
          if (type == FileDType::f16)
            beyond[static_cast<size_t>(t)] = static_cast<uint64_t>(
                std::count_if(values.begin(), values.end(), [](float v) { return std::abs(v) > 65504; }));
        } catch (...) {
          failed[static_cast<size_t>(t)] = std::current_exception();
        }
      });
    }
    for (std::thread& t : pool) t.join();
    for (const std::exception_ptr& e : failed) {
      if (e) std::rethrow_exception(e);
    }
    for (const uint64_t n : beyond) saturated_ += n;
  }

  const ModelPartFile& part_;
  const WeightSource& source_;
  const ConvertOptions& options_;
  std::vector<std::byte> bytes_;
  std::vector<std::string> remarks_;
  uint64_t done_ = 0, total_ = 0, saturated_ = 0;
};

class FileWeights final : public WeightSource {
 public:
  explicit FileWeights(const io::NamedTensors& file) : file_(file) {}
  FileDType stored(const Param& p) const override {
    const FileDType t = file_.dtype(p.name);
    return file_.scaled(p.name) ? FileDType::bf16 : t;
  }
  void values(const Param& p, uint64_t first, std::span<float> out) const override {
    file_.read(p.name, DType::f32, first, std::as_writable_bytes(out));
  }
  bool has_blocks(const Param& p, FileDType type) const override {
    return file_.packs(p.name, io::device_type(type)) && !file_.scaled(p.name);
  }
  void blocks(const Param& p, FileDType type, int64_t row, std::span<std::byte> out) const override {
    const DType t = io::device_type(type);
    const int64_t columns = p.shape.numel() / p.shape[0];
    const auto rows = static_cast<int64_t>(out.size() / file_bytes(t, columns));
    std::vector<std::byte> packed(static_cast<size_t>(rows) * row_bytes(t, columns));
    file_.read_packed(p.name, t, row, packed);
    const std::vector<std::byte> blocks = unpack_rows(t, packed, {rows, columns});
    std::copy(blocks.begin(), blocks.end(), out.begin());
  }

 private:
  const io::NamedTensors& file_;
};

// ggml's number for "mostly this type".
uint32_t gguf_file_type(WantedType type) {
  switch (type.value_or(DType::bf16)) {
    case DType::f32:
      return 0;
    case DType::f16:
      return 1;
    case DType::q4_0:
      return 2;
    case DType::q4_1:
      return 3;
    case DType::q8_0:
      return 7;
    case DType::q5_0:
      return 8;
    case DType::q5_1:
      return 9;
    case DType::q2_k:
      return 10;
    case DType::q3_k:
      return 11;
    case DType::q4_k:
      return 14;
    case DType::q5_k:
      return 16;
    case DType::q6_k:
      return 18;
    default:
      return 32;
  }
}

}  // namespace

std::unique_ptr<WeightSource> weights_of(const io::NamedTensors& file) {
  return std::make_unique<FileWeights>(file);
}

Converted convert(const ModelPartFile& part, const WeightSource& source, const std::string& out,
                  const ConvertOptions& options) {
  if (options.type && options.gguf && block_values(*options.type) == 1 && is_packed(*options.type))
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: GGUF files have no fp8; write a .safetensors file, or choose q8_0", out));
  if (options.type && !options.gguf && block_values(*options.type) > 1)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: safetensors files have no {}; write a .gguf file, or choose bf16 or f8", out,
                            name(*options.type)));
  Conversion conversion(part, source, options);
  const std::vector<io::OutTensor> tensors = conversion.plan();
  Converted report;
  for (const io::OutTensor& t : tensors) {
    const uint64_t bytes = io::bytes_of(out, t);
    auto& [count, sum] = report.types[std::string(io::name(t.dtype))];
    ++count, sum += bytes;
    report.bytes += bytes;
    ++report.tensors;
  }
  conversion.expect(report.bytes);
  const std::string misfit = misfits(part.rules, part.params, options.type);
  if (!misfit.empty()) conversion.remark(misfit);
  if (options.gguf) {
    std::vector<std::pair<std::string, io::GgufValue>> values{
        {"general.architecture", part.architecture},
        {"general.quantization_version", uint32_t{2}},
        {"general.file_type", gguf_file_type(options.type)}};
    values.insert(values.end(), part.gguf_values.begin(), part.gguf_values.end());
    io::write_gguf(out, tensors, values);
  } else {
    io::write_safetensors(out, tensors, {{"format", "pt"}});
  }
  report.remarks = conversion.remarks();
  return report;
}

}  // namespace vkflux
