// Values and packed rows of a checkpoint's tensors, under our names.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "autograd/blocks.h"
#include "autograd/packed.h"
#include "model/io/names.h"
#include "model/io/values.h"
#include "vk/error.h"

namespace vkflux::io {

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
  if (e.head) {
    const uint64_t columns = e.numel / static_cast<uint64_t>(e.shape[0]);
    return read_interleaved(e, columns * unit, first * unit, out,
                            [&](int64_t row, std::span<std::byte> rows) {
                              read_stacked(e, to, static_cast<uint64_t>(row) * columns, rows);
                            });
  }
  if (!e.swap_halves) return read_stacked(e, to, first, out);
  // The second half of what is stored comes first.
  const uint64_t half = e.numel / 2,
                 head = first < half ? std::min<uint64_t>(half - first, out.size() / unit) : 0;
  read_stacked(e, to, half + first, out.first(head * unit));
  if (head * unit < out.size()) read_stacked(e, to, first + head - half, out.subspan(head * unit));
}

template <class Stored>
void NamedTensors::read_interleaved(const Entry& e, size_t row_bytes, uint64_t at, std::span<std::byte> out,
                                    Stored stored) const {
  if (row_bytes == 0) return;
  const auto head = static_cast<uint64_t>(e.head);
  std::vector<std::byte> rows(head * row_bytes);
  for (uint64_t held = UINT64_MAX; !out.empty();) {
    const uint64_t row = at / row_bytes, inside = at % row_bytes, first = row / head * head, c = row - first;
    if (first != held) stored(static_cast<int64_t>(held = first), rows);
    const uint64_t from = c < head / 2 ? 2 * c : 2 * (c - head / 2) + 1;
    const size_t n = std::min<size_t>(row_bytes - inside, out.size());
    std::copy_n(rows.begin() + static_cast<ptrdiff_t>(from * row_bytes + inside), n, out.begin());
    out = out.subspan(n);
    at += n;
  }
}

void NamedTensors::read_stacked(const Entry& e, DType to, uint64_t first, std::span<std::byte> out) const {
  const size_t unit = vkflux::size_of(to);
  for (const auto& [part, name] : e.parts) {
    const ErrorContext context(shown(name));
    const TensorInfo& info = file_.info(name);
    const auto numel = static_cast<uint64_t>(info.numel());
    if (first < numel && !out.empty()) {
      const uint64_t n = std::min<uint64_t>(numel - first, out.size() / unit);
      read_values(info, to, first, out.first(n * unit));
      out = out.subspan(n * unit);
      first += n;
    }
    first -= std::min(first, numel);
  }
}

// Through a buffer that stays in the caches.
void NamedTensors::read_values(const TensorInfo& info, DType to, uint64_t first,
                               std::span<std::byte> out) const {
  std::array<std::byte, size_t{128} << 10> buffer;
  const size_t unit = vkflux::size_of(to), stored = size_of(info.dtype);
  const auto block = static_cast<uint64_t>(block_values(info.dtype));
  const auto scale = scaled_.scales.find(info.name);
  const bool scaled = scale != scaled_.scales.end();
  const uint64_t most = std::min<uint64_t>(buffer.size() / stored * block, scaled ? 8192 : UINT64_MAX);
  std::vector<float> values(scaled ? most : 0);
  while (!out.empty()) {
    uint64_t n = std::min<uint64_t>(out.size() / unit, most);
    if (first % block != 0 || n < block) {  // a part of a block, by way of the whole block
      std::vector<float> whole(block);
      read_values(info, DType::f32, first / block * block, std::as_writable_bytes(std::span(whole)));
      n = std::min(n, block - first % block);
      const auto some = std::span(whole).subspan(first % block, n);
      convert(FileDType::f32, std::as_bytes(some), to, out.first(n * unit));
      first += n;
      out = out.subspan(n * unit);
      continue;
    }
    n -= n % block;
    const std::span<std::byte> raw(buffer.data(), n / block * stored);
    file_.read(info, first / block * stored, raw);
    bool finite = true;
    if (scaled) {
      const auto some = std::span(values).first(n);
      finite = convert(info.dtype, raw, DType::f32, std::as_writable_bytes(some));
      for (float& v : some) v *= scale->second;
      finite = convert(FileDType::f32, std::as_bytes(some), to, out.first(n * unit)) && finite;
    } else {
      finite = convert(info.dtype, raw, to, out.first(n * unit));
    }
    if (!finite) {
      const std::vector<float> all = decode_f32(info.dtype, raw);
      const auto odd = std::find_if(all.begin(), all.end(), [](float v) { return !std::isfinite(v); });
      throw Error(ErrorCode::format, fmt::format("{}: {} holds {}: the file is damaged", file_.path(),
                                                 shown(info.name), odd == all.end() ? INFINITY : *odd));
    }
    first += n;
    out = out.subspan(n * unit);
  }
}

void NamedTensors::read_packed(const std::string& ours, DType as, int64_t row,
                               std::span<std::byte> out) const {
  const Entry& e = entry(ours);
  if (!packs(ours, as))
    throw Error(ErrorCode::internal, fmt::format("{}: {} isn't {}", file_.path(), ours, name(as)));
  const int64_t rows = e.shape[0], columns = static_cast<int64_t>(e.numel / static_cast<uint64_t>(rows));
  const uint64_t size = row_bytes(as, columns);
  const auto count = static_cast<int64_t>(out.size() / size);
  if (out.size() % size != 0 || row < 0 || row > rows || count > rows - row)
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: read beyond {}", file_.path(), ours));
  if (e.head)
    return read_interleaved(
        e, size, static_cast<uint64_t>(row) * size, out,
        [&](int64_t from, std::span<std::byte> rows) { read_stacked_rows(e, as, from, rows); });
  if (!e.swap_halves) return read_stacked_rows(e, as, row, out);
  // The second half of what is stored comes first.
  const int64_t half = rows / 2, head = row < half ? std::min(half - row, count) : 0;
  const uint64_t cut = static_cast<uint64_t>(head) * size;
  read_stacked_rows(e, as, half + row, out.first(cut));
  if (head < count) read_stacked_rows(e, as, row + head - half, out.subspan(cut));
}

void NamedTensors::read_stacked_rows(const Entry& e, DType as, int64_t row, std::span<std::byte> out) const {
  const auto columns = static_cast<int64_t>(e.numel / static_cast<uint64_t>(e.shape[0]));
  const uint64_t size = row_bytes(as, columns), stored = file_bytes(as, columns);
  // Some rows at a time, in a buffer that stays in the caches.
  const int64_t most = std::max<int64_t>(1, (256 << 10) / static_cast<int64_t>(stored));
  std::vector<std::byte> buffer;
  for (const auto& [part, name] : e.parts) {
    const TensorInfo& info = file_.info(name);
    const int64_t rows = info.shape[0];
    const auto scale = scaled_.scales.find(name);
    while (row < rows && !out.empty()) {
      const int64_t n = std::min({rows - row, static_cast<int64_t>(out.size() / size), most});
      buffer.resize(static_cast<uint64_t>(n) * stored);
      file_.read(info, static_cast<uint64_t>(row) * stored, buffer);
      if (const auto odd = first_not_finite(as, buffer)) {
        const int64_t at = row * (columns / vkflux::block_values(as)) + *odd;
        throw Error(
            ErrorCode::format,
            fmt::format("{}: {} {} of {} isn't finite: the file is damaged", file_.path(),
                        vkflux::block_values(as) == 1 ? "value" : "the scale of block", at, shown(name)));
      }
      const uint64_t bytes = static_cast<uint64_t>(n) * size;
      pack_rows(as, buffer, {n, columns}, out.first(bytes),
                scale == scaled_.scales.end() ? 1 : scale->second);
      row += n;
      out = out.subspan(bytes);
    }
    row -= std::min(row, rows);
  }
}

}  // namespace vkflux::io
